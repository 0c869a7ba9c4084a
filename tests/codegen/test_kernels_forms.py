"""Kernels with stored weights equal the engine: sanitized on this machine, and on emulated cores."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from form_cases import FORMS, KINDS, SIGNED, form_case, formed
from graphs import single_op_graph
from native import assert_equals_engine, needs_compiler, telling_inputs
from sweeps import by_turns, seeds

from tinydeploy.backends.c import project
from tinydeploy.backends.c.project import ExportOptions, make_project
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.op import Site
from tinydeploy.ir.show import form_text
from tinydeploy.measure import Job
from tinydeploy.plan import forms_dsp, forms_trio
from tinydeploy.plan.dsp import DspKernel
from tinydeploy.plan.forms import Linear
from tinydeploy.plan.select import Goal
from tinydeploy.targets import load_target
from tinydeploy.verification import verify

needs_emulator = pytest.mark.skipif(
    importlib.util.find_spec("unicorn") is None
    or (shutil.which("arm-none-eabi-gcc") is None and importlib.util.find_spec("ziglang") is None),
    reason="the extra 'emulate' or a compiler for Arm is not installed",
)


@needs_compiler
@pytest.mark.parametrize("seed", seeds(1, 12))
@pytest.mark.parametrize(("name", "kind"), by_turns(FORMS, KINDS, every=2))
def test_portable_kernels(name: str, kind: str, seed: int, tmp_path: Path) -> None:
    assert_equals_engine(form_case(name, kind, seed), tmp_path)


@needs_compiler
@pytest.mark.parametrize("seed", seeds(1, 12))
@pytest.mark.parametrize(("name", "kind"), by_turns(SIGNED, KINDS))
def test_portable_kernels_over_signs(name: str, kind: str, seed: int, tmp_path: Path) -> None:
    assert_equals_engine(form_case(name, kind, seed, signs=True), tmp_path)


@pytest.fixture
def dsp_as_plain_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host builds take the kernels for the DSP extension that unpack, whatever RAM they cost."""
    options = ExportOptions("net", "host", "balanced", "0" * 64, dsp=True)
    monkeypatch.setitem(project.GOALS, "balanced", Goal(spare_bytes=1 << 20, cycles_a_byte=math.inf))
    monkeypatch.setattr("native.project_of", lambda graph, n="net": make_project(graph, options))


@needs_compiler
@pytest.mark.usefixtures("dsp_as_plain_c")
@pytest.mark.parametrize("seed", seeds(1, 12))
@pytest.mark.parametrize(("name", "kind"), by_turns(FORMS, KINDS, every=8, first=1))
def test_dsp_kernels_as_plain_c(name: str, kind: str, seed: int, tmp_path: Path) -> None:
    assert_equals_engine(form_case(name, kind, 100 + seed), tmp_path)


def unpacking_trios(op: Linear, site: Site) -> list[DspKernel]:
    """Those that unpack, whatever flash their thresholds cost and the whole weights would save cycles."""
    found = forms_trio.formed_trios(op, site)
    return [replace(k, more_flash=0) for k in found if k.name.startswith(forms_trio.UNPACK)]


