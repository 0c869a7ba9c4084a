"""The error per layer: right in decibels, blind to what a clamp cuts off, and it finds the culprit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from graphs import GraphBuilder, conv_2d, every_op_graph, random_inputs, relu, single_op_graph

from tinydeploy.ir.types import constant
from tinydeploy.quantize import (
    LayerError,
    Range,
    first_bad_layer,
    layer_errors,
    quantize,
    quantize_with_ranges,
)


def test_the_ratio_of_a_known_error() -> None:
    graph = single_op_graph("RESHAPE", is_float=True, shape=(1, 2), to=(2,))
    result = quantize_with_ranges(graph, dict.fromkeys(("input_0", "reshape_0"), Range(0.0, 255.0)))
    # 3.25 and 4.25 become 3 and 4: an error of a quarter each.
    (error,) = layer_errors(graph, result, [np.array([[[3.25, 4.25]]], np.float32)])
    assert (error.name, error.op) == ("reshape_0", "RESHAPE")
    assert error.sqnr_db == pytest.approx(10 * math.log10((3.25**2 + 4.25**2) / (2 * 0.25**2)))


def test_an_exact_layer_is_infinitely_good_and_noise_on_nothing_infinitely_bad() -> None:
    graph = single_op_graph("RESHAPE", is_float=True, shape=(1, 2), to=(2,))
    result = quantize_with_ranges(graph, dict.fromkeys(("input_0", "reshape_0"), Range(0.0, 255.0)))
    (error,) = layer_errors(graph, result, [np.array([[[3.0, 0.0]]], np.float32)])
    assert error.sqnr_db == math.inf
    broken = single_op_graph("FULLY_CONNECTED", is_float=True)
    x = random_inputs(broken, 4)
    integers = quantize(broken, x)
    zeros = {v.name: constant(v.name, np.zeros_like(v.array)) for v in broken.constants()}
    (error,) = layer_errors(replace(broken, values={**broken.values, **zeros}), integers, x)
    assert error.sqnr_db == -math.inf


def test_a_healthy_network_has_no_bad_layer_and_all_layers_are_listed() -> None:
    graph = every_op_graph(0, is_float=True)
    x = random_inputs(graph, 30)
    errors = layer_errors(graph, quantize(graph, x), x)
    assert [e.name for e in errors] == [n.name for n in graph.nodes]
    assert min(e.sqnr_db for e in errors) > 25
    assert first_bad_layer(errors) is None


def test_the_first_bad_layer_is_the_one_that_was_damaged() -> None:
    graph = every_op_graph(0, is_float=True)
    x = random_inputs(graph, 30)
    result = quantize(graph, x)
    node = result.nodes[3]
    weights = result.value(str(node.inputs[1]))
    data = np.random.default_rng(0).permutation(weights.array.ravel()).reshape(weights.shape)
    values = {**result.values, weights.name: constant(weights.name, data, weights.quantization)}
    bad = first_bad_layer(layer_errors(graph, replace(result, values=values), x))
    assert bad is not None
    assert bad.name == node.name


def test_what_a_clamp_cuts_off_is_no_error() -> None:
    b = GraphBuilder(0, is_float=True)
    graph = b.graph(relu(b, x=conv_2d(b)))
    x = random_inputs(graph, 20)
    errors = layer_errors(graph, quantize(graph, x), x)
    assert min(e.sqnr_db for e in errors) > 30


def test_the_threshold_is_the_callers() -> None:
    errors = [LayerError("a", "ADD", 30.0), LayerError("b", "MUL", 15.0), LayerError("c", "MUL", 5.0)]
    assert first_bad_layer(errors) == errors[2]
    assert first_bad_layer(errors, 20.0) == errors[1]
