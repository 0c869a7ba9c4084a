"""How far the layers of an integer graph are from those of the float graph that it was made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.ops.quantize import dequantize_array, quantize_array
from tinydeploy.quantize.calibrate import group_size, run_groups
from tinydeploy.quantize.rules import Ends
from tinydeploy.quantize.ties import clamps_behind

BAD_SQNR_DB = 10.0
"""Below this, the error is over a tenth of the signal's power."""


@dataclass(frozen=True)
class LayerError:
    """One layer's error, with all that the layers before it add.

    Attributes:
        name: the node's.
        op: its kind.
        sqnr_db: `10 log10(sum f^2 / sum (f - q)^2)` over all samples and elements; infinite where both
            agree, minus infinity where a signal of zero became another.
    """

    name: str
    op: str
    sqnr_db: float


def layer_errors(float_graph: Graph, int_graph: Graph, inputs: Sequence[Array]) -> tuple[LayerError, ...]:
    """The signal to quantization noise ratio of each layer that both graphs have, in execution order.

    A tensor of which the next layer cuts something off (see `clamps_behind`) is compared without that, since
    quantization leaves it out.

    Args:
        inputs: one float32 array (samples, *value.shape) per graph input, in real units.

    Raises:
        DeployError: the data do not fit the inputs.
    """
    computed = {n for node in int_graph.nodes for n in node.outputs}
    nodes = [node for node in float_graph.nodes if node.outputs[0] in computed]
    clamps = clamps_behind(float_graph)
    signal = dict.fromkeys((n.outputs[0] for n in nodes), 0.0)
    noise = dict(signal)
    integers = [
        quantize_array(x, int_graph.value(name).quant, int_graph.value(name).dtype)
        for name, x in zip(int_graph.inputs, inputs, strict=True)
    ]
    size = group_size(float_graph)
    runs = run_groups(float_graph, inputs, size), run_groups(int_graph, integers, size)
    for real, quantized in zip(*runs, strict=True):
        for name in signal:
            f = real[name].astype(np.float64)
            q = dequantize_array(quantized[name], int_graph.value(name).quant)
            if name in clamps:
                f, q = _clamp(f, clamps[name]), _clamp(q, clamps[name])
            signal[name] += float(np.sum(f**2))
            noise[name] += float(np.sum((f - q) ** 2))
    return tuple(
        LayerError(n.name, n.op.kind, decibels(signal[n.outputs[0]], noise[n.outputs[0]])) for n in nodes
    )


def first_bad_layer(errors: Sequence[LayerError], threshold_db: float = BAD_SQNR_DB) -> LayerError | None:
    """The first layer, in execution order, below the threshold: where a search for the cause begins."""
    return next((e for e in errors if e.sqnr_db < threshold_db), None)


def _clamp(x: Array, ends: Ends) -> Array:
    low, high = ends
    return x if low is None and high is None else np.clip(x, low, high)


def decibels(signal: float, noise: float) -> float:
    """`10 log10(signal / noise)` of two powers; infinite without noise, minus infinite without a signal."""
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf
