"""Channels that never change leave the graph, and its outputs stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from graphs import (
    GraphBuilder,
    add,
    concatenation,
    conv_2d,
    depthwise_conv_2d,
    fully_connected,
    mean,
    pad,
    pool,
    relu,
    reshape,
)
from native import telling_inputs
from shared import model_path, needs_data
from wiring_cases import random_network

from tinydeploy import api, ops
from tinydeploy.engine import run
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Array, Value, constant
from tinydeploy.ir.verify import graph_macs
from tinydeploy.ops import Activation, Conv2D, DepthwiseConv2D, FullyConnected
from tinydeploy.passes.dead_channels import remove_dead_channels

LINEAR = (Conv2D, DepthwiseConv2D, FullyConnected)
NAMED = (1, 8, 7, 6)
SEED = 4
"""Of a network in which every channel is alive."""


def linear_nodes(graph: Graph) -> list[Node]:
    return [n for n in graph.nodes if isinstance(n.op, LINEAR)]


def changed(graph: Graph, name: str, change: Callable[[Array], None]) -> Graph:
    """The graph with one of its constants changed in place."""
    value = graph.value(name)
    data = value.array.copy()
    change(data)
    return replace(graph, values={**graph.values, name: constant(name, data, value.quantization)})


def silenced(graph: Graph, node: Node, channels: list[int], bias: int | None = None) -> Graph:
    """The graph in which a layer computes these output channels from its bias alone."""

    def zero(data: Array) -> None:
        data[(..., channels) if isinstance(node.op, DepthwiseConv2D) else channels] = 0

    graph = changed(graph, str(node.inputs[1]), zero)
    if bias is None:
        return graph
    return changed(graph, str(node.inputs[2]), lambda data: data.__setitem__(channels, bias))


def normal(graph: Graph, name: str) -> Array:
    return np.random.default_rng(1).normal(0, 2, (3, *graph.value(name).shape)).astype(np.float32)


def assert_equal_outputs(before: Graph, after: Graph) -> None:
    inputs = tuple(normal(before, name) for name in before.inputs)
    if before.is_integer:
        inputs = telling_inputs(before, samples=3)
    for a, b in zip(run(before, inputs), run(after, inputs), strict=True):
        if a.dtype == np.float32:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        else:
            np.testing.assert_array_equal(a, b)


def random_chain(seed: int) -> Graph:
    """Linear layers with what may stand between them: activations, pools, residual sums, concatenations."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder(seed, is_float=bool(seed % 4 == 3))

    def clamp() -> Activation:
        return (Activation.NONE, Activation.RELU, Activation.RELU6)[int(rng.integers(3))]

    def convolution(x: Value, outputs: int) -> Value:
        size = int(rng.integers(1, 4))
        strides = (1, 1) if x.shape[1] < 4 else tuple(int(v) for v in rng.integers(1, 3, 2))
        padding = "same" if size > min(x.shape[1:3]) else str(rng.choice(["same", "valid"]))
        geometry = {"kernel": (size, size), "strides": strides, "padding": padding}
        return conv_2d(b, x=x, outputs=outputs, activation=clamp(), bias=bool(rng.random() < 0.8), **geometry)

    y = b.input((1, int(rng.integers(5, 9)), int(rng.integers(5, 9)), 3))
    for _ in range(int(rng.integers(2, 6))):
        y = convolution(y, int(rng.integers(3, 9)))
        kind = int(rng.integers(6))
        if kind == 0:
            y = depthwise_conv_2d(
                b, x=y, padding="same", activation=clamp(), multiplier=int(rng.integers(1, 3))
            )
        elif kind == 1:
            y = add(b, inputs=[y, conv_2d(b, x=y, outputs=y.shape[3], padding="same", kernel=(3, 3))])
        elif kind == 2:
            y = concatenation(
                b, inputs=[y, conv_2d(b, x=y, outputs=3, padding="same", kernel=(1, 1))], axis=3
            )
        elif kind == 3:
            op = ops.MaxPool2D if rng.random() < 0.5 else ops.AveragePool2D
            y = pool(b, op, x=y, padding="same", kernel=(2, 2))
        elif kind == 4:
            y = pad(b, x=y)
    y = mean(b, x=y) if rng.random() < 0.5 else reshape(b, x=y, to=(1, int(np.prod(y.shape))))
    return b.graph(fully_connected(b, x=fully_connected(b, x=y, outputs=7)))


