"""Runs a float graph on calibration data and finds a range for every tensor that flows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tinydeploy.engine import run_all
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.parallel import in_order
from tinydeploy.quantize.observers import Calibrator, make_calibrator
from tinydeploy.quantize.scales import MAX_MAGNITUDE, Range

# All activations of one group are held at once: 16 MiB of float32.
_GROUP_ELEMENTS = 1 << 22


def calibrate(
    graph: Graph,
    inputs: Sequence[Array],
    method: str = "minmax",
    bits: Callable[[str], int] = lambda name: 8,
) -> dict[str, Range]:
    """The range of each graph input and node output, by name, before any ties between them.

    Args:
        inputs: one float32 array (samples, *value.shape) per graph input, in real units.
        method: a name of `observers.CALIBRATORS`.
        bits: of each tensor by name.

    Raises:
        DeployError: no such method, data that do not fit the inputs, or an activation that is not finite
            or beyond MAX_MAGNITUDE.
    """
    names = [*graph.inputs, *(n for node in graph.nodes for n in node.outputs)]
    observers: dict[str, Calibrator] = {name: make_calibrator(method, bits(name)) for name in names}
    for arrays in run_groups(graph, inputs, group_size(graph)):
        for name, observer in observers.items():
            _require_moderate(graph, name, arrays[name])
            observer.observe(arrays[name])
    return {name: observer.range() for name, observer in observers.items()}


def group_size(graph: Graph) -> int:
    """How many samples go through the graph at once, so that all activations of a group fit in memory."""
    elements = sum(v.elements for v in graph.values.values() if not v.is_constant)
    return max(1, _GROUP_ELEMENTS // max(elements, 1))


def run_groups(graph: Graph, inputs: Sequence[Array], size: int) -> Iterator[dict[str, Array]]:
    """Every activation by name, for one group of `size` samples after the other.

    Raises:
        DeployError: the inputs have other shapes or types than the graph declares.
    """

    def group(start: int) -> dict[str, Array]:
        # What overflows is found by the caller in the result, by name.
        with np.errstate(over="ignore", invalid="ignore"):
            return run_all(graph, [x[start : start + size] for x in inputs])

    return in_order(group, range(0, _samples(graph, inputs), size))


def _samples(graph: Graph, inputs: Sequence[Array]) -> int:
    where = graph.source or graph.name
    expected = [(v.dtype.value, v.shape) for v in map(graph.value, graph.inputs)]
    given = [(x.dtype.name, x.shape[1:]) for x in inputs]
    if given != expected:
        raise DeployError(
            f"the data are {given} a sample, and the model takes {expected}",
            where=where,
            hint="one array per input, samples first, in the model's layout and type",
        )
    counts = {x.shape[0] for x in inputs}
    if len(counts) != 1 or 0 in counts:
        raise DeployError("there is no sample, or the inputs differ in their number", where=where)
    return int(counts.pop())


def _require_moderate(graph: Graph, name: str, x: Array) -> None:
    # NaN fails the comparison as well.
    if not (x.max() <= MAX_MAGNITUDE and x.min() >= -MAX_MAGNITUDE):
        raise DeployError(
            f"the tensor {name!r} holds NaN, infinity or numbers beyond {MAX_MAGNITUDE:.0e} for the"
            " calibration data",
            where=graph.source or graph.name,
            hint="check that the data are in the units that the model was trained on",
        )
