"""What one format writes as operators in front of a layer becomes part of it: paddings, changes of scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graphs import GraphBuilder, concatenation, conv_2d, depthwise_conv_2d, pad, pool, random_inputs, relu

from tinydeploy import ops
from tinydeploy.backends.tflite import write_tflite
from tinydeploy.engine import run
from tinydeploy.frontends.tflite import parse_tflite
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Value
from tinydeploy.ir.verify import verify
from tinydeploy.ops import Padding
from tinydeploy.passes.concatenations import fold_requantizations
from tinydeploy.passes.pads import fold_pads

WIDTHS = ((0, 0), (1, 0), (2, 1), (0, 0))
LOWEST = {True: float(np.finfo(np.float32).min), False: -128}


def kinds(graph: Graph) -> list[str]:
    return [n.op.kind for n in graph.nodes]


def assert_same(a: Graph, b: Graph) -> None:
    verify(b)
    x = random_inputs(a, 5)
    for left, right in zip(run(a, x), run(b, x), strict=True):
        assert np.array_equal(left, right) or np.allclose(left, right, atol=1e-5)
        assert left.dtype.kind == "f" or np.array_equal(left, right)


def layer(b: GraphBuilder, kind: str, x: Value) -> Value:
    if kind == "conv":
        return conv_2d(b, x=x, strides=(2, 2), padding=Padding(0, 1, 0, 1))
    if kind == "depthwise":
        return depthwise_conv_2d(b, x=x, multiplier=2)
    return pool(b, ops.MaxPool2D, x=x, kernel=(3, 4), strides=(2, 2))


def padded(
    kind: str, value: float | None, *, is_float: bool, widths: tuple[tuple[int, int], ...] = WIDTHS
) -> Graph:
    b = GraphBuilder(2, is_float=is_float)
    x = b.input((1, 7, 6, 4), b.quantization(zero_point=-20))
    return b.graph(layer(b, kind, pad(b, x=x, paddings=widths, value=value)))


@pytest.mark.parametrize("is_float", [True, False], ids=["float", "int8"])
@pytest.mark.parametrize("kind", ["conv", "depthwise", "pool"])
def test_a_padding_that_the_layer_can_do_by_itself_is_folded(kind: str, is_float: bool) -> None:
    graph = padded(kind, LOWEST[is_float] if kind == "pool" else None, is_float=is_float)
    folded = fold_pads(graph)
    assert len(folded.nodes) == 1
    assert_same(graph, folded)


@pytest.mark.parametrize("is_float", [True, False], ids=["float", "int8"])
def test_the_real_zero_may_be_stated(is_float: bool) -> None:
    graph = padded("conv", 0.0 if is_float else -20, is_float=is_float)
    assert len(fold_pads(graph).nodes) == 1
    assert_same(graph, fold_pads(graph))


@pytest.mark.parametrize(
    ("kind", "value", "is_float"),
    [
        ("conv", 1.0, True),
        ("conv", 0, False),
        ("conv", -128, False),
        ("pool", None, True),
        ("pool", -127, False),
        ("pool", 0.0, True),
    ],
)
def test_another_fill_stays_an_operator(kind: str, value: float | None, is_float: bool) -> None:
    graph = padded(kind, value, is_float=is_float)
    assert fold_pads(graph) is graph


@pytest.mark.parametrize(
    "widths", [((0, 0), (3, 0), (0, 0), (0, 0)), ((0, 0), (0, 0), (0, 4), (0, 0))], ids=["rows", "columns"]
)
def test_a_pool_with_a_window_outside_its_input_keeps_the_operator(
    widths: tuple[tuple[int, int], ...],
) -> None:
    graph = padded("pool", -128, is_float=False, widths=widths)
    assert fold_pads(graph) is graph


def test_padded_channels_stay_an_operator() -> None:
    graph = padded("conv", None, is_float=False, widths=((0, 0), (0, 0), (0, 0), (0, 1)))
    assert fold_pads(graph) is graph


def test_a_padding_that_something_else_reads_too_is_computed_for_that() -> None:
    b = GraphBuilder(2)
    y = pad(b, shape=(1, 5, 4, 3), paddings=WIDTHS)
    graph = b.graph(conv_2d(b, x=y), relu(b, x=y))
    folded = fold_pads(graph)
    assert kinds(folded) == ["PAD", "CONV_2D", "RELU"]
    assert folded.nodes[1].inputs[0] == "input_0"
    assert_same(graph, folded)


def joined() -> Graph:
    """What TFLite makes of a concatenation of unequal scales, read back."""
    b = GraphBuilder(1)
    graph = b.graph(concatenation(b, equal_scales=False))
    return parse_tflite(write_tflite(graph), "m", "m.tflite")


def test_a_concatenation_changes_the_scales_by_itself() -> None:
    graph = joined()
    assert kinds(graph) == ["QUANTIZE", "QUANTIZE", "CONCATENATION"]
    folded = fold_requantizations(graph)
    assert kinds(folded) == ["CONCATENATION"]
    assert_same(graph, folded)


def test_a_change_of_scale_that_is_an_output_too_is_computed_for_that() -> None:
    graph = joined()
    shown = replace(graph, outputs=(*graph.outputs, graph.nodes[0].outputs[0]), output_borders=())
    folded = fold_requantizations(shown)
    assert kinds(folded) == ["QUANTIZE", "CONCATENATION"]
    assert_same(shown, folded)


def test_without_one_of_these_the_graph_is_the_same_object() -> None:
    b = GraphBuilder(1)
    graph = b.graph(concatenation(b))
    assert fold_requantizations(graph) is graph
    assert fold_pads(graph) is graph
