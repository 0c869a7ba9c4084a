"""A measurement that was not measured: the plan is exact, cycles and code come from cost functions."""

from __future__ import annotations

from tinydeploy.backends.c.bodies import CALL_BYTES
from tinydeploy.backends.c.layer import Layer
from tinydeploy.backends.c.model import Model
from tinydeploy.backends.c.project import Project, lower_project
from tinydeploy.emulate.cycles.model import Cycles, flash_cycles
from tinydeploy.emulate.cycles.trace import FlashCount
from tinydeploy.errors import DeployError
from tinydeploy.estimate.costs import CoreCosts, core_costs, cost
from tinydeploy.estimate.features import layer_features, read_features
from tinydeploy.ir.graph import Graph
from tinydeploy.latency import Estimated, Latency, unverified_notes
from tinydeploy.measure import Job, Measurement, Sizes
from tinydeploy.targets import FlashTiming

NOTE = "estimated by cost functions: nothing was compiled and run"

_POINTER_BYTES = 4


def estimate(job: Job) -> Measurement:
    """What a model is expected to cost; arena and weights are exact.

    Raises:
        DeployError: the model cannot be exported, or its core, flash, kernels or goal were not fitted.
    """
    if job.options.optimize == "flash":
        fact = "no cost functions were fitted for --optimize flash"
        raise DeployError(fact, where="--estimate", hint="leave --estimate out")
    costs = core_costs(job.core.name, job.board.flash if job.board else None)
    model = lower_project(job.graph, job.options)
    project = Project({}, model, model.plan)
    layers = project.model.layers
    graph = project.model.graph
    flash = job.board.flash if job.board else None
    cycles = {layer.function: _cycles(graph, layer, costs, flash) for layer in layers}
    instructions = {layer.function: _instructions(graph, layer, costs) for layer in layers}
    kernels = [costs.kernel(layer.code.kernel) for layer in layers]
    code = sum(_code(model, layer, costs) for layer in layers)
    # The layers reach each array through a pointer, which lies beside it.
    weights = sum(constant.bytes + _POINTER_BYTES for layer in layers for constant in layer.code.constants)
    arena, coding = project.plan.arena_bytes, model.coding
    code += 0 if coding is None else coding.code_bytes
    return Measurement(
        compiler=costs.compiler,
        project=project,
        outputs=(),
        instructions=sum(instructions.values()),
        per_function=instructions,
        stack_bytes=max((kernel.stack_bytes for kernel in kernels), default=0),
        arena_touched=None,
        sizes=Sizes(costs.base_bytes + code, weights, arena + model.decoded_bytes, arena),
        float_symbols=(),
        faults=(),
        unaligned_ok=True,
        latency=_latency(job, cycles, costs),
        source="estimated",
    )


def _code(model: Model, layer: Layer, costs: CoreCosts) -> int:
    """Bytes of a layer's function, with the body that it shares where it is the first to call it."""
    body = model.body_of(layer)
    own = 0 if body is None else CALL_BYTES
    first = body is None or layer.index == body.layers[0]
    return own + (costs.kernel(layer.code.kernel).code_bytes if first else 0)


def _latency(job: Job, cycles: dict[str, Cycles], costs: CoreCosts) -> Latency:
    total = sum(cycles.values(), Cycles())
    board = job.board
    known = board.validation if board is not None else job.core.validation
    notes = (NOTE,) if costs.flash is not None else (NOTE, "waits for the flash are not in the cycles")
    return Latency(
        parts=total,
        per_function=cycles,
        latency_ms=None if board is None else total.total / (board.clock_mhz * 1000),
        validation=known,
        notes=(*notes, *unverified_notes(board)),
        estimated=Estimated(costs.held_out.networks, costs.held_out.worst_error_pct),
    )


def _cycles(graph: Graph, layer: Layer, costs: CoreCosts, flash: FlashTiming | None) -> Cycles:
    features, kernel = layer_features(graph, layer), costs.kernel(layer.code.kernel)
    own = Cycles(round(cost(kernel.issue, features)), round(cost(kernel.branches, features)))
    if flash is None or costs.flash is None:
        return own
    lines = costs.flash[layer.code.kernel]
    fetch, following = round(cost(lines.fetch, features)), round(cost(lines.following, features))
    read = round(cost(lines.read, read_features(features, layer, flash)))
    return own + flash_cycles(FlashCount(fetch, following, 0, read), flash)


def _instructions(graph: Graph, layer: Layer, costs: CoreCosts) -> int:
    kernel = costs.kernel(layer.code.kernel)
    return round(cost(kernel.instructions, layer_features(graph, layer)))
