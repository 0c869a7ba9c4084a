"""Forms in the passes on channels: planes lose the same channels as their sums, and signs stand in -1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from form_cases import FORMS, formed
from graphs import GraphBuilder, conv_2d, depthwise_conv_2d, single_op_graph

from tinydeploy.engine import run
from tinydeploy.ir.forms import Planes, Signs
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import constant
from tinydeploy.ir.verify import verify
from tinydeploy.passes.dead_channels import remove_dead_channels
from tinydeploy.passes.ranges import channel_ranges


def two_layers(seed: int) -> Graph:
    """A convolution of which one output is never read, and what reads the others."""
    b = GraphBuilder(seed)
    x = b.input((1, 5, 4, 3), b.quantization(zero_point=0))
    y = conv_2d(b, x=x, outputs=6)
    return b.graph(conv_2d(b, x=y, outputs=5, kernel=(1, 1), padding="valid"))


def with_weights(graph: Graph, index: int, name: str, seed: int) -> Graph:
    """The node's weights in a form, with nothing read of input channel 2 of the second layer."""
    node = graph.nodes[index]
    single = replace(graph, nodes=(node,), inputs=(str(node.inputs[0]),), outputs=node.outputs)
    return replace(graph, values={**graph.values, **formed(single, name, seed).values})


@pytest.mark.parametrize("name", [n for n in FORMS if n != "packed 8"])
def test_a_layer_in_any_form_loses_channels_without_a_difference(name: str) -> None:
    graph = with_weights(two_layers(3), 0, name, 3)
    second = graph.value(str(graph.nodes[1].inputs[1]))
    data = second.array.copy()
    data[..., 2] = 0
    graph = replace(
        graph, values={**graph.values, second.name: constant(second.name, data, second.quantization)}
    )
    verify(graph)
    smaller = remove_dead_channels(graph)
    weights = smaller.value(str(smaller.nodes[0].inputs[1]))
    assert weights.shape[0] == 5
    assert type(weights.form) is type(graph.value(str(graph.nodes[0].inputs[1])).form)
    if isinstance(weights.form, Planes):
        assert weights.form.coefficients.shape[1] == 5
    x = np.random.default_rng(0).integers(-128, 128, (4, 1, 5, 4, 3)).astype(np.int8)
    assert np.array_equal(run(graph, (x,))[0], run(smaller, (x,))[0])


def test_around_signs_stands_minus_one() -> None:
    graph = formed(single_op_graph("CONV_2D", 1, shape=(1, 3, 3, 2), outputs=2), "binary", 1, signs=True)
    verify(graph)
    rows = np.random.default_rng(2).choice(np.array([-1, 1], np.int8), (1, 1, 3, 3, 2))
    x, op = graph.value(graph.inputs[0]), graph.nodes[0].op
    assert isinstance(x.form, Signs)
    wider = replace(x, shape=(1, 5, 5, 2))
    valid = replace(op, padding=type(op.padding)())  # type: ignore[attr-defined, call-arg]
    node = replace(graph.nodes[0], op=valid)
    padded = np.pad(rows, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-1)
    unpadded = replace(graph, values={**graph.values, x.name: wider}, nodes=(node,))
    assert np.array_equal(run(graph, (rows,))[0], run(unpadded, (padded,))[0])


@pytest.mark.parametrize("kind", [conv_2d, depthwise_conv_2d])
def test_ranges_of_a_layer_over_signs_hold_every_output(kind: object) -> None:
    op = "CONV_2D" if kind is conv_2d else "DEPTHWISE_CONV_2D"
    graph = formed(single_op_graph(op, 4, shape=(1, 2, 2, 4)), "binary", 5, signs=True)
    signs = (np.indices((2,) * 16).reshape(16, -1).T * 2 - 1).astype(np.int8).reshape(-1, 1, 2, 2, 4)
    y = run(graph, (signs,))[0]
    found = channel_ranges(graph)[graph.outputs[0]]
    assert (y.reshape(-1, y.shape[-1]) >= found.low).all()
    assert (y.reshape(-1, y.shape[-1]) <= found.high).all()
