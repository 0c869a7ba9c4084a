"""`profile`: MACs, parameters, memory and instructions of a model on its targets, and whether it fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tinydeploy.advice import Advice, Trial, advise
from tinydeploy.backends.c.layer import Layer
from tinydeploy.data import random_samples
from tinydeploy.emulate.cycles.model import Cycles
from tinydeploy.energy import Energy, energy_json, energy_of
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.ir.verify import graph_macs
from tinydeploy.measure import Job, Measurement, Progress, measure, silent
from tinydeploy.plan.lifetime import live_bytes
from tinydeploy.targets import Target
from tinydeploy.verdict import Limits, Verdict, judge, require_answerable

SEED = 0


@dataclass(frozen=True)
class LayerProfile:
    """One layer of the generated code on one target; what is not measured there is None.

    Attributes:
        weights_bytes: its constants in flash.
        code_bytes: its own function in flash; kernels that several layers share are not in it.
        arena_bytes: live in the arena while it runs: inputs, output, scratch, and what later layers read.
        share: of the cycles, or of the instructions where there are no cycles, of the whole model.
        from_ram: its cycles with the weights in RAM.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    macs: int
    params: int
    weights_bytes: int
    instructions: int | None
    cycles: Cycles | None
    code_bytes: int | None = None
    arena_bytes: int = 0
    share: float | None = None
    from_ram: Cycles | None = None

    @property
    def flash_bytes(self) -> int | None:
        return None if self.code_bytes is None else self.weights_bytes + self.code_bytes

    @property
    def cycles_per_mac(self) -> float | None:
        return None if self.cycles is None or not self.macs else self.cycles.total / self.macs

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "op": self.op,
            "output_shape": list(self.shape),
            "macs": self.macs,
            "params": self.params,
            "weights_bytes": self.weights_bytes,
            "code_bytes": self.code_bytes,
            "flash_bytes": self.flash_bytes,
            "arena_bytes": self.arena_bytes,
            "instructions": self.instructions,
            "cycles": None if self.cycles is None else self.cycles.total,
            "cycles_parts": None if self.cycles is None else self.cycles.to_json(),
            "cycles_per_mac": self.cycles_per_mac,
            "share": self.share,
            "cycles_weights_in_ram": None if self.from_ram is None else self.from_ram.total,
        }


@dataclass(frozen=True)
class TargetProfile:
    """A model on one target.

    Attributes:
        layers: in execution order.
        advice: where it does not fit, what would make it fit, the cheapest first.
    """

    target: Target
    measurement: Measurement
    verdict: Verdict
    layers: tuple[LayerProfile, ...]
    advice: tuple[Advice, ...] = ()

    @property
    def fits(self) -> bool | None:
        """Whether flash, RAM and latency suffice; None where nothing was asked."""
        return self.verdict.fits

    @property
    def why(self) -> str:
        """The answer in words."""
        return self.verdict.why

    @property
    def energy(self) -> Energy | None:
        """Of one inference; None where the board's power or the cycles are not known."""
        return energy_of(self.measurement.latency.cycles, self.target.board)

    def to_json(self) -> dict[str, object]:
        m = self.measurement
        return {
            "target": self.target.name,
            "fits": self.fits,
            "why": self.why,
            "needs": [need.to_json() for need in self.verdict.needs],
            "flash_bytes": None if m.sizes is None else m.sizes.flash,
            "flash_code_bytes": None if m.sizes is None else m.sizes.flash_code,
            "flash_weights_bytes": None if m.sizes is None else m.sizes.flash_weights,
            "ram_bytes": m.ram_bytes,
            "arena_bytes": m.project.plan.arena_bytes,
            "stack_bytes": m.stack_bytes,
            "instructions": m.instructions,
            "init_instructions": m.init_instructions,
            "huffman": None if m.project.model.coding is None else m.project.model.coding.to_json(),
            **m.latency.to_json(),
            **energy_json(self.energy),
            "source": m.source,
            "compiler": m.compiler,
            "weights_in_ram": None if m.weights_in_ram is None else m.weights_in_ram.to_json(),
            "advice": [advice.to_json() for advice in self.advice],
            "layers": [layer.to_json() for layer in self.layers],
        }