def planted(seed: int) -> Graph:
    """A random network, in most of whose layers some channels are computed from the bias alone."""
    rng = np.random.default_rng(seed)
    graph = random_chain(seed) if seed % 5 else random_network(seed)
    is_float = not graph.is_integer
    for node in linear_nodes(graph):
        outputs = graph.value(node.outputs[0]).shape[-1]
        picked = np.flatnonzero(rng.random(outputs) < rng.choice([0.0, 0.4, 0.9])).tolist()
        bias = None
        if len(node.inputs) > 2 and rng.random() < 0.7:
            bias = int(rng.choice([-3, 0, 5]) if is_float else rng.choice([-(2**24), -300, 0, 2000, 2**24]))
        graph = silenced(graph, node, picked, bias)
        if isinstance(node.op, FullyConnected) and rng.random() < 0.5:
            unread = np.flatnonzero(rng.random(graph.value(str(node.inputs[1])).shape[1]) < 0.7)
            graph = changed(graph, str(node.inputs[1]), lambda data, u=unread: data.__setitem__((..., u), 0))
    return graph


@pytest.mark.parametrize("seed", [pytest.param(s, marks=[pytest.mark.slow] * (s >= 40)) for s in range(200)])
def test_random_networks_keep_their_outputs(seed: int) -> None:
    before = planted(seed)
    after = remove_dead_channels(before)
    assert_equal_outputs(before, after)
    assert graph_macs(after) <= graph_macs(before)
    assert remove_dead_channels(after) is after


def test_the_random_networks_lose_channels() -> None:
    smaller = [graph_macs(remove_dead_channels(planted(s))) < graph_macs(planted(s)) for s in range(20)]
    assert sum(smaller) >= 10


def chain(*, is_float: bool = False, last_padding: str = "valid", bias: bool = True) -> Graph:
    """Pointwise, depthwise, pointwise, mean, fully connected."""
    b = GraphBuilder(SEED, is_float=is_float)
    y = conv_2d(b, x=b.input(NAMED), outputs=8, kernel=(1, 1), activation=Activation.RELU)
    y = depthwise_conv_2d(b, x=y, padding="same", activation=Activation.RELU)
    kernel = (1, 1) if last_padding == "valid" else (3, 3)
    y = conv_2d(b, x=y, outputs=5, kernel=kernel, padding=last_padding, bias=bias)
    return b.graph(fully_connected(b, x=mean(b, x=y)))


def widths(graph: Graph) -> list[int]:
    return [graph.value(n.outputs[0]).shape[-1] for n in linear_nodes(graph)]


@pytest.mark.parametrize("is_float", [False, True])
def test_channels_that_are_zero_after_the_activation_go_through_a_padded_layer(is_float: bool) -> None:
    graph = chain(is_float=is_float)
    first = linear_nodes(graph)[0]
    dead = silenced(graph, first, [1, 4, 6], -30000)
    after = remove_dead_channels(dead)
    # The depthwise layer sees the zero point everywhere, so it is constant as well.
    assert widths(after)[:2] == [5, 5]
    assert_equal_outputs(dead, after)


def test_a_constant_that_a_border_cuts_stays() -> None:
    graph = chain(last_padding="same")
    depthwise = linear_nodes(graph)[1]
    dead = silenced(graph, depthwise, [2, 3], 900)
    assert widths(remove_dead_channels(dead)) == widths(dead)
    whole = chain(last_padding="valid")
    assert widths(remove_dead_channels(silenced(whole, linear_nodes(whole)[1], [2, 3], 900)))[1] == 6


