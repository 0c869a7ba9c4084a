"""`diff`: the layers of two forms of one network find each other, and the first that differs is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from graphs import (
    GraphBuilder,
    add,
    conv_2d,
    every_op_graph,
    fully_connected,
    mean,
    pad,
    pool,
    random_inputs,
    relu,
)
from quantize_support import integers_of

from tinydeploy import ops
from tinydeploy.backends.onnx import write_onnx
from tinydeploy.backends.tflite import write_tflite
from tinydeploy.data import Samples
from tinydeploy.difference import Difference, Side, diff, match_units, units_of
from tinydeploy.errors import DeployError
from tinydeploy.frontends.onnx import parse_onnx
from tinydeploy.frontends.tflite import parse_tflite
from tinydeploy.ir.graph import Border, Graph, Layout
from tinydeploy.ir.types import Array, Quantization, constant
from tinydeploy.ops import Activation
from tinydeploy.prune import find_groups, importance, remove, select_by_ratio
from tinydeploy.quantize import layer_errors, quantize


def side(graph: Graph, inputs: list[Array], path: str = "model") -> Side:
    return Side(path, graph, Samples(tuple(inputs), None, ()))


def compared(a: Graph, b: Graph, x: list[Array]) -> Difference:
    """Both on the same real or integer data."""
    given = [integers_of(g, x) if g.is_integer and x[0].dtype == np.float32 else x for g in (a, b)]
    return diff(side(a, given[0], "a"), side(b, given[1], "b"))


def renamed(graph: Graph) -> Graph:
    """The same network under other names."""
    names = {name: f"n{i}" for i, name in enumerate(graph.values)}
    return replace(
        graph,
        values={names[n]: replace(v, name=names[n]) for n, v in graph.values.items()},
        nodes=tuple(
            replace(
                node,
                name=f"layer {i}",
                inputs=tuple(None if n is None else names[n] for n in node.inputs),
                outputs=tuple(names[n] for n in node.outputs),
            )
            for i, node in enumerate(graph.nodes)
        ),
        inputs=tuple(names[n] for n in graph.inputs),
        outputs=tuple(names[n] for n in graph.outputs),
    )


def pairs(a: Graph, b: Graph) -> list[tuple[str, str]]:
    return [(p.a.node.name, p.b.node.name) for p in match_units(units_of(a), units_of(b))]


def layers(graph: Graph) -> list[str]:
    return [u.node.name for u in units_of(graph).units.values()]


@pytest.mark.parametrize("seed", range(3))
def test_the_onnx_and_the_tflite_of_one_model_are_the_same_in_every_element(seed: int) -> None:
    graph = every_op_graph(seed)
    a = parse_onnx(write_onnx(graph), "m", "m.onnx")
    b = parse_tflite(write_tflite(graph), "m", "m.tflite")
    found = compared(a, b, random_inputs(graph, 5))
    assert found.same
    assert all(layer.differing == 0 for layer in found.layers)
    assert (found.only_a, found.only_b) == ((), ())


def test_float_against_int8_has_the_error_that_quantization_reports() -> None:
    graph = every_op_graph(1, is_float=True)
    x = random_inputs(graph, 20)
    result = quantize(graph, x)
    expected = {e.name: e.sqnr_db for e in layer_errors(graph, result, x)}
    found = compared(graph, result, x)
    assert [layer.name for layer in found.layers] == layers(graph)
    for layer in found.layers:
        assert layer.sqnr_db == pytest.approx(expected[layer.name])
        assert layer.differing is None
    assert found.same


def test_either_model_may_be_the_integer_one() -> None:
    graph = every_op_graph(1, is_float=True)
    x = random_inputs(graph, 10)
    found = compared(quantize(graph, x), graph, x)
    assert found.same
    assert {layer.name for layer in found.layers} == set(layers(graph))


def changed(graph: Graph, name: str, change: Callable[[Array], Array]) -> Graph:
    """The graph with other weights in one layer."""
    (node,) = (n for n in graph.nodes if n.name == name)
    weights = graph.value(str(node.inputs[1]))
    data = change(weights.array.copy())
    values = {**graph.values, weights.name: constant(weights.name, data, weights.quantization)}
    return replace(graph, values=values)


def some_weights(data: Array) -> Array:
    data.reshape(-1)[::7] ^= 64
    return data


@pytest.mark.parametrize("name", ["conv_2d_0", "conv_2d_3", "fully_connected_12"])
def test_wrong_weights_are_found_where_they_are(name: str) -> None:
    graph = every_op_graph(2)
    found = compared(graph, changed(graph, name, some_weights), random_inputs(graph, 8))
    assert found.first is not None
    assert found.first.name == name
    assert found.first.differing is not None
    assert 0 < found.first.differing <= found.first.elements * 8
    before = [layer for layer in found.layers if layers(graph).index(layer.name) < layers(graph).index(name)]
    assert all(layer.differing == 0 for layer in before)


def test_a_damaged_layer_of_an_int8_model_is_found_against_the_float_model() -> None:
    graph = every_op_graph(0, is_float=True)
    x = random_inputs(graph, 20)
    damaged = changed(quantize(graph, x), graph.nodes[3].name, np.negative)
    found = compared(graph, damaged, x)
    assert found.first is not None
    assert found.first.name == graph.nodes[3].name
    assert found.first.sqnr_db < 10


def test_two_float_models_differ_far_sooner_than_float_and_int8() -> None:
    graph = every_op_graph(0, is_float=True)
    x = random_inputs(graph, 5)
    assert compared(graph, renamed(graph), x).same
    slightly = changed(graph, "conv_2d_0", lambda w: w * np.float32(1.002))
    found = compared(graph, slightly, x)
    assert found.first is not None
    assert found.first.name == "conv_2d_0"
    assert found.first.sqnr_db == pytest.approx(54, abs=3)


@pytest.mark.parametrize("seed", range(4))
def test_layers_without_a_common_name_pair_by_their_place(seed: int) -> None:
    graph = every_op_graph(seed)
    other = renamed(graph)
    names = {n.name: f"layer {i}" for i, n in enumerate(graph.nodes)}
    assert pairs(graph, other) == [(n, names[n]) for n in layers(graph)]


def residual(*, swapped: bool, shortcut_first: bool) -> Graph:
    """Two paths of equal size into one sum, in either order of operands and of execution."""
    b = GraphBuilder(3, is_float=True)
    x = b.input((1, 6, 6, 4))
    if shortcut_first:
        short = conv_2d(b, x=x, outputs=8, kernel=(1, 1))
        body = conv_2d(b, x=conv_2d(b, x=x, outputs=8, activation=Activation.RELU), outputs=8)
    else:
        body = conv_2d(b, x=conv_2d(b, x=x, outputs=8, activation=Activation.RELU), outputs=8)
        short = conv_2d(b, x=x, outputs=8, kernel=(1, 1))
    return b.graph(add(b, inputs=[short, body] if swapped else [body, short]))


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("shortcut_first", [False, True])
def test_the_paths_of_a_residual_sum_are_not_mixed_up(swapped: bool, shortcut_first: bool) -> None:
    a = residual(swapped=False, shortcut_first=False)
    b = renamed(residual(swapped=swapped, shortcut_first=shortcut_first))
    order = {"body": (0, 1), "short": 2} if not shortcut_first else {"body": (1, 2), "short": 0}
    first, second = order["body"]
    expected = [
        ("conv_2d_0", f"layer {first}"),
        ("conv_2d_1", f"layer {second}"),
        ("conv_2d_2", f"layer {order['short']}"),
        ("add_3", "layer 3"),
    ]
    assert pairs(a, b) == expected


def test_a_clamp_and_a_padding_of_their_own_are_no_layers() -> None:
    fused, apart = GraphBuilder(1, is_float=True), GraphBuilder(1, is_float=True)
    a = fused.graph(conv_2d(fused, shape=(1, 5, 4, 3), activation=Activation.RELU))
    x = apart.input((1, 5, 4, 3))
    widths = ((0, 0), (1, 1), (1, 1), (0, 0))
    y = relu(apart, x=conv_2d(apart, x=pad(apart, x=x, paddings=widths), padding="valid"))
    found = compared(a, apart.graph(y), random_inputs(a, 4))
    assert [(layer.name, layer.counterpart) for layer in found.layers] == [("conv_2d_0", "conv_2d_1")]
    assert found.same
    assert (found.only_a, found.only_b) == ((), ())


def test_a_mean_pairs_with_an_average_pool() -> None:
    a, b = GraphBuilder(1, is_float=True), GraphBuilder(1, is_float=True)
    left = a.graph(mean(a, shape=(1, 4, 4, 3), keep_dims=True))
    right = b.graph(pool(b, ops.AveragePool2D, shape=(1, 4, 4, 3), kernel=(4, 4), strides=(1, 1)))
    assert compared(left, right, random_inputs(left, 3)).same


def deep(depth: int, extra_at: int | None = None) -> Graph:
    """Equal convolutions in a row, and perhaps a sigmoid between them."""
    b = GraphBuilder(5, is_float=True)
    y = b.input((1, 4, 4, 8))
    for i in range(depth):
        if i == extra_at:
            y = b.node(ops.Logistic(), [y])
        y = conv_2d(b, x=y, outputs=8)
    return b.graph(y)


def test_a_layer_that_only_one_has_is_named_and_the_others_pair_around_it() -> None:
    a, b = renamed(deep(4)), deep(4, extra_at=2)
    x = random_inputs(a, 2)
    found = compared(a, b, x)
    assert found.only_a == ()
    assert found.only_b == ("logistic_2",)
    assert [layer.differs for layer in found.layers] == [False, False, True, True]


def test_a_pruned_model_shares_the_layers_that_kept_their_size() -> None:
    graph = deep(3)
    groups = find_groups(graph)
    smaller = remove(graph, groups, select_by_ratio(groups, importance(graph, groups, "l2"), 0.5))
    found = compared(graph, smaller, random_inputs(graph, 3))
    assert [layer.name for layer in found.layers] == ["conv_2d_2"]
    assert found.only_a == found.only_b == ("conv_2d_0", "conv_2d_1")


def test_unrelated_models_are_refused_with_what_each_of_them_is() -> None:
    a, b = GraphBuilder(0), GraphBuilder(0)
    left, right = a.graph(fully_connected(a, shape=(1, 20))), b.graph(relu(b, shape=(1, 20)))
    with pytest.raises(DeployError, match="no layer in common") as caught:
        compared(left, right, random_inputs(left, 2))
    assert "[1, 20] to [1, 7], 1 layers, against [1, 20] to [1, 20], 1 layers" in caught.value.fact


def test_integers_of_another_scale_are_compared_as_real_numbers() -> None:
    graph = every_op_graph(2)
    name = graph.outputs[0]
    other = Quantization((1.0 / 128,), (0,))
    values = {**graph.values, name: replace(graph.value(name), quantization=other)}
    found = compared(graph, replace(graph, values=values), random_inputs(graph, 4))
    by_name = {layer.name: layer for layer in found.layers}
    assert by_name["softmax_13"].differing is None
    assert by_name["conv_2d_0"].differing == 0


def test_an_output_is_compared_in_the_source_models_order() -> None:
    b = GraphBuilder(1)
    graph = b.graph(conv_2d(b, shape=(1, 5, 4, 3)))
    layout = Layout((1, 6, 5, 4), (1, 6, 5, 4), (0, 2, 3, 1))
    bordered = replace(graph, output_borders=(Border("map", layout=layout),))
    assert compared(bordered, bordered, random_inputs(graph, 3)).same


def test_the_largest_difference_is_in_real_units() -> None:
    b = GraphBuilder(1, is_float=True)
    graph = b.graph(fully_connected(b, shape=(1, 4), outputs=1, bias=False))
    more = changed(graph, "fully_connected_0", lambda w: w + np.float32(0.5))
    x = [np.array([[[1.0, 1.0, 1.0, 1.0]], [[2.0, 1.0, 1.0, 1.0]]], np.float32)]
    (layer,) = compared(graph, more, x).layers
    assert layer.max_abs_difference == pytest.approx(2.5, rel=1e-5)
