"""How many cases of a sweep the fast suite takes; the others are slow."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def seeds(fast: int, all_of_them: int) -> list[object]:
    """Seeds from 0, the first `fast` of them in the fast suite."""
    return [pytest.param(s, marks=[pytest.mark.slow] * (s >= fast)) for s in range(all_of_them)]


def thinned(names: Iterable[object], every: int, first: int = 0) -> list[object]:
    """All names, one in `every` of them from the `first` on in the fast suite."""
    slow = pytest.mark.slow
    return [pytest.param(n, marks=[slow] if i % every != first else []) for i, n in enumerate(names)]


def by_turns(
    names: Iterable[object], others: Iterable[object], *, every: int = 1, first: int = 0
) -> list[object]:
    """All pairs; the fast suite takes one in `every` names, and the others by turns, one with each name."""
    second = list(others)
    pairs: list[object] = []
    for i, name in enumerate(names):
        turn = (i // every + first) % len(second)
        for j, other in enumerate(second):
            slow = i % every > 0 or j != turn
            pairs.append(pytest.param(name, other, marks=[pytest.mark.slow] * slow))
    return pairs
