"""Costs of a precision: the figures that its sources print, from graphs of the networks themselves."""

from __future__ import annotations

import pytest
from graphs import GraphBuilder, depthwise_conv_2d, every_op_graph, fully_connected, single_op_graph
from networks import resnet18, resnet20, vgg11

from tinydeploy.analysis import Precision, stored_bits
from tinydeploy.analysis.costs import accumulator_bits, computational_cost, network_costs, signed_bits
from tinydeploy.analysis.layers import linear_layers
from tinydeploy.ir.graph import Graph


def stages(graph: Graph, bits: tuple[int, int, int]) -> Precision:
    """First and last layer at 32 bits, and each stage, its projection included, at its own."""
    layers = linear_layers(graph, Precision())
    wide = {16: bits[0], 32: bits[1], 64: bits[2]}
    given = {a.node.name: wide[graph.value(a.node.outputs[0]).shape[-1]] for a in layers[1:-1]}
    return Precision(32, 32, given)


@pytest.mark.parametrize(
    ("bits", "expected"), [((4, 4, 2), 2.5988), ((4, 2, 4), 3.7328), ((2, 4, 4), 4.0087)]
)
def test_average_weight_bits_of_resnet20_with_projections(
    bits: tuple[int, int, int], expected: float
) -> None:
    graph = resnet20()
    costs = network_costs(linear_layers(graph, stages(graph, bits)))
    assert costs.weights == 270_896
    assert costs.average_weight_bits == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("network", "bits", "adders"), [(resnet18, 1.386e8, 2.377e11), (vgg11, 1.358e9, 1.004e12)]
)
def test_costs_at_224x224_with_10_bits_everywhere(network: object, bits: float, adders: float) -> None:
    assert callable(network)
    costs = network_costs(linear_layers(network(), Precision(10, 10)))
    assert float(f"{costs.representational:.3e}") == bits
    assert float(f"{costs.computational:.3e}") == adders


def test_one_small_layer_by_hand() -> None:
    b = GraphBuilder(0, is_float=True)
    graph = b.graph(fully_connected(b, shape=(1, 5), outputs=3))
    (layer,) = linear_layers(graph, Precision(weights=4, activations=6))
    assert (layer.length, layer.dots, layer.weights, layer.inputs) == (5, 3, 15, 5)
    # Five products of 24 adders, four additions of 4 + 6 + 3 bits, three times.
    assert computational_cost(layer) == 3 * (5 * 24 + 4 * 13)
    assert network_costs([layer]).representational == 15 * 4 + 5 * 6


def test_a_depthwise_layer_has_short_dot_products() -> None:
    b = GraphBuilder(0, is_float=True)
    (layer,) = linear_layers(b.graph(depthwise_conv_2d(b, shape=(1, 7, 6, 4), multiplier=2)), Precision())
    assert (layer.length, layer.dots, layer.weights, layer.inputs) == (9, 7 * 6 * 8, 72, 168)


def test_an_integer_model_has_its_own_bits_whatever_is_assumed() -> None:
    graph = single_op_graph("CONV_2D")
    (layer,) = linear_layers(graph, Precision(3, 5))
    assert (layer.weight_bits, layer.input_bits) == (8, 8)
    assert stored_bits(graph.value(str(graph.nodes[0].inputs[1]))) == 8


def test_layers_without_weights_cost_nothing_here() -> None:
    graph = every_op_graph(0, is_float=True)
    kinds = {layer.node.op.kind for layer in linear_layers(graph, Precision())}
    assert kinds == {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}


@pytest.mark.parametrize(("length", "bits"), [(1, 16), (2, 17), (3, 18), (4, 18), (5, 19), (576, 26)])
def test_an_accumulator_grows_with_the_logarithm_of_the_sum(length: int, bits: int) -> None:
    assert accumulator_bits(8, 8, length) == bits
    worst = 128 * 128 * length
    assert signed_bits(worst) <= bits + 1


@pytest.mark.parametrize(("bound", "bits"), [(0, 1), (1, 2), (127, 8), (128, 9), (2**31 - 1, 32)])
def test_bits_of_a_signed_number(bound: int, bits: int) -> None:
    assert signed_bits(bound) == bits
