"""Bits, noise and costs of a graph, with data or without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tinydeploy.analysis.bits import Precision
from tinydeploy.analysis.costs import accumulator_bits, signed_bits
from tinydeploy.analysis.grids import Grid
from tinydeploy.analysis.layers import LinearLayer, is_linear, linear_layers
from tinydeploy.analysis.noise import decibels_of, dot_product_sqnr_db, zeta_db
from tinydeploy.analysis.predict import predicted_noise
from tinydeploy.analysis.result import Analysis, LayerAnalysis, TensorAnalysis
from tinydeploy.analysis.statistics import Compared, Statistics, measure_tensors
from tinydeploy.analysis.weights import WeightStatistics, weight_statistics
from tinydeploy.engine import run_all
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Array
from tinydeploy.ir.verify import site_of
from tinydeploy.ops.quantize import quantize_array
from tinydeploy.passes.twin import float_twin
from tinydeploy.quantize.error import decibels
from tinydeploy.quantize.ptq import QuantizeOptions, quantize, quantize_with_ranges
from tinydeploy.quantize.scales import Range
from tinydeploy.quantize.staircases import few_levels

_UNKNOWN_WEIGHTS = "the float weights behind an integer model are not known: their noise is predicted only"


def analyze(
    graph: Graph,
    inputs: Sequence[Array] | None = None,
    options: QuantizeOptions | None = None,
    *,
    model: str = "",
) -> Analysis:
    """What a graph costs in bits and full adders, and with data how far quantization takes it from itself.

    A float graph is quantized as `options` say and compared with what the integer engine then computes. An
    integer graph is compared with the float graph of its own constants, so that what is measured is the noise
    of its activations.

    Args:
        inputs: one float32 array (samples, *value.shape) per graph input, in real units; calibration takes
            all of them.
        options: for a float graph; int8 by default.

    Raises:
        DeployError: the data do not fit, or the graph cannot be quantized.
    """
    options = options or QuantizeOptions()
    real: Graph | None = None
    if not graph.is_integer:
        real = graph if inputs is None else few_levels(graph, inputs, options.recipe)
        graph = _quantized(real, inputs, options)
    layers = linear_layers(graph, Precision())
    weights = {layer.node.name: weight_statistics(layer, graph, real) for layer in layers}
    notes = () if real is not None else (_UNKNOWN_WEIGHTS,)
    measured: Mapping[str, Statistics] = {}
    tensors: list[TensorAnalysis] = []
    if inputs is None:
        notes = (*notes, "noise of activations and their divergence need --data")
    else:
        compared = _compared(float_twin(graph) if real is None else real, graph)
        measured = measure_tensors(compared, inputs)
        noise = predicted_noise(
            compared.real, {name: g.scale for name, g in compared.grids.items()}, measured, _powers(weights)
        )
        tensors = [_tensor(n, s, compared.grids[n], noise.get(n)) for n, s in measured.items()]
    known = real is None or inputs is not None
    bounds = {node.name: _proved(graph, node) for node in graph.nodes if known and is_linear(node)}
    return Analysis(
        model,
        0 if inputs is None else len(inputs[0]),
        tuple(_layer(layer, weights[layer.node.name], measured, bounds) for layer in layers),
        (*(_weights(graph, layer, weights[layer.node.name]) for layer in layers), *tensors),
        notes,
    )


def _quantized(real: Graph, inputs: Sequence[Array] | None, options: QuantizeOptions) -> Graph:
    """Without data any ranges do: the weights and their forms do not depend on them."""
    if inputs is not None:
        return quantize(real, inputs, options)
    flowing = [*real.inputs, *(n for node in real.nodes for n in node.outputs)]
    return quantize_with_ranges(real, dict.fromkeys(flowing, Range(-1.0, 1.0)), options.recipe)


def _powers(weights: Mapping[str, WeightStatistics]) -> dict[str, tuple[float, float]]:
    """Mean square and noise of each layer's weights: predicted where levels are uniform, else measured.

    Where the float weights are not known, the twin has the integer ones and there is no noise.
    """
    return {
        name: (w.power, 0.0 if w.noise is None else w.noise if w.rounding is None else w.rounding)
        for name, w in weights.items()
    }


def _compared(real: Graph, integer: Graph) -> Compared:
    grids = {
        value.name: Grid.of(value)
        for value in integer.values.values()
        if not value.is_constant and value.name in real.values
    }

    def integers(inputs: Sequence[Array]) -> Mapping[str, Array]:
        values = [integer.value(name) for name in integer.inputs]
        given = [quantize_array(x, v.quant, v.dtype) for x, v in zip(inputs, values, strict=True)]
        found = run_all(integer, given)
        return {name: found[name].astype(np.int32) - integer.value(name).limits[0] for name in grids}

    return Compared(real, grids, integers)


def _proved(graph: Graph, node: Node) -> int:
    parameters = node.op.parameters(site_of(graph, node))  # type: ignore[attr-defined]  # linear ops have it
    return signed_bits(parameters.requantization.bound)


def _layer(
    layer: LinearLayer,
    weights: WeightStatistics,
    measured: Mapping[str, Statistics],
    bounds: Mapping[str, int],
) -> LayerAnalysis:
    x = measured.get(str(layer.node.inputs[0]))
    zeta_x = None if x is None else zeta_db(x.peak, x.rms)
    return LayerAnalysis(
        layer,
        accumulator_bits(layer.input_bits, layer.weight_bits, layer.length),
        bounds.get(layer.node.name),
        zeta_x,
        weights.zeta_db,
        None
        if zeta_x is None
        else dot_product_sqnr_db(layer.input_bits, zeta_x, weights.zeta_db, layer.length),
    )


def _weights(graph: Graph, layer: LinearLayer, weights: WeightStatistics) -> TensorAnalysis:
    value = graph.value(str(layer.node.inputs[1]))
    return TensorAnalysis(
        value.name,
        "weights",
        layer.weight_bits,
        value.elements,
        weights.zeta_db,
        weights.sqnr_db,
        weights.rounding_db,
        weights.rounding_db,
    )


def _tensor(name: str, s: Statistics, grid: Grid, noise: float | None) -> TensorAnalysis:
    forward, reverse = s.divergences
    return TensorAnalysis(
        name,
        "activation",
        grid.bits,
        s.elements,
        zeta_db(s.peak, s.rms),
        decibels(s.signal, s.noise),
        None if noise is None else decibels(s.signal, noise),
        decibels_of(s.signal * 12 / grid.scale**2),
        forward,
        reverse,
    )
