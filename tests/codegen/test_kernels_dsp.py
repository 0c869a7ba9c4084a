"""The kernels for the DSP extension equal the engine: as plain C, sanitized, and on cores that have it."""

from __future__ import annotations

from pathlib import Path

import pytest
from dsp_cases import FAMILIES, dsp_case
from graphs import every_op_graph
from kernel_cases import KERNELS
from native import assert_equals_engine, needs_compiler, telling_inputs
from shared import MODELS, model_path, needs_data
from wiring_cases import random_network

from tinydeploy import api
from tinydeploy.backends.c import project
from tinydeploy.backends.c.project import ExportOptions, make_project
from tinydeploy.ir.graph import Graph
from tinydeploy.measure import Job
from tinydeploy.targets import load_target
from tinydeploy.verification import verify

CASES = [name for name in KERNELS if name.startswith(("CONV_2D", "DEPTHWISE", "FULLY_CONNECTED", "ADD"))]
ARENA_GROWTH = 512


def options(target: str) -> ExportOptions:
    return ExportOptions("net", target, "latency", "0" * 64, dsp=True)


@pytest.fixture(autouse=True)
def fast_kernels_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What RAM the fast kernels cost must not hide them from these tests."""
    monkeypatch.setitem(project.SPARE_BYTES, "latency", 1 << 20)


def thinned(names: list[str], every: int) -> list[object]:
    slow = pytest.mark.slow
    return [pytest.param(n, marks=[slow] if i % every else []) for i, n in enumerate(names)]


def seeds(fast: int, all_of_them: int) -> list[object]:
    return [pytest.param(s, marks=[pytest.mark.slow] * (s >= fast)) for s in range(all_of_them)]


@pytest.fixture
def plain_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host builds take these kernels, too."""
    monkeypatch.setattr("native.project_of", lambda graph, n="net": make_project(graph, options("host")))


@needs_compiler
@pytest.mark.usefixtures("plain_c")
@pytest.mark.parametrize("name", thinned(CASES, 4))
def test_as_plain_c_under_sanitizers(name: str, tmp_path: Path) -> None:
    assert_equals_engine(KERNELS[name](), tmp_path)


@needs_compiler
@pytest.mark.usefixtures("plain_c")
@pytest.mark.parametrize("seed", seeds(6, 40))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_sweep_as_plain_c(family: str, seed: int, tmp_path: Path) -> None:
    assert_equals_engine(dsp_case(family, seed), tmp_path)


@needs_compiler
@pytest.mark.usefixtures("plain_c")
@pytest.mark.parametrize("level", ["-O0", "-O2", "-Os", "-O3"])
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


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7", "cortex-m33"])
@pytest.mark.parametrize("name", thinned(CASES[::5], 6))
def test_on_a_core_that_has_the_extension(name: str, core: str) -> None:
    proved(KERNELS[name](), core)


@pytest.mark.parametrize("seed", seeds(2, 12))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_sweep_on_a_core(family: str, seed: int) -> None:
    proved(dsp_case(family, 1000 + seed), ("cortex-m4", "cortex-m33")[seed % 2])


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_with_the_other_compiler(family: str) -> None:
    proved(dsp_case(family, 2000), "cortex-m4", "zig")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_whole_networks_on_a_core(seed: int) -> None:
    proved(random_network(seed), "cortex-m4")


@needs_data
@pytest.mark.parametrize("name", MODELS)
def test_the_arena_grows_by_little(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(project.SPARE_BYTES, "latency", ARENA_GROWTH)
    graph = api.load_model(model_path(name)).graph
    plain = make_project(graph, ExportOptions("net", "cortex-m3", "latency", "")).plan.arena_bytes
    fast = make_project(graph, options("cortex-m4"))
    assert fast.plan.arena_bytes <= plain + ARENA_GROWTH
    assert any("dsp" in layer.choice.name for layer in fast.model.layers)
