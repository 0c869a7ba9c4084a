"""The kernels for the DSP extension equal the engine: as plain C, sanitized, and on cores that have it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dsp_cases import FAMILIES, choices_of, dsp_case
from graphs import every_op_graph, single_op_graph
from kernel_cases import KERNELS
from native import assert_equals_engine, needs_compiler, telling_inputs
from shared import MODELS, model_path, needs_data
from sweeps import by_turns, seeds, thinned
from wiring_cases import random_network

from tinydeploy import api
from tinydeploy.backends.c import project
from tinydeploy.backends.c.project import ExportOptions, make_project
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Quantization, constant
from tinydeploy.measure import Job
from tinydeploy.plan import dsp
from tinydeploy.plan.select import Goal
from tinydeploy.targets import load_target
from tinydeploy.verification import verify

_OPS = ("CONV_2D", "DEPTHWISE", "FULLY_CONNECTED", "ADD", "AVERAGE_POOL", "MAX_POOL", "MEAN")
CASES = [name for name in KERNELS if name.startswith(_OPS)]
ARENA_GROWTH = 512


def options(target: str) -> ExportOptions:
    return ExportOptions("net", target, "latency", "0" * 64, dsp=True)


@pytest.fixture(autouse=True)
def fast_kernels_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What RAM the fast kernels cost must not hide them from these tests."""
    monkeypatch.setitem(project.GOALS, "latency", Goal(spare_bytes=1 << 20))


@pytest.fixture
def as_the_family_says(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Winograd would hide the direct kernels; it is tried with whole rows of tiles and with four tiles."""
    family, seed = (request.node.callspec.params.get(name, 0) for name in ("family", "seed"))
    if family != "winograd":
        monkeypatch.setitem(project.GOALS, "latency", Goal(spare_bytes=1 << 20, cycles_a_byte=math.inf))
    elif seed % 2:
        monkeypatch.setattr("tinydeploy.plan.dsp.row_tiles", lambda site: 4)


@pytest.fixture
def plain_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host builds take these kernels, too."""
    monkeypatch.setattr("native.project_of", lambda graph, n="net": make_project(graph, options("host")))


@needs_compiler
@pytest.mark.usefixtures("plain_c")
@pytest.mark.parametrize("name", thinned(CASES, 48))
def test_as_plain_c_under_sanitizers(name: str, tmp_path: Path) -> None:
    assert_equals_engine(KERNELS[name](), tmp_path)


@needs_compiler
@pytest.mark.usefixtures("plain_c", "as_the_family_says")
@pytest.mark.parametrize("seed", seeds(1, 40))
@pytest.mark.parametrize("family", thinned(FAMILIES, 2))
def test_a_sweep_as_plain_c(family: str, seed: int, tmp_path: Path) -> None:
    assert_equals_engine(dsp_case(family, seed), tmp_path)


@needs_compiler
@pytest.mark.usefixtures("plain_c")
@pytest.mark.parametrize("level", thinned(["-Os", "-O0", "-O2", "-O3"], 4))
def test_any_optimisation_level(level: str, tmp_path: Path) -> None:
    assert_equals_engine(every_op_graph(), tmp_path, level)


@needs_compiler
@pytest.mark.slow
@pytest.mark.usefixtures("plain_c")
@pytest.mark.parametrize("seed", range(20))
def test_networks_whose_layers_write_over_their_inputs(seed: int, tmp_path: Path) -> None:
    assert_equals_engine(random_network(seed), tmp_path, "-O0")


def proved(graph: Graph, core: str, compiler: str | None = None) -> None:
    job = Job(graph, options(core), load_target(core).core, compiler)
    result = verify(job, core, telling_inputs(graph, samples=1), None)
    assert result.ok, (result.mismatches, result.measurement.faults)
    m = result.measurement
    assert m.arena_touched == m.project.plan.arena_bytes


@pytest.mark.parametrize(
    ("name", "core"), by_turns(CASES[::5], ["cortex-m4", "cortex-m7", "cortex-m33"], every=6)
)
def test_on_a_core_that_has_the_extension(name: str, core: str) -> None:
    proved(KERNELS[name](), core)


@pytest.mark.usefixtures("as_the_family_says")
@pytest.mark.parametrize("seed", seeds(1, 12))
@pytest.mark.parametrize("family", thinned(FAMILIES, 2, first=1))
def test_a_sweep_on_a_core(family: str, seed: int) -> None:
    proved(dsp_case(family, 1000 + seed), ("cortex-m4", "cortex-m33")[seed % 2])


@pytest.mark.slow
@pytest.mark.usefixtures("as_the_family_says")
@pytest.mark.parametrize("family", FAMILIES)
def test_with_the_other_compiler(family: str) -> None:
    proved(dsp_case(family, 2000), "cortex-m4", "zig")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_whole_networks_on_a_core(seed: int) -> None:
    proved(random_network(seed), "cortex-m4")


def heavy_convolution(channels: int) -> Graph:
    """3x3, one output with every weight 127 and one with signs by turns; the scale just holds the sums."""
    graph = single_op_graph(
        "CONV_2D", 1, shape=(1, 3, 4, channels), kernel=(3, 3), padding="same", outputs=2, bias=False
    )
    x, weights, y = (
        graph.value(n) for n in (graph.inputs[0], graph.nodes[0].inputs[1] or "", graph.outputs[0])
    )
    data = np.full(weights.shape, 127, np.int8)
    data[1, ..., ::2] = -127
    quantization = Quantization((0.01,), (0,))
    scale = x.quant.scale * 0.01 * 9 * channels * 127
    changed = {
        x.name: replace(x, quantization=Quantization((x.quant.scale,), (-128,))),
        weights.name: constant(weights.name, data, quantization),
        y.name: replace(y, quantization=Quantization((scale,), (-128,))),
    }
    return replace(graph, values={**graph.values, **changed})


def takes_winograd(graph: Graph) -> bool:
    return dsp.WINOGRAD in {choice.name for choice in choices_of(graph)}


@needs_compiler
@pytest.mark.usefixtures("plain_c")
def test_winograd_at_the_bound_of_its_sums(tmp_path: Path) -> None:
    """4 * 128 * sum |w| is inside int32 up to 3668 channels of 9 weights of 127."""
    graph = heavy_convolution(3668)
    assert takes_winograd(graph)
    assert_equals_engine(graph, tmp_path)


def test_winograd_is_refused_beyond_that_bound() -> None:
    assert not takes_winograd(heavy_convolution(3672))


@pytest.mark.parametrize(
    "given", [{"strides": (1, 2)}, {"kernel": (3, 2)}, {"groups": 2}, {"dilations": (2, 1)}]
)
def test_winograd_is_for_stride_1_and_3x3_alone(given: dict[str, Any]) -> None:
    plain = {"shape": (1, 16, 16, 16), "kernel": (3, 3), "padding": "same", "outputs": 16}
    assert takes_winograd(single_op_graph("CONV_2D", 1, **plain))
    assert not takes_winograd(single_op_graph("CONV_2D", 1, **{**plain, **given}))


@needs_data
@pytest.mark.parametrize("name", MODELS)
def test_the_arena_grows_by_little(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(project.GOALS, "latency", Goal(spare_bytes=ARENA_GROWTH))
    graph = api.load_model(model_path(name)).graph
    plain = make_project(graph, ExportOptions("net", "cortex-m3", "latency", "")).plan.arena_bytes
    fast = make_project(graph, options("cortex-m4"))
    assert fast.plan.arena_bytes <= plain + ARENA_GROWTH
    assert any("dsp" in layer.choice.name for layer in fast.model.layers)
