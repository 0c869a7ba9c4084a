"""AdaRound: weights move to a neighbour and no further, outputs come nearer, and a seed gives the same."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import GraphBuilder, conv_2d, depthwise_conv_2d, fully_connected, mean, random_inputs

from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.ops import Activation
from tinydeploy.quantize import layer_errors, quantize
from tinydeploy.quantize.rules import rule_of

pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")

from tinydeploy.repair import AdaRoundOptions, adaround

QUICK = AdaRoundOptions(iterations=150, batch_size=16)


def network(seed: int) -> Graph:
    b = GraphBuilder(seed, is_float=True)
    x = conv_2d(b, shape=(1, 6, 6, 3), outputs=8, activation=Activation.RELU)
    x = depthwise_conv_2d(b, x=x, activation=Activation.RELU6)
    return b.graph(fully_connected(b, x=mean(b, x=x), outputs=5))


@pytest.fixture(scope="module")
def case() -> tuple[Graph, Graph, Graph, list[Array], list[tuple[str, float, float]]]:
    graph = network(0)
    x = random_inputs(graph, 48)
    plain = quantize(graph, x)
    told: list[tuple[str, float, float]] = []
    learned = adaround(graph, plain, x, QUICK, lambda *row: told.append(row))
    return graph, plain, learned, x, told


def test_no_weight_is_more_than_a_step_from_its_real_value(case) -> None:  # type: ignore[no-untyped-def]
    graph, plain, learned, _, _ = case
    moved = 0
    for node in graph.nodes:
        axis = rule_of(graph, node).weights_axis
        if axis is None:
            continue
        name = str(node.inputs[1])
        value = learned.value(name)
        scales = np.array(value.quant.scales)
        exact = np.moveaxis(graph.value(name).array.astype(np.float64), axis, -1) / scales
        assert np.abs(np.moveaxis(value.array, axis, -1) - exact).max() < 1.0
        assert value.quantization == plain.value(name).quantization
        assert np.abs(value.array.astype(int)).max() <= 127
        moved += int((value.array != plain.value(name).array).sum())
    assert moved > 0


def test_no_layer_gets_worse_on_its_samples(case) -> None:  # type: ignore[no-untyped-def]
    *_, told = case
    assert len(told) == 3
    assert all(nearest == 1.0 and learned <= 1.0 for _, nearest, learned in told)
    assert min(learned for _, _, learned in told) < 0.9


def test_the_outputs_come_nearer_to_the_float_graph(case) -> None:  # type: ignore[no-untyped-def]
    graph, plain, learned, x, _ = case
    before, after = (layer_errors(graph, g, x)[-1].sqnr_db for g in (plain, learned))
    assert after > before


def test_only_weights_change(case) -> None:  # type: ignore[no-untyped-def]
    _, plain, learned, _, _ = case
    assert plain.nodes == learned.nodes
    for value in plain.values.values():
        assert value == learned.value(value.name)
        if value.data is not None and value.dtype.value == "int32":
            assert np.array_equal(value.data, learned.value(value.name).array)


def test_the_same_seed_gives_the_same_weights_and_another_other_ones(case) -> None:  # type: ignore[no-untyped-def]
    graph, plain, learned, x, _ = case
    name = str(graph.nodes[0].inputs[1])
    again = adaround(graph, plain, x, QUICK).value(name).array
    assert np.array_equal(again, learned.value(name).array)