@pytest.fixture
def trio_as_plain_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with the kernels of cores without a long multiplication."""
    options = ExportOptions("net", "host", "balanced", "0" * 64, narrow=True)
    monkeypatch.setitem(project.GOALS, "balanced", Goal(spare_bytes=1 << 20))
    monkeypatch.setattr("tinydeploy.plan.kernels.formed_trios", unpacking_trios)
    monkeypatch.setattr("native.project_of", lambda graph, n="net": make_project(graph, options))


@needs_compiler
@pytest.mark.usefixtures("trio_as_plain_c")
@pytest.mark.parametrize("seed", seeds(0, 6))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMS)
def test_narrow_kernels_as_plain_c(name: str, kind: str, seed: int, tmp_path: Path) -> None:
    assert_equals_engine(form_case(name, kind, 600 + seed), tmp_path)


@needs_compiler
@pytest.mark.usefixtures("dsp_as_plain_c")
@pytest.mark.parametrize("seed", seeds(0, 6))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SIGNED)
def test_dsp_kernels_over_signs_as_plain_c(name: str, kind: str, seed: int, tmp_path: Path) -> None:
    assert_equals_engine(form_case(name, kind, 200 + seed, signs=True), tmp_path)


def proved(graph: Graph, core: str, compiler: str | None = None) -> None:
    """0 mismatches on an emulated core, integers only, any alignment, and the whole arena and no more."""
    described = load_target(core).core
    options = ExportOptions("net", core, "balanced", "0" * 64, dsp=described.dsp, narrow=described.narrow)
    result = verify(Job(graph, options, described, compiler), core, telling_inputs(graph, samples=1), None)
    assert result.ok, (result.mismatches, result.measurement.faults, result.measurement.float_symbols)
    assert result.measurement.arena_touched == result.measurement.project.plan.arena_bytes


def on_cores() -> list[object]:
    """Every form and op on a core; the fast suite takes one of every fourth form."""
    cases = []
    for i, name in enumerate(FORMS):
        for j, kind in enumerate(KINDS):
            core = ("cortex-m4", "cortex-m0plus")[(i + j) % 2]
            slow = [pytest.mark.slow] * (i % 4 > 0 or j != (i // 4) % 3)
            cases.append(pytest.param(name, kind, core, marks=slow))
            other = "cortex-m33" if core == "cortex-m0plus" else "cortex-m0plus"
            cases.append(pytest.param(name, kind, other, marks=pytest.mark.slow))
    return cases


@pytest.fixture
def any_ram(monkeypatch: pytest.MonkeyPatch) -> None:
    """What RAM unpacked weights cost must not hide their kernels."""
    monkeypatch.setattr("tinydeploy.plan.kernels.formed_trios", unpacking_trios)
    monkeypatch.setitem(project.GOALS, "balanced", Goal(spare_bytes=1 << 20, cycles_a_byte=math.inf))


@needs_emulator
@pytest.mark.usefixtures("any_ram")
@pytest.mark.parametrize(("name", "kind", "core"), on_cores())
def test_on_a_core(name: str, kind: str, core: str) -> None:
    proved(form_case(name, kind, 300), core)


@needs_emulator
@pytest.mark.parametrize(("core", "name"), by_turns(["cortex-m4", "cortex-m0plus"], SIGNED))
def test_over_signs_on_a_core(name: str, core: str) -> None:
    proved(form_case(name, "CONV_2D", 400, signs=True), core)


@needs_emulator
@pytest.mark.slow
@pytest.mark.usefixtures("any_ram")
@pytest.mark.parametrize("name", ["packed 4", "packed 7", "codebook 3", "ternary", "three bases"])
@pytest.mark.parametrize("kind", KINDS)
def test_with_the_other_compiler(name: str, kind: str) -> None:
    proved(form_case(name, kind, 500), "cortex-m4", "zig")


@needs_emulator
@pytest.mark.slow
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m0plus"])
def test_signs_with_the_other_compiler(core: str) -> None:
    proved(form_case("binary", "CONV_2D", 501, signs=True), core, "zig")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["packed 3", "packed 4", "codebook 4", "plain binary", "plain ternary"])
def test_the_flash_of_a_layer_shrinks_with_its_bits(name: str, kind: str) -> None:
    """Fields take their bits, and channels 9 bytes and a byte or so, on cores with and without DSP."""
    shape = {"shape": (1, 64)} if kind == "FULLY_CONNECTED" else {"shape": (1, 9, 9, 32)}
    wide = {} if kind == "DEPTHWISE_CONV_2D" else {"outputs": 64}
    graph = formed(single_op_graph(kind, 3, per_channel=True, **shape, **wide), name, 3)
    weights = graph.value(str(graph.nodes[0].inputs[1]))
    for dsp in (False, True):
        made = make_project(graph, ExportOptions("net", "net", "balanced", "0" * 64, dsp=dsp))
        (layer,) = made.model.layers
        outputs = graph.value(graph.outputs[0]).shape[-1]
        assert layer.choice.name in ("portable", *forms_dsp.NAMES)
        (described,) = json.loads(made.files["manifest.json"])["layers"]
        assert described["kernel"] == layer.code.kernel
        assert described["form"] == form_text(weights.form)
        assert sum(c.bytes for c in layer.code.constants) <= weights.bytes * 10 / 9 + 12 * outputs
