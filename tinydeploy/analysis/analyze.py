"""Bits, noise and costs of a graph, with data or without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinydeploy.analysis.bits import Precision
from tinydeploy.analysis.costs import accumulator_bits, signed_bits
from tinydeploy.analysis.grids import Grid, run_on_grids, with_rounded_weights
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
from tinydeploy.quantize.calibrate import calibrate
from tinydeploy.quantize.error import decibels
from tinydeploy.quantize.ptq import QuantizeOptions, quantize
from tinydeploy.quantize.ties import group_tensors


def analyze(
    graph: Graph,
    inputs: Sequence[Array] | None = None,
    assumed: Precision | None = None,
    *,
    model: str = "",
    calibration: str = "minmax",
) -> Analysis:
    """What a graph costs in bits and full adders, and with data how far quantization takes it from itself.

    A float graph is taken to have the `assumed` bits: int8 is what `quantize` makes and the integer engine
    runs, other bits are simulated in float. An integer graph is compared with the float graph of its own
    constants, so that what is measured is the noise of its activations.

    Args:
        inputs: one float32 array (samples, *value.shape) per graph input, in real units; calibration takes
            all of them.
        calibration: a name of `observers.CALIBRATORS`, for a float graph.

    Raises:
        DeployError: the data do not fit, or the graph cannot be quantized.
    """
    assumed = assumed or Precision()
    layers = linear_layers(graph, assumed)
    if inputs is None:
        return _without_data(graph, layers, model)
    if not graph.is_integer and not assumed.is_int8:
        integer, compared = None, _simulated(graph, layers, inputs, assumed, calibration)
    else:
        integer = graph if graph.is_integer else quantize(graph, inputs, QuantizeOptions(calibration))
        compared = _by_engine(float_twin(graph) if graph.is_integer else graph, integer)
    measured = measure_tensors(compared, inputs)
    weights = {layer.node.name: weight_statistics(graph, layer) for layer in layers}
    steps = {name: grid.scale for name, grid in compared.grids.items()}
    powers = {name: (w.power, w.step_power / 12 * (w.noise is not None)) for name, w in weights.items()}
    noise = predicted_noise(compared.real, steps, measured, powers)
    bounds = {} if integer is None else _proved_bits(integer)
    return Analysis(
        model,
        len(inputs[0]),
        "simulation" if integer is None else "integer engine",
        tuple(_layer(layer, weights[layer.node.name], measured, bounds) for layer in layers),
        (
            *(_weights(graph, layer, weights[layer.node.name]) for layer in layers),
            *(_tensor(name, s, compared.grids[name], noise.get(name)) for name, s in measured.items()),
        ),
        _notes(graph),
    )


def _without_data(graph: Graph, layers: Sequence[LinearLayer], model: str) -> Analysis:
    bounds = _proved_bits(graph) if graph.is_integer else {}
    weights = {layer.node.name: weight_statistics(graph, layer) for layer in layers}
    return Analysis(
        model,
        0,
        None,
        tuple(_layer(layer, weights[layer.node.name], {}, bounds) for layer in layers),
        tuple(_weights(graph, layer, weights[layer.node.name]) for layer in layers),
        (*_notes(graph), "noise of activations and their divergence need --data"),
    )


def _notes(graph: Graph) -> tuple[str, ...]:
    if not graph.is_integer:
        return ()
    return (
        "the float weights behind an integer model are not known: the noise of its weights is predicted only",
    )


def _by_engine(real: Graph, integer: Graph) -> Compared:
    grids = {
        value.name: Grid.of(value.quant, value.dtype.limits[0], value.dtype.bytes * 8)
        for value in integer.values.values()
        if not value.is_constant and value.name in real.values
    }

    def integers(inputs: Sequence[Array]) -> Mapping[str, Array]:
        values = [integer.value(name) for name in integer.inputs]
        given = [quantize_array(x, v.quant, v.dtype) for x, v in zip(inputs, values, strict=True)]
        found = run_all(integer, given)
        return {name: found[name].astype("int32") - integer.value(name).dtype.limits[0] for name in grids}

    return Compared(real, grids, integers)


def _simulated(
    graph: Graph,
    layers: Sequence[LinearLayer],
    inputs: Sequence[Array],
    assumed: Precision,
    calibration: str,
) -> Compared:
    rounded = with_rounded_weights(graph, {layer.node.name: layer.weight_bits for layer in layers})
    read = {str(layer.node.inputs[0]): layer.input_bits for layer in layers}
    groups = group_tensors(graph, calibrate(graph, inputs, calibration))
    flowing = [*graph.inputs, *(n for node in graph.nodes for n in node.outputs)]
    grids = {n: Grid.spanning(groups[n].span, read.get(n, assumed.activations)) for n in flowing}
    return Compared(graph, grids, lambda given: run_on_grids(rounded, given, grids))


def _proved_bits(graph: Graph) -> dict[str, int]:
    """Accumulator bits by layer, from the bound that was proved for its weights."""
    return {node.name: _proved(graph, node) for node in graph.nodes if is_linear(node)}


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
