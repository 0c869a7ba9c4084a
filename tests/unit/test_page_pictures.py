"""The pictures of the page: the memory plan over time, and the network with its skipping connections."""

from __future__ import annotations

from itertools import pairwise

import pytest
from graphs import GraphBuilder
from hypothesis import given
from hypothesis import strategies as st

from tinydeploy.backends.c.model import Model
from tinydeploy.backends.c.project import ExportOptions, lower_project
from tinydeploy.ir.graph import Graph
from tinydeploy.ops import Add
from tinydeploy.report.page.graph import ROW, graph_picture
from tinydeploy.report.page.memory import HEIGHT, memory_picture


def graph_of(skips: list[int]) -> Graph:
    """A chain of ADDs; number i adds the result of number skips[i] (modulo i + 1; 0 is the input)."""
    b = GraphBuilder(3)
    values = [b.input((1, 4, 4, 4))]
    for i, skip in enumerate(skips):
        values.append(b.node(Add(), [values[-1], values[skip % (i + 1)]], b.quantization()))
    return b.graph(values[-1])


def model_of(skips: list[int]) -> Model:
    return lower_project(graph_of(skips), ExportOptions("m", "cortex-m4", "latency", "0" * 64))


chains = st.lists(st.integers(0, 20), min_size=1, max_size=14)


@given(chains)
def test_no_two_blocks_of_the_memory_plan_overlap(skips: list[int]) -> None:
    picture = memory_picture(model_of(skips), ("a board",), 100)
    for i, a in enumerate(picture.blocks):
        for b in picture.blocks[:i]:
            apart_in_time = a.left + a.width <= b.left + 1e-9 or b.left + b.width <= a.left + 1e-9
            apart_in_space = a.top + a.height <= b.top + 1e-9 or b.top + b.height <= a.top + 1e-9
            assert apart_in_time or apart_in_space


@given(chains)
def test_every_block_and_step_lies_inside_the_picture(skips: list[int]) -> None:
    model = model_of(skips)
    picture = memory_picture(model, (), 100)
    assert max(b.offset + b.size for b in picture.blocks) == picture.arena_bytes
    for b in picture.blocks:
        assert b.left >= -1e-9
        assert b.left + b.width <= 100 + 1e-9
        assert b.top >= -1e-9
        assert b.top + b.height <= HEIGHT + 1e-9
    assert sum(s.width for s in picture.steps) == pytest.approx(100)
    assert len(picture.steps) == len(model.graph.nodes) + 2
    assert sum(s.peak for s in picture.steps) == 1
    assert picture.peak.live == max(s.live for s in picture.steps) <= picture.arena_bytes


def test_of_a_long_network_the_largest_blocks_and_the_peak_are_kept() -> None:
    picture = memory_picture(model_of([i // 2 for i in range(60)]), (), 10)
    assert len(picture.blocks) == 10
    assert picture.left_out > 0
    assert len(picture.steps) <= 10
    assert picture.peak.live == max(s.live for s in picture.steps)


@given(chains)
def test_each_connection_of_the_network_has_a_path_and_no_two_share_a_lane(skips: list[int]) -> None:
    model = model_of(skips)
    picture = graph_picture(model, 100)
    wanted = {(i + 1, i) for i in range(len(skips))} | {(i + 1, s % (i + 1)) for i, s in enumerate(skips)}
    wanted |= {(len(skips) + 1, len(skips))}
    assert len(picture.paths) == len(wanted)
    assert [r.y for r in picture.rows] == [ROW * (i + 0.5) for i in range(len(picture.rows))]
    lanes: dict[str, list[tuple[float, float]]] = {}
    for path in picture.paths:
        if "Q" in path:
            x = path.split("Q")[1].split(" ")[0]
            top = float(path.split("Q")[1].split(" ")[1])
            bottom = float(path.split("Q")[2].split(" ")[1])
            lanes.setdefault(x, []).append((top, bottom))
    for stretches in lanes.values():
        assert all(a[1] <= b[0] for a, b in pairwise(sorted(stretches)))


def test_a_long_network_is_cut_and_says_so() -> None:
    picture = graph_picture(model_of([0] * 40), 10)
    assert len(picture.rows) == 11
    assert picture.left_out == 30