@dataclass(frozen=True)
class Profile:
    """What `profile` reports."""

    model: str
    macs: int
    params: int
    targets: tuple[TargetProfile, ...]
    notes: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[LayerProfile, ...]:
        """Those of the first target."""
        return self.targets[0].layers

    @property
    def all_fit(self) -> bool:
        return all(t.fits is not False for t in self.targets)

    def to_json(self) -> dict[str, object]:
        return {
            "model": self.model,
            "macs": self.macs,
            "params": self.params,
            "layers": [layer.to_json() for layer in self.layers],
            "targets": [t.to_json() for t in self.targets],
            "notes": list(self.notes),
        }


def graph_params(graph: Graph) -> int:
    """Elements of all weights and biases."""
    names = {n for node in graph.nodes for n in node.inputs if n is not None}
    return sum(v.elements for v in graph.constants() if v.name in names)


def profile(
    jobs: list[tuple[Job, Target]],
    model: str,
    limits: Limits | None = None,
    *,
    run: Callable[[Job], Measurement] | None = None,
    progress: Progress = silent,
) -> Profile:
    """What a model costs on every target: built and run there with one seeded random sample.

    Args:
        jobs: the same graph, made ready for each target.
        limits: what the user allows, on top of the boards' memories.
        run: gives the figures in another way, such as an estimate; then nothing is tried that would help.

    Raises:
        DeployError: a build failed, the code did not come back, or a limit has no answer on a target.
    """
    limits = limits or Limits()
    for _, target in jobs:
        require_answerable(target, limits)
    graph = jobs[0][0].graph
    inputs = tuple(x[:1] for x in random_samples(graph, 1, SEED))
    profiles = tuple(_on_target(job, target, limits, inputs, run, progress) for job, target in jobs)
    return Profile(model, graph_macs(graph), graph_params(graph), profiles)


def _on_target(
    job: Job,
    target: Target,
    limits: Limits,
    inputs: tuple[Array, ...],
    run: Callable[[Job], Measurement] | None,
    progress: Progress,
) -> TargetProfile:
    m = run(job) if run else measure(job, inputs, prove=False, placement=True, progress=progress)
    found = judge(m, target, limits)
    advice: tuple[Advice, ...] = ()
    if found.over and run is None:
        advice = advise(Trial(job, target, limits, inputs), m, found, progress=progress)
    live = live_bytes(m.project.plan, len(m.project.model.graph.nodes))
    step = {node.name: i for i, node in enumerate(m.project.model.graph.nodes)}
    layers = tuple(_layer(m, layer, live[step[layer.node.name]]) for layer in m.project.model.layers)
    return TargetProfile(target, m, found, layers, advice)


def _layer(m: Measurement, layer: Layer, arena_bytes: int) -> LayerProfile:
    own = [name for name in m.code_bytes if layer.owns(name)]
    instructions = sum(n for name, n in m.per_function.items() if layer.owns(name))
    cycles = [n for name, n in m.latency.per_function.items() if layer.owns(name)]
    params = sum(
        v.elements for v in m.project.model.graph.node_inputs(layer.node) if v is not None and v.is_constant
    )
    total = sum(cycles, Cycles()) if m.latency.parts is not None else None
    part, whole = (instructions, m.instructions) if total is None else (total.total, m.latency.cycles)
    return LayerProfile(
        layer.node.name,
        layer.node.op.kind,
        layer.output.shape,
        layer.macs,
        params,
        sum(c.bytes for c in layer.code.constants),
        instructions if m.instructions is not None else None,
        total,
        code_bytes=sum(m.code_bytes[name] for name in own) if m.code_bytes else None,
        arena_bytes=arena_bytes,
        share=part / whole if whole else None,
        from_ram=None if m.weights_in_ram is None else m.weights_in_ram.cycles_of([layer.function]),
    )
