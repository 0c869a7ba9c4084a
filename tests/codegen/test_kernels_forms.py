"""Kernels with stored weights equal the engine: sanitized on this machine, and on emulated cores."""

from __future__ import annotations

from pathlib import Path

import pytest
from form_cases import FORMS, KINDS, SIGNED, form_case
from native import assert_equals_engine, needs_compiler


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
