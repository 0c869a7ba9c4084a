"""Which kernel a layer gets for each --optimize, and what the manifest says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from graphs import GraphBuilder, conv_2d, depthwise_conv_2d
from shared import model_path, needs_data

from tinydeploy import api
from tinydeploy.backends.c.project import ExportOptions, make_project
from tinydeploy.ir.graph import Graph
from tinydeploy.plan import dsp, plan_memory, trio
from tinydeploy.plan.kernels import PORTABLE
from tinydeploy.plan.select import GOALS, Goal, select_kernels


def two_convolutions(channels: int, size: int = 16) -> Graph:
    b = GraphBuilder(1)
    y = conv_2d(b, x=b.input((1, size, size, channels)), outputs=channels, kernel=(3, 3), padding="same")
    return b.graph(conv_2d(b, x=y, outputs=channels, kernel=(3, 3), padding="same"))


def names(graph: Graph, goal: Goal, *, has_dsp: bool = True, narrow: bool = False) -> list[str]:
    chosen = select_kernels(graph, has_dsp=has_dsp, goal=goal, narrow=narrow)
    return [chosen[n.name].name for n in graph.nodes]


def test_latency_takes_the_fastest() -> None:
    assert names(two_convolutions(16), Goal(spare_bytes=1 << 20)) == [dsp.WINOGRAD] * 2


def test_flash_that_saves_too_few_cycles_is_not_spent() -> None:
    narrow, wide = two_convolutions(16, 32), two_convolutions(40, 4)
    generous = Goal(spare_bytes=1 << 20, cycles_a_byte=GOALS["balanced"].cycles_a_byte)
    assert names(narrow, generous) == [dsp.WINOGRAD] * 2
    assert names(wide, generous) == [dsp.CONVOLUTION] * 2


def test_without_the_extension_or_for_flash_kernels_are_portable() -> None:
    graph = two_convolutions(16)
    assert names(graph, GOALS["latency"], has_dsp=False) == [PORTABLE] * 2
    assert names(graph, GOALS["flash"]) == [PORTABLE] * 2


def test_a_narrow_core_has_kernels_of_its_own() -> None:
    graph = two_convolutions(16)
    for goal in ("latency", "balanced"):
        assert names(graph, GOALS[goal], has_dsp=False, narrow=True) == [trio.CONVOLUTION] * 2
    assert names(graph, GOALS["flash"], has_dsp=False, narrow=True) == [PORTABLE] * 2


def test_small_layers_of_narrow_cores_spend_no_flash_where_balanced() -> None:
    graph = two_convolutions(3, 2)
    assert names(graph, GOALS["latency"], has_dsp=False, narrow=True) == [trio.CONVOLUTION] * 2
    assert names(graph, GOALS["balanced"], has_dsp=False, narrow=True) == [PORTABLE] * 2


@pytest.mark.parametrize("channels", [8, 16, 40])
def test_the_arena_keeps_the_goal(channels: int) -> None:
    graph = two_convolutions(channels)
    portable = plan_memory(graph).arena_bytes

    def arena(goal: Goal) -> int:
        return plan_memory(graph, select_kernels(graph, has_dsp=True, goal=goal)).arena_bytes

    assert arena(GOALS["latency"]) <= portable + 4096
    assert arena(GOALS["ram"]) <= arena(GOALS["latency"])


def test_ram_takes_lower_bands_over_the_input() -> None:
    b = GraphBuilder(2)
    graph = b.graph(depthwise_conv_2d(b, x=b.input((1, 48, 48, 8)), padding="same"))
    (fast,) = select_kernels(graph, has_dsp=True, goal=Goal(spare_bytes=1 << 20)).values()
    (small,) = select_kernels(graph, has_dsp=True, goal=GOALS["ram"]).values()
    assert (fast.name, small.name) == (dsp.DEPTHWISE, dsp.DEPTHWISE_CARRIED)
    assert small.block < fast.block
    assert "for want of memory" in small.why


def test_the_manifest_says_what_was_chosen_and_why() -> None:
    project = make_project(two_convolutions(16), ExportOptions("net", "cortex-m4", "latency", "", dsp=True))
    manifest = json.loads(project.files["manifest.json"])
    assert manifest["kernels_chosen_for"] == "latency"
    for layer in manifest["layers"]:
        assert layer["choice"] in layer["why"] or "not" in layer["why"]
        assert layer["cycles_estimated"] > 0


@needs_data
@pytest.mark.slow
def test_a_limit_chooses_smaller_kernels(tmp_path: Path) -> None:
    model = api.load_model(model_path("ic"))
    export = api.export_c(model, "cortex-m4", tmp_path, name="ic", max_ram=37_000)
    assert export.measurement is not None
    assert (export.measurement.ram_bytes or 0) <= 37_000
    assert json.loads((tmp_path / "manifest.json").read_text())["kernels_chosen_for"] == "ram"
