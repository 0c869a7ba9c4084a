"""Post-training quantization of whole graphs: near the float graph, always legal, ties as stated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from graphs import (
    MAKERS,
    GraphBuilder,
    add,
    conv_2d,
    every_op_graph,
    pool,
    random_inputs,
    relu,
    single_op_graph,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreters import run_micro

from tinydeploy import ops
from tinydeploy.backends.tflite import write_tflite
from tinydeploy.engine import run
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Border, Graph, Node
from tinydeploy.ir.show import show
from tinydeploy.ir.types import Array, DType, Quantization, Value, constant
from tinydeploy.ir.verify import verify
from tinydeploy.ops import OPS, Activation
from tinydeploy.ops.quantize import dequantize_array, quantize_array
from tinydeploy.quantize import CALIBRATORS, QuantizeOptions, Range, calibrate, quantize, quantize_with_ranges
from tinydeploy.quantize.rules import PROBABILITY, RULES

REFUSED = {"QUANTIZE", "DEQUANTIZE"}
QUANTIZED = sorted(set(MAKERS) - REFUSED)


def integers_of(graph: Graph, x: list[Array]) -> list[Array]:
    """Real inputs in the units of an integer graph."""
    values = [graph.value(name) for name in graph.inputs]
    return [quantize_array(a, v.quant, v.dtype) for a, v in zip(x, values, strict=True)]


def steps_off(float_graph: Graph, int_graph: Graph, x: list[Array]) -> float:
    """The largest difference of an output, in steps of its scale."""
    results = run(int_graph, integers_of(int_graph, x))
    worst = 0.0
    for name, real, q in zip(int_graph.outputs, run(float_graph, x), results, strict=True):
        quant = int_graph.value(name).quant
        worst = max(worst, float(np.abs(dequantize_array(q, quant) - real).max()) / quant.scale)
    return worst


def scale_of(graph: Graph, name: str) -> Quantization:
    return graph.value(name).quant


def test_every_op_has_a_rule_or_is_refused_by_name() -> None:
    assert {op.kind for op in RULES} == set(OPS) - REFUSED


@pytest.mark.parametrize("op", [ops.Quantize(), ops.Dequantize()])
def test_an_op_without_a_rule_is_named_in_the_refusal(op: ops.Quantize) -> None:
    values = {n: Value(n, DType.FLOAT32, (1, 4)) for n in ("x", "y")}
    graph = Graph("m", values, (Node("odd", op, ("x",), ("y",)),), ("x",), ("y",))
    with pytest.raises(DeployError, match="no rule") as caught:
        quantize(graph, [np.zeros((1, 1, 4), np.float32)])
    assert op.kind in caught.value.where
    assert "odd" in caught.value.where


def test_an_integer_graph_is_refused() -> None:
    graph = single_op_graph("RESHAPE")
    with pytest.raises(DeployError, match="int8 already"):
        quantize(graph, random_inputs(graph, 2))


@pytest.mark.parametrize("kind", QUANTIZED)
@pytest.mark.parametrize("seed", range(3))
def test_one_op_is_within_a_few_output_steps(kind: str, seed: int) -> None:
    graph = single_op_graph(kind, seed, is_float=True)
    x = random_inputs(graph, 50, seed)
    result = quantize(graph, x)
    # One step for each rounded operand, one for the output; products and sums of many weigh them.
    assert steps_off(graph, result, x) <= 3.0


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from(["minmax", "percentile", "mse"]))
def test_a_random_network_is_near_its_float_original(seed: int, calibration: str) -> None:
    graph = random_network(seed)
    x = random_inputs(graph, 24, seed)
    result = quantize(graph, x, QuantizeOptions(calibration))
    # Ten layers, each off by about a step of its own; clipping calibrations saturate the rarest outputs.
    if calibration == "minmax":
        assert steps_off(graph, result, x) <= 12.0
    (real,), (q,) = run(graph, x), run(result, integers_of(result, x))
    quant = scale_of(result, result.outputs[0])
    error = np.sqrt(np.mean((dequantize_array(q, quant) - real) ** 2))
    assert error <= 4.0 * quant.scale


def random_network(seed: int) -> Graph:
    """Up to eight ops on images, drawn at random."""
    b = GraphBuilder(seed, is_float=True)
    x = b.input((1, 8, 8, 4))
    activations = list(Activation)
    for _ in range(int(b.rng.integers(1, 9))):
        activation = activations[int(b.rng.integers(len(activations)))]
        match int(b.rng.integers(6)):
            case 0:
                x = conv_2d(b, x=x, outputs=4, activation=activation)
            case 1:
                x = MAKERS["DEPTHWISE_CONV_2D"](b, x=x, activation=activation)
            case 2:
                x = add(b, inputs=[x, conv_2d(b, x=x, outputs=4, kernel=(1, 1))], activation=activation)
            case 3:
                x = pool(b, ops.MaxPool2D, x=x, kernel=(3, 3), strides=(1, 1), padding="same")
            case 4:
                x = pool(b, ops.AveragePool2D, x=x, kernel=(3, 3), strides=(1, 1), padding="same")
            case _:
                x = relu(b, x=x)
    return b.graph(MAKERS["MEAN"](b, x=x))


@pytest.mark.parametrize("calibration", CALIBRATORS)
def test_every_op_together_runs_bit_equal_in_tensorflow_lite_micro(calibration: str) -> None:
    graph = every_op_graph(4, is_float=True)
    x = random_inputs(graph, 40)
    result = quantize(graph, x, QuantizeOptions(calibration))
    q = integers_of(result, x)
    for ours, theirs in zip(run(result, q), run_micro(write_tflite(result), q), strict=True):
        assert np.array_equal(ours, theirs.reshape(ours.shape))


def test_two_runs_are_equal_and_names_stay() -> None:
    graph = every_op_graph(1, is_float=True)
    x = random_inputs(graph, 20)
    a, b = quantize(graph, x), quantize(graph, x)
    assert show(a) == show(b)
    assert write_tflite(a) == write_tflite(b)
    assert list(a.values) == list(graph.values)
    assert [n.name for n in a.nodes] == [n.name for n in graph.nodes]


def test_borders_are_integer_unless_float_is_asked_for() -> None:
    graph = single_op_graph("ADD", is_float=True)
    x = random_inputs(graph, 5)
    assert quantize(graph, x).input_borders == (Border("input_0"), Border("input_1"))
    kept = quantize(graph, x, QuantizeOptions(float_borders=True))
    assert kept.input_borders == (Border("input_0", True), Border("input_1", True))
    assert kept.output_borders == (Border("add_0", True),)


def test_what_saturates_stays_in_its_type_and_near_the_end() -> None:
    graph = single_op_graph("CONV_2D", is_float=True)
    x = random_inputs(graph, 20)
    result = quantize(graph, x)
    # Ten times beyond the calibration: every output stays between the ends that were seen.
    (y,) = run(result, integers_of(result, [10 * x[0]]))
    assert y.min() == -128
    assert y.max() == 127


@pytest.mark.parametrize("kind", QUANTIZED)
@pytest.mark.parametrize("level", [0.0, 1.0, -3.0, 1e-20, 1e12])
@pytest.mark.parametrize("calibration", CALIBRATORS)
def test_constant_data_give_a_legal_graph(kind: str, level: float, calibration: str) -> None:
    graph = single_op_graph(kind, is_float=True)
    x = [np.full_like(a, level) for a in random_inputs(graph, 2)]
    result = quantize(graph, x, QuantizeOptions(calibration))
    verify(result)
    run(result, integers_of(result, x))


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(QUANTIZED),
    st.lists(st.tuples(st.integers(-17, 17), st.integers(-17, 17)), min_size=3, max_size=3),
)
def test_ranges_of_any_magnitude_give_a_legal_graph(kind: str, powers: list[tuple[int, int]]) -> None:
    graph = single_op_graph(kind, is_float=True)
    names = [*graph.inputs, *graph.nodes[0].outputs]
    ranges = {n: Range(-(10.0**a), 10.0**b) for n, (a, b) in zip(names, powers, strict=False)}
    verify(quantize_with_ranges(graph, ranges))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_data_that_are_not_moderate_are_refused_with_the_tensor(bad: float) -> None:
    graph = single_op_graph("RELU", is_float=True)
    x = random_inputs(graph, 3)
    x[0][1, 0, 0, 0, 0] = bad
    with pytest.raises(DeployError, match="'input_0'"):
        quantize(graph, x)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_weights_that_are_not_moderate_are_refused_with_the_layer(bad: float) -> None:
    graph = single_op_graph("CONV_2D", is_float=True)
    (name,) = [v.name for v in graph.constants() if len(v.shape) == 4]
    data = graph.value(name).array.copy()
    data[0] = bad
    broken = replace(graph, values={**graph.values, name: constant(name, data)})
    ranges = {"input_0": Range(-1, 1), "conv_2d_0": Range(-1, 1)}
    with pytest.raises(DeployError, match=name) as caught:
        quantize_with_ranges(broken, ranges)
    assert "conv_2d_0" in caught.value.where


def test_data_of_another_shape_type_or_number_are_refused() -> None:
    graph = single_op_graph("ADD", is_float=True)
    a, b = random_inputs(graph, 3)
    for wrong in ([a], [a[:, :, :2], b], [a.astype(np.float64), b], [a[:2], b], [a[:0], b[:0]]):
        with pytest.raises(DeployError):
            calibrate(graph, wrong)


def test_calibration_takes_in_all_groups() -> None:
    graph = single_op_graph("RESHAPE", is_float=True, shape=(1, 256, 256, 4), to=(1, 256 * 1024))
    x = np.zeros((20, 1, 256, 256, 4), np.float32)
    x[0, 0, 0, 0, 0], x[-1, 0, 0, 0, 0] = -7.0, 9.0
    assert calibrate(graph, [x])["input_0"] == Range(-7.0, 9.0)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("RESHAPE", {}),
        ("PAD", {}),
        ("PAD", {"value": 3.0}),
        ("MAX_POOL_2D", {}),
        ("AVERAGE_POOL_2D", {"activation": Activation.RELU6}),
        ("RELU", {"activation": Activation.RELU6}),
    ],
)
def test_ops_that_copy_elements_share_their_quantization(kind: str, given: dict[str, Any]) -> None:
    graph = single_op_graph(kind, is_float=True, **given)
    result = quantize(graph, random_inputs(graph, 10))
    assert scale_of(result, graph.inputs[0]) == scale_of(result, graph.outputs[0])


def test_a_pad_fill_is_quantized_and_spanned() -> None:
    graph = single_op_graph("PAD", is_float=True, value=50.0)
    result = quantize(graph, random_inputs(graph, 10))
    assert result.nodes[0].op == replace(graph.nodes[0].op, value=127)


def test_a_pad_fill_beyond_a_fixed_quantization_is_refused() -> None:
    b = GraphBuilder(0, is_float=True)
    p = MAKERS["SOFTMAX"](b)
    graph = b.graph(b.node(ops.Pad(((0, 0), (1, 1)), 5.0), [p]))
    with pytest.raises(DeployError, match=r"fill 5\.0"):
        quantize(graph, random_inputs(graph, 4))


@pytest.mark.parametrize("kind", ["SOFTMAX", "LOGISTIC"])
def test_probabilities_have_their_fixed_quantization_and_what_copies_them_too(kind: str) -> None:
    b = GraphBuilder(0, is_float=True)
    p = MAKERS[kind](b)
    graph = b.graph(MAKERS["RESHAPE"](b, x=p, to=(10,)))
    result = quantize(graph, random_inputs(graph, 4))
    assert scale_of(result, p.name) == scale_of(result, result.outputs[0]) == PROBABILITY


def test_concatenated_tensors_get_one_quantization_of_their_hull() -> None:
    graph = single_op_graph("CONCATENATION", is_float=True)
    a, b = random_inputs(graph, 10)
    result = quantize(graph, [a, 5 * b])
    names = [*graph.inputs, *graph.outputs]
    assert len({scale_of(result, n) for n in names}) == 1
    assert scale_of(result, names[0]).scale >= np.ptp(5 * b) / 256


def test_a_concatenation_with_a_fixed_input_keeps_both() -> None:
    b = GraphBuilder(0, is_float=True)
    x = b.input((1, 10))
    graph = b.graph(b.node(ops.Concatenation(1), [MAKERS["SOFTMAX"](b, x=x), x]))
    data = random_inputs(graph, 30)
    result = quantize(graph, data)
    assert scale_of(result, graph.nodes[0].outputs[0]) == PROBABILITY
    assert scale_of(result, x.name) == scale_of(result, result.outputs[0]) != PROBABILITY
    assert steps_off(graph, result, data) <= 1.0


def test_a_concatenation_of_probabilities_is_a_copy() -> None:
    b = GraphBuilder(0, is_float=True)
    x = b.input((1, 10))
    graph = b.graph(b.node(ops.Concatenation(1), [MAKERS["SOFTMAX"](b, x=x), MAKERS["LOGISTIC"](b, x=x)]))
    result = quantize(graph, random_inputs(graph, 5))
    assert scale_of(result, result.outputs[0]) == PROBABILITY


@pytest.mark.parametrize("activation", [Activation.RELU, Activation.RELU6, Activation.RELU_N1_TO_1])
def test_a_clamp_behind_a_layer_spares_what_it_cuts_off(activation: Activation) -> None:
    b = GraphBuilder(0, is_float=True)
    c = conv_2d(b)
    graph = b.graph(relu(b, x=c, activation=activation))
    x = random_inputs(graph, 20)
    result = quantize(graph, x)
    quant = scale_of(result, c.name)
    assert quant == scale_of(result, result.outputs[0])
    low = activation.range[0]
    assert (-128 - quant.zero_point) * quant.scale == pytest.approx(low, abs=quant.scale)
    assert steps_off(graph, result, x) <= 3.0


def test_a_relu_whose_input_others_read_has_a_scale_of_its_own() -> None:
    b = GraphBuilder(0, is_float=True)
    c = conv_2d(b)
    r = relu(b, x=c)
    graph = b.graph(add(b, inputs=[c, r]))
    result = quantize(graph, random_inputs(graph, 20))
    assert scale_of(result, r.name).zero_point == -128
    assert scale_of(result, c.name).zero_point > -128


@pytest.mark.parametrize("activation", [Activation.RELU, Activation.RELU6, Activation.RELU_N1_TO_1])
def test_a_fused_activation_bounds_the_output(activation: Activation) -> None:
    graph = single_op_graph("CONV_2D", is_float=True, activation=activation)
    ranges = {"input_0": Range(-3.0, 3.0), "conv_2d_0": Range(-9.0, 9.0)}
    quant = scale_of(quantize_with_ranges(graph, ranges), "conv_2d_0")
    low, high = activation.range
    ends = (-128 - quant.zero_point) * quant.scale, (127 - quant.zero_point) * quant.scale
    assert ends[0] == pytest.approx(-9.0 if low is None else low, abs=quant.scale)
    assert ends[1] == pytest.approx(9.0 if high is None else high, abs=quant.scale)


def test_weights_that_two_layers_share_keep_one_copy_and_biases_get_two() -> None:
    b = GraphBuilder(0, is_float=True)
    x = b.input((1, 6, 6, 4))
    weights = b.weights((4, 3, 3, 4), 0)
    bias = b.bias(x, weights, 4)
    op = ops.Conv2D(padding=ops.Padding(1, 1, 1, 1))
    first = b.node(op, [x, weights, bias])
    graph = b.graph(b.node(op, [first, weights, bias]))
    data = random_inputs(graph, 20)
    result = quantize(graph, data)
    assert result.nodes[0].inputs[1] == result.nodes[1].inputs[1] == weights.name
    assert result.nodes[1].inputs[2] == f"{bias.name}/conv_2d_1"
    assert steps_off(graph, result, data) <= 4.0


def test_a_constant_that_is_weights_here_and_an_operand_there() -> None:
    b = GraphBuilder(0, is_float=True)
    x = b.input((1, 5))
    w = b.weights((5, 5), 0)
    y = b.node(ops.FullyConnected(), [x, w])
    graph = b.graph(b.node(ops.Mul(), [y, w]))
    data = random_inputs(graph, 20)
    result = quantize(graph, data)
    assert result.nodes[0].inputs[1] != result.nodes[1].inputs[1]
    assert steps_off(graph, result, data) <= 3.0


def test_a_bias_beyond_int32_still_gives_the_right_output() -> None:
    graph = single_op_graph("FULLY_CONNECTED", is_float=True)
    name = str(graph.nodes[0].inputs[2])
    bias = graph.value(name).array.copy()
    bias[2] = 4e6
    graph = replace(graph, values={**graph.values, name: constant(name, bias)})
    data = [1e-4 * x for x in random_inputs(graph, 20)]
    data = [x.astype(np.float32) for x in data]
    result = quantize(graph, data)
    assert steps_off(graph, result, data) <= 1.0
    assert np.abs(result.value(name).array).max() > 2**30


def test_weights_that_are_computed_are_refused() -> None:
    b = GraphBuilder(0, is_float=True)
    x, w = b.input((1, 5)), b.input((3, 5))
    graph = b.graph(b.node(ops.FullyConnected(), [x, w]))
    with pytest.raises(DeployError, match="not a constant") as caught:
        quantize(graph, [np.ones((2, 1, 5), np.float32), np.ones((2, 3, 5), np.float32)])
    assert "fully_connected_0" in caught.value.where
