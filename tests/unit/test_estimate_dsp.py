"""What the kernels for the DSP extension do, counted by hand, and what their constants miss in a cache."""

from __future__ import annotations

from dataclasses import replace

import pytest
from graphs import GraphBuilder, conv_2d, depthwise_conv_2d, fully_connected

from tinydeploy.backends.c.model import Layer
from tinydeploy.backends.c.project import ExportOptions, lower_project
from tinydeploy.estimate.dsp_features import constant_lines, dsp_counts
from tinydeploy.estimate.features import layer_features, read_features, shape_members
from tinydeploy.ir.graph import Graph
from tinydeploy.ops import Activation
from tinydeploy.targets import FlashTiming

FLASH = FlashTiming(
    wait_states=5, line_bytes=8, icache_bytes=1024, dcache_bytes=256, prefetch=False, prefetch_enabled=False
)


def lowered(graph: Graph) -> tuple[Graph, Layer]:
    model = lower_project(graph, ExportOptions("model", "cortex-m4", "latency", "", True))
    return model.graph, model.layers[0]


def counted(graph: Graph, kernel: str) -> dict[str, float]:
    lowered_graph, layer = lowered(graph)
    assert layer.code.kernel == kernel
    return dict(layer_features(lowered_graph, layer))


def test_winograd_by_hand() -> None:
    b = GraphBuilder(0)
    y = conv_2d(
        b, shape=(1, 8, 12, 16), outputs=16, kernel=(3, 3), padding="same", activation=Activation.RELU
    )
    found = counted(b.graph(y), "td_dsp_winograd")
    # 4 rows of 6 tiles: of each row's tiles 4 lie inside, of the rows 2; a tile is transformed by words of 4.
    assert found["tiles"] == 24
    assert found["transformed"] == 2 * 4 * 4
    assert found["transformed_border"] == (24 - 8) * 4
    # 16 products of 8 channel pairs, for 2 groups of up to four tiles in each of 4 rows; 8 words in one turn.
    assert found["dots"] == 16 * 8 * 2 * 4
    assert found["words"] == 8 * found["dots"]
    assert found["turns"] == found["dots"]
    assert found["stores"] == 24 * 16
    assert found["outputs"] == 8 * 12 * 16


def test_a_convolution_with_a_border_by_hand() -> None:
    b = GraphBuilder(0)
    y = conv_2d(b, shape=(1, 6, 6, 8), outputs=8, kernel=(3, 3), padding="same", strides=(2, 2))
    found = counted(b.graph(y), "td_dsp_conv_2d")
    # 9 windows, padded at the end only: rows of the image 3, 3, 2, columns likewise.
    assert found["windows"] == 9
    assert found["kernel_rows"] == 9 * 3
    assert found["runs"] == 8 * 2
    assert found["places"] == 8 * 3
    # A run has 24 values: one chunk of sixteen and two words; a place inside has two words.
    assert found["sixteens"] == 16
    assert found["widened"] == 16 * 2 + 8 * 2 * 2
    assert found["filled"] == 3 * 24 / 2 + 8 * 8 / 2
    # Two blocks of four windows and one alone, for 4 pairs of channels.
    assert (found["dots_4"], found["dots_1"]) == (8, 4)


def test_rows_by_hand() -> None:
    b = GraphBuilder(0)
    found = counted(b.graph(fully_connected(b, shape=(6, 64), outputs=10)), "td_dsp_rows")
    assert (found["dots_4"], found["dots_1"]) == (5, 2 * 5)
    assert (found["words_4"], found["words_1"]) == (5 * 32, 2 * 5 * 32)
    assert found["turns_4"] == 5 * 32 / 8
    assert found["widened_4"] == 16
    assert found["outputs"] == 60


def test_few_rows_by_hand() -> None:
    b = GraphBuilder(0)
    found = counted(b.graph(fully_connected(b, shape=(1, 66), outputs=12)), "td_dsp_few_rows_by_four")
    # Three times two pairs; 16 words of inputs two at a time, and a rest of two.
    assert found["dots"] == 3
    assert found["words"] == 3 * 16
    assert found["turns"] == 3 * 8
    assert found["rests"] == 3


def test_depthwise_planes_by_hand() -> None:
    b = GraphBuilder(0)
    y = depthwise_conv_2d(b, shape=(1, 10, 9, 8), kernel=(3, 3), padding="same")
    found = counted(b.graph(y), "td_dsp_depthwise")
    assert found["lines"] == 8 * 10
    # Nine columns are a run of four and one of five.
    assert found["fours"] == 80
    assert found["last"] == 80 * 5
    assert found["planes"] == 8 * found["fillings"] / 2
    assert found["sorted_rows"] >= 2 * 10
    assert found["outputs"] == 8 * 90


def test_constants_that_fit_the_cache_are_missed_once() -> None:
    b = GraphBuilder(0)
    _, layer = lowered(b.graph(fully_connected(b, shape=(8, 16), outputs=4)))
    (stream,) = layer.code.constants
    shape = shape_members(layer)
    assert stream.bytes <= FLASH.dcache_bytes
    assert constant_lines(layer.code.kernel, shape, FLASH) == stream.bytes / 8
    none = replace(FLASH, dcache_bytes=0)
    # Two blocks of four rows read all of it.
    assert constant_lines(layer.code.kernel, shape, none) == 2 * stream.bytes / 8


def test_reading_adds_lines_to_the_features() -> None:
    b = GraphBuilder(0)
    graph, layer = lowered(b.graph(fully_connected(b, shape=(8, 64), outputs=16)))
    features = layer_features(graph, layer)
    assert "lines" not in features
    (stream,) = layer.code.constants
    assert read_features(features, layer, FLASH)["lines"] == 2 * stream.bytes / 8


@pytest.mark.parametrize("kernel", ["td_conv_2d", "td_softmax"])
def test_other_kernels_have_no_counts(kernel: str) -> None:
    assert dsp_counts(kernel, {}) is None
    assert constant_lines(kernel, {}, FLASH) == 0
