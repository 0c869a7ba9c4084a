"""How many cases of a sweep the fast suite takes; the others are slow."""

from __future__ import annotations

import pytest


def seeds(fast: int, all_of_them: int) -> list[object]:
    """Seeds from 0, the first `fast` of them in the fast suite."""
    return [pytest.param(s, marks=[pytest.mark.slow] * (s >= fast)) for s in range(all_of_them)]


def thinned(names: list[str], every: int) -> list[object]:
    """All names, one in `every` of them in the fast suite."""
    slow = pytest.mark.slow
    return [pytest.param(n, marks=[slow] if i % every else []) for i, n in enumerate(names)]
