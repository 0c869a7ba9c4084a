"""A PAD with real zeros becomes the padding of the convolution behind it, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder, conv_2d, pad, random_inputs, single_op_graph

from tinydeploy.backends.tflite import write_tflite
from tinydeploy.engine import run
from tinydeploy.ir.graph import Graph
from tinydeploy.model import load_model
from tinydeploy.ops import Padding
from tinydeploy.passes.pads import fold_pads


def kinds(graph: Graph) -> list[str]:
    return [node.op.kind for node in graph.nodes]


@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D"])
@pytest.mark.parametrize("is_float", [True, False])
def test_a_padding_that_tflite_lacks_comes_back_from_its_file(
    tmp_path: Path, kind: str, is_float: bool
) -> None:
    graph = single_op_graph(kind, is_float=is_float, padding=Padding(2, 0, 1, 1))
    path = tmp_path / "m.tflite"
    path.write_bytes(write_tflite(graph))
    back = load_model(path).graph
    assert kinds(back) == [kind]
    assert back.nodes[0].op == graph.nodes[0].op
    x = random_inputs(graph, 3)
    assert np.array_equal(run(back, x)[0], run(graph, x)[0])


def padded(value: int | None, paddings: tuple[tuple[int, int], ...]) -> Graph:
    b = GraphBuilder(3)
    x = b.input((1, 5, 4, 3))
    y = pad(b, x=x, paddings=paddings, value=value)
    return b.graph(conv_2d(b, x=y, padding="valid"))


def zero_point() -> int:
    graph = padded(None, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return graph.value(graph.nodes[0].outputs[0]).quant.zero_point


@pytest.mark.parametrize("value", [None, "zero point"])
def test_the_zero_point_is_the_real_zero(value: str | None) -> None:
    fill = None if value is None else zero_point()
    graph = padded(fill, ((0, 0), (1, 0), (2, 1), (0, 0)))
    folded = fold_pads(graph)
    assert kinds(folded) == ["CONV_2D"]
    x = random_inputs(graph, 3)
    assert np.array_equal(run(folded, x)[0], run(graph, x)[0])


def test_other_fills_and_padded_channels_stay() -> None:
    assert zero_point() != 0
    for graph in (
        padded(0, ((0, 0), (1, 0), (2, 1), (0, 0))),
        padded(None, ((0, 0), (1, 0), (2, 1), (0, 1))),
    ):
        assert fold_pads(graph) is graph
