"""Kernels with stored weights equal the engine: sanitized on this machine, and on emulated cores."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from form_cases import FORMS, KINDS, SIGNED, form_case
from native import assert_equals_engine, needs_compiler

from tinydeploy.backends.c import project
from tinydeploy.backends.c.project import ExportOptions, make_project
from tinydeploy.plan.select import Goal


def seeds(fast: int, all_of_them: int) -> list[object]:
    return [pytest.param(s, marks=[pytest.mark.slow] * (s >= fast)) for s in range(all_of_them)]


@needs_compiler
@pytest.mark.parametrize("seed", seeds(1, 12))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMS)
def test_portable_kernels(name: str, kind: str, seed: int, tmp_path: Path) -> None:
    assert_equals_engine(form_case(name, kind, seed), tmp_path)


@needs_compiler
@pytest.mark.parametrize("seed", seeds(1, 12))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SIGNED)
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
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMS)
def test_dsp_kernels_as_plain_c(name: str, kind: str, seed: int, tmp_path: Path) -> None:
    assert_equals_engine(form_case(name, kind, 100 + seed), tmp_path)
