"""Which tensors share a quantization, and what a clamp behind a tensor spares it."""

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
    pool,
    random_inputs,
    relu,
    single_op_graph,
)
from quantize_support import scale_of, steps_off

from tinydeploy import ops
from tinydeploy.errors import DeployError
from tinydeploy.ops import Activation
from tinydeploy.quantize import Range, quantize, quantize_with_ranges
from tinydeploy.quantize.rules import PROBABILITY


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
    alone = replace(graph, nodes=graph.nodes[:1], outputs=(c.name,), output_borders=())
    coarse = quantize(alone, x)
    error = steps_off(alone, coarse, x) * scale_of(coarse, c.name).scale
    assert steps_off(graph, result, x) * quant.scale <= error + quant.scale


def test_a_clamp_is_seen_through_ops_that_keep_the_order() -> None:
    b = GraphBuilder(0, is_float=True)
    c = conv_2d(b)
    r = relu(b, x=MAKERS["RESHAPE"](b, x=pool(b, ops.MaxPool2D, x=c), to=(1, 54)))
    graph = b.graph(r)
    x = random_inputs(graph, 20)
    result = quantize(graph, x)
    assert scale_of(result, c.name) == scale_of(result, r.name)
    assert scale_of(result, c.name).zero_point == -128
    assert steps_off(graph, result, x) <= 3.0


def test_a_mean_in_front_of_a_clamp_needs_what_the_clamp_cuts_off() -> None:
    b = GraphBuilder(0, is_float=True)
    c = conv_2d(b)
    graph = b.graph(relu(b, x=pool(b, ops.AveragePool2D, x=c)))
    x = random_inputs(graph, 20)
    result = quantize(graph, x)
    quant = scale_of(result, c.name)
    assert quant.zero_point > -100
    # The mean's own step is finer than those of the numbers that it averages.
    assert steps_off(graph, result, x) * scale_of(result, graph.outputs[0]).scale <= 3.0 * quant.scale


def test_a_sigmoid_needs_no_integers_where_it_is_flat() -> None:
    b = GraphBuilder(0, is_float=True)
    f = MAKERS["FULLY_CONNECTED"](b)
    graph = b.graph(MAKERS["LOGISTIC"](b, x=f))
    x = [100 * a for a in random_inputs(graph, 50)]
    result = quantize(graph, x)
    assert scale_of(result, f.name).scale == pytest.approx(16 / 255)


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
