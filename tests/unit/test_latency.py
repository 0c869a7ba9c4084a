"""Cycles become milliseconds on a board, and each figure is printed with its band."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tinydeploy.emulate.cycles.meter import CycleCount
from tinydeploy.emulate.cycles.model import Cycles
from tinydeploy.latency import latency_of, milliseconds, no_latency
from tinydeploy.targets import load_target
from tinydeploy.timing import Validation

COUNT = CycleCount({"m_00_a": Cycles(1000, 200, 30, 4), "m_run": Cycles(100, 20, 3, 0)}, ("a note",))
M4 = load_target("nucleo-l4r5zi")
KNOWN = Validation(16, 3.7, 4.2, "published results")


def test_cycles_are_the_sum_of_their_parts() -> None:
    assert COUNT.total == Cycles(1100, 220, 33, 4)
    assert COUNT.total.total == 1357


def test_a_board_has_a_clock_and_a_band() -> None:
    assert M4.board is not None
    found = latency_of(COUNT, M4.core, replace(M4.board, validation=KNOWN))
    assert found.latency_ms == pytest.approx(1357 / 120e3)
    assert found.error_pct == 4.2
    assert found.text == "0.0113 ms ±5 % (modelled; validated on 16 published results)"
    document = found.to_json()
    assert document["cycles"] == 1357
    assert document["cycles_parts"] == {
        "issue": 1100,
        "branches": 220,
        "flash_fetch": 33,
        "flash_read": 4,
    }
    assert document["cycle_notes"] == ["a note"]


def test_a_board_that_was_not_compared_says_so() -> None:
    assert M4.board is not None
    found = latency_of(COUNT, replace(M4.core, validation=KNOWN), replace(M4.board, validation=None))
    assert found.error_pct is None
    assert found.text == "0.0113 ms (modelled; unvalidated)"


def test_a_bare_core_has_cycles_and_no_clock() -> None:
    found = latency_of(COUNT, M4.core, None)
    assert found.latency_ms is None
    assert found.text == "1,357 cycles (modelled; unvalidated)"


def test_figures_that_could_not_be_looked_up_are_named() -> None:
    found = latency_of(COUNT, M4.core, load_target("nrf52840-dk").board)
    assert found.notes[-1].startswith("could not be looked up for this board: flash.wait_states, ")
    assert latency_of(COUNT, M4.core, M4.board).notes == COUNT.notes


def test_without_a_model_there_is_nothing() -> None:
    found = latency_of(CycleCount(None, ("why",)), M4.core, M4.board)
    assert (found.cycles, found.latency_ms, found.error_pct, found.text) == (None, None, None, "-")
    assert no_latency("why").to_json() == found.to_json() | {"validation": None}


@pytest.mark.parametrize(
    ("value", "text"),
    [(43.123, "43.1 ms"), (1522.07, "1,522 ms"), (4.0516, "4.05 ms"), (0.5, "0.500 ms"), (0.0, "0 ms")],
)
def test_three_digits_are_shown(value: float, text: str) -> None:
    assert milliseconds(value) == text