@pytest.mark.parametrize("is_float", [False, True])
@pytest.mark.parametrize("bias", [True, False])
def test_a_constant_goes_into_the_next_bias(is_float: bool, bias: bool) -> None:
    graph = chain(is_float=is_float, bias=bias)
    dead = silenced(graph, linear_nodes(graph)[1], [0, 7], 900)
    after = remove_dead_channels(dead)
    assert widths(after)[1] == 6
    assert len(linear_nodes(after)[2].inputs) == 3
    assert_equal_outputs(dead, after)


def test_a_channel_saturated_by_its_bias_is_constant() -> None:
    graph = chain()
    layer = linear_nodes(graph)[2]
    dead = changed(graph, str(layer.inputs[2]), lambda data: data.__setitem__([1, 2], (2**29, -(2**29))))
    after = remove_dead_channels(dead)
    assert widths(after)[2] == 3
    assert_equal_outputs(dead, after)


def test_a_channel_that_nobody_reads_goes_and_so_does_what_only_it_reads() -> None:
    graph = chain()
    last = linear_nodes(graph)[3]
    dead = changed(graph, str(last.inputs[1]), lambda data: data.__setitem__((..., [0, 1, 2]), 0))
    third = linear_nodes(dead)[2]
    # What is left of the third layer does not read channels 0 to 3.
    dead = changed(
        dead, str(third.inputs[1]), lambda data: data.__setitem__((slice(3, 5), ..., [0, 1, 2, 3]), 0)
    )
    after = remove_dead_channels(dead)
    assert widths(after)[:3] == [4, 4, 2]
    assert_equal_outputs(dead, after)


def test_a_layer_keeps_one_channel() -> None:
    graph = chain()
    dead = silenced(graph, linear_nodes(graph)[2], list(range(5)), 40)
    after = remove_dead_channels(dead)
    assert widths(after)[2] == 1
    assert_equal_outputs(dead, after)


def test_outputs_of_the_graph_stay() -> None:
    b = GraphBuilder(3)
    graph = b.graph(conv_2d(b, x=b.input(NAMED), outputs=4))
    assert remove_dead_channels(silenced(graph, graph.nodes[0], [1, 2])) is not None
    assert widths(remove_dead_channels(silenced(graph, graph.nodes[0], [1, 2]))) == [4]


def test_a_flattened_image_and_a_grouped_convolution() -> None:
    b = GraphBuilder(5)
    y = conv_2d(b, x=b.input(NAMED), outputs=6, activation=Activation.RELU)
    y = pool(b, ops.MaxPool2D, x=relu(b, x=conv_2d(b, x=y, outputs=8, groups=2), activation=Activation.RELU6))
    flat = reshape(b, x=y, to=(1, int(np.prod(y.shape))))
    graph = b.graph(fully_connected(b, x=flat))
    first, grouped = linear_nodes(graph)[:2]
    # Channels 1 and 4 stand at the same place of their groups; 2 is alone, so it stays.
    dead = silenced(silenced(graph, first, [1, 2, 4], -(2**24)), grouped, [0, 1], 500)
    after = remove_dead_channels(dead)
    assert widths(after)[0] == 4
    assert_equal_outputs(dead, after)


def test_an_untouched_graph_is_returned_itself() -> None:
    graph = chain()
    assert remove_dead_channels(graph) is graph


@needs_data
def test_visual_wake_words_is_half_dead() -> None:
    graph = api.load_model(model_path("vww")).graph
    live = remove_dead_channels(graph)
    assert graph_macs(graph) == 7_489_664
    assert graph_macs(live) <= 3_750_000
    value: Value = graph.value(graph.inputs[0])
    x = np.random.default_rng(1).integers(-128, 128, (4, *value.shape), np.int8)
    np.testing.assert_array_equal(run(graph, [x])[0], run(live, [x])[0])
