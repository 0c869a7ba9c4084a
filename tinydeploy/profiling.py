"""`profile`: MACs, parameters, memory and instructions of a model on its targets, and whether it fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tinydeploy.backends.c.model import Layer
from tinydeploy.data import random_samples
from tinydeploy.emulate.cycles.model import Cycles
from tinydeploy.energy import Energy, energy_json, energy_of
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.verify import graph_macs
from tinydeploy.measure import Job, Measurement, Progress, measure, silent
from tinydeploy.targets import Board, Target

SEED = 0


@dataclass(frozen=True)
class LayerProfile:
    """One layer of the generated code; instructions and cycles are of the first target, else None."""

    name: str
    op: str
    shape: tuple[int, ...]
    macs: int
    params: int
    weights_bytes: int
    instructions: int | None
    cycles: Cycles | None

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
            "instructions": self.instructions,
            "cycles": None if self.cycles is None else self.cycles.total,
            "cycles_parts": None if self.cycles is None else self.cycles.to_json(),
            "cycles_per_mac": self.cycles_per_mac,
        }


@dataclass(frozen=True)
class TargetProfile:
    """A model on one target.

    Attributes:
        fits: whether flash and RAM suffice; None for a core, which has neither.
        why: the answer in words.
    """

    target: Target
    measurement: Measurement
    fits: bool | None
    why: str

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
            "flash_bytes": None if m.sizes is None else m.sizes.flash,
            "flash_code_bytes": None if m.sizes is None else m.sizes.flash_code,
            "flash_weights_bytes": None if m.sizes is None else m.sizes.flash_weights,
            "ram_bytes": m.ram_bytes,
            "arena_bytes": m.project.plan.arena_bytes,
            "stack_bytes": m.stack_bytes,
            "instructions": m.instructions,
            **m.latency.to_json(),
            **energy_json(self.energy),
            "source": m.source,
            "compiler": m.compiler,
        }


@dataclass(frozen=True)
class Profile:
    """What `profile` reports."""

    model: str
    macs: int
    params: int
    layers: tuple[LayerProfile, ...]
    targets: tuple[TargetProfile, ...]
    notes: tuple[str, ...] = ()

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
    *,
    run: Callable[[Job], Measurement] | None = None,
    progress: Progress = silent,
) -> Profile:
    """What a model costs on every target: built and run there with one seeded random sample.

    Args:
        jobs: the same graph, made ready for each target.
        run: gives the figures in another way, such as an estimate.

    Raises:
        DeployError: a build failed, or the code did not come back.
    """
    graph = jobs[0][0].graph
    inputs = tuple(x[:1] for x in random_samples(graph, 1, SEED))
    profiles = []
    for job, target in jobs:
        measurement = measure(job, inputs, prove=False, progress=progress) if run is None else run(job)
        fits, why = verdict(measurement, target.board)
        profiles.append(TargetProfile(target, measurement, fits, why))
    first = profiles[0].measurement
    layers = tuple(_layer(first, layer) for layer in first.project.model.layers)
    return Profile(model, graph_macs(graph), graph_params(graph), layers, tuple(profiles))


def verdict(m: Measurement, board: Board | None) -> tuple[bool | None, str]:
    """Whether a model fits a board's flash and RAM, with the numbers."""
    if board is None or m.sizes is None or m.ram_bytes is None:
        return None, "a core has no flash and RAM of its own; name a board to see whether it fits"
    needs = (("flash", m.sizes.flash, board.flash_bytes), ("RAM", m.ram_bytes, board.ram_bytes))
    over = [
        f"{what}: {need:,} B needed, {has:,} B there, {need - has:,} B over"
        for what, need, has in needs
        if need > has
    ]
    if over:
        return False, "; ".join(over)
    return True, "; ".join(f"{what}: {need:,} of {has:,} B" for what, need, has in needs)


def _layer(m: Measurement, layer: Layer) -> LayerProfile:
    counted = [n for name, n in m.per_function.items() if _belongs(name, layer.function)]
    cycles = [n for name, n in m.latency.per_function.items() if _belongs(name, layer.function)]
    params = sum(
        v.elements for v in m.project.model.graph.node_inputs(layer.node) if v is not None and v.is_constant
    )
    return LayerProfile(
        layer.node.name,
        layer.node.op.kind,
        layer.output.shape,
        layer.macs,
        params,
        sum(c.bytes for c in layer.code.constants),
        sum(counted) if m.instructions is not None else None,
        sum(cycles, Cycles()) if m.latency.parts is not None else None,
    )


def _belongs(symbol: str, function: str) -> bool:
    """A compiler may append `.constprop.0` and the like to a static function's name."""
    return symbol == function or symbol.startswith(f"{function}.")
