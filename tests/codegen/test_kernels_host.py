"""The generated C equals the integer engine on this machine, under sanitizers and without a warning."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from kernel_cases import KERNELS
from native import assert_equals_engine, needs_compiler
from random_cases import KINDS, random_case
from sweeps import seeds, thinned
from wiring_cases import WIRING, random_network

pytestmark = needs_compiler

FAST_EVERY = 16
"""The fast suite takes one in so many of the kernels' cases; neighbours differ in one number."""

ALWAYS = (
    "stride 2x3",
    "padding at the top left",
    "three images, valid",
    "dilation 1x2",
    "uneven padding",
    "alternating",
    "every axis",
)
"""What the fast suite takes of every op that has it: nothing in it is symmetric."""


def telling(cases: Iterable[str]) -> list[Any]:
    return [
        pytest.param(
            case, marks=[pytest.mark.slow] * (i % FAST_EVERY > 0 and not any(a in case for a in ALWAYS))
        )
        for i, case in enumerate(cases)
    ]


@pytest.mark.parametrize("name", telling(KERNELS))
def test_kernel(name: str, tmp_path: Path) -> None:
    assert_equals_engine(KERNELS[name](), tmp_path)


@pytest.mark.parametrize("name", thinned(WIRING, 8))
def test_wiring(name: str, tmp_path: Path) -> None:
    assert_equals_engine(WIRING[name](), tmp_path)


@pytest.mark.parametrize("level", thinned(["-O0", "-Os", "-O2", "-O3"], 2))
def test_any_optimisation_level(level: str, tmp_path: Path) -> None:
    assert_equals_engine(KERNELS["every op"](), tmp_path, level)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", KINDS)
def test_random_parameters(kind: str, seed: int, tmp_path: Path) -> None:
    assert_equals_engine(random_case(kind, seed), tmp_path)


@pytest.mark.parametrize("seed", seeds(3, 30))
def test_random_network(seed: int, tmp_path: Path) -> None:
    assert_equals_engine(random_network(seed), tmp_path, "-O0")
