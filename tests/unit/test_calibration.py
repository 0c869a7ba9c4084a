"""Planted factors are found again, never more of them than readings, and the file says how it was made."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tinydeploy.calibration import (
    Reading,
    _tell_apart,
    board_toml,
    calibrated,
    file_name,
    fit_readings,
    parse_readings,
)
from tinydeploy.emulate.cycles.meter import CycleCount
from tinydeploy.emulate.cycles.model import Cycles
from tinydeploy.errors import DeployError
from tinydeploy.latency import latency_of
from tinydeploy.targets import Board, list_targets, load_target

MHZ = 80.0
FLASH_BOUND = Cycles(issue=400_000, branches=50_000, flash_fetch=10_000, flash_read=300_000)
BRANCHY = Cycles(issue=600_000, branches=200_000, flash_fetch=5_000, flash_read=20_000)
MIXED = Cycles(issue=900_000, branches=80_000, flash_fetch=60_000, flash_read=120_000)


def reading(name: str, cycles: Cycles, flash: float, branch: float, off: float = 1.0) -> Reading:
    """What a board with these factors would show."""
    total = cycles.issue + branch * cycles.branches + flash * (cycles.flash_fetch + cycles.flash_read)
    return Reading(name, off * total / (MHZ * 1000), cycles)


def some_board(name: str = "nucleo-l476rg") -> Board:
    found = load_target(name).board
    assert found is not None
    return found


@pytest.mark.parametrize("planted", [0.4, 1.0, 1.7, 4.9])
def test_one_reading_finds_a_planted_flash_factor(planted: float) -> None:
    fit = fit_readings([reading("a", FLASH_BOUND, planted, 1.0)], MHZ)
    assert fit.parameters == ("flash",)
    assert fit.flash_factor == pytest.approx(planted, rel=1e-9)
    assert fit.branch_factor == 1.0


def test_one_reading_without_flash_finds_the_branch_factor() -> None:
    cycles = replace(BRANCHY, flash_fetch=0, flash_read=0)
    fit = fit_readings([reading("a", cycles, 1.0, 1.5)], MHZ)
    assert fit.parameters == ("branch",)
    assert fit.branch_factor == pytest.approx(1.5, rel=1e-9)


@pytest.mark.parametrize(("flash", "branch"), [(1.3, 0.8), (0.5, 2.0), (1.0, 1.0), (2.5, 1.2)])
def test_two_readings_find_both_planted_factors(flash: float, branch: float) -> None:
    fit = fit_readings([reading("a", FLASH_BOUND, flash, branch), reading("b", BRANCHY, flash, branch)], MHZ)
    assert fit.parameters == ("flash", "branch")
    assert (fit.flash_factor, fit.branch_factor) == (pytest.approx(flash), pytest.approx(branch))
    assert fit.after_pct == pytest.approx((0, 0), abs=1e-3)
    assert fit.left_out_pct == ()


PART = st.integers(1_000, 5_000_000)
CYCLES = st.builds(Cycles, PART, PART, PART, PART)
FACTOR = st.floats(0.1, 4.5)


@given(CYCLES, CYCLES, FACTOR, FACTOR)
def test_whatever_was_planted_is_predicted_again(a: Cycles, b: Cycles, flash: float, branch: float) -> None:
    readings = [reading("a", a, flash, branch), reading("b", b, flash, branch)]
    assume(_tell_apart(readings))
    fit = fit_readings(readings, MHZ)
    assert fit.parameters == ("flash", "branch")
    assert fit.after_pct == pytest.approx((0, 0), abs=0.1)
    assert (fit.flash_factor, fit.branch_factor) == (
        pytest.approx(flash, rel=1e-3),
        pytest.approx(branch, rel=1e-3),
    )


@given(st.lists(st.tuples(CYCLES, st.floats(0.7, 1.4)), min_size=1, max_size=4))
def test_there_are_never_more_factors_than_readings_and_none_is_absurd(
    given_: list[tuple[Cycles, float]],
) -> None:
    readings = [reading(str(i), cycles, 1.0, 1.0, off) for i, (cycles, off) in enumerate(given_)]
    try:
        fit = fit_readings(readings, MHZ)
    except DeployError:
        return
    assert 1 <= len(fit.parameters) <= min(2, len(readings))
    assert 0 < fit.flash_factor <= 5
    assert 0 < fit.branch_factor <= 5
    # A fit of the least squares is not worse than no fit at all.
    assert sum(e * e for e in fit.after_pct) <= sum(e * e for e in fit.before_pct) + 1e-3


def test_two_readings_of_the_same_kind_fit_one_factor_and_say_so() -> None:
    twice = Cycles(*(2 * part for part in vars(FLASH_BOUND).values()))
    fit = fit_readings([reading("a", FLASH_BOUND, 1.4, 1.0), reading("b", twice, 1.4, 1.0)], MHZ)
    assert fit.parameters == ("flash",)
    assert fit.flash_factor == pytest.approx(1.4)
    assert any("cannot tell flash from branches" in note for note in fit.notes)
    assert len(fit.left_out_pct) == 2


def test_three_readings_are_each_predicted_by_the_others() -> None:
    readings = [
        reading("a", FLASH_BOUND, 1.3, 0.8, 1.01),
        reading("b", BRANCHY, 1.3, 0.8, 0.99),
        reading("c", MIXED, 1.3, 0.8),
    ]
    fit = fit_readings(readings, MHZ)
    assert fit.flash_factor == pytest.approx(1.3, rel=0.1)
    assert max(map(abs, fit.after_pct)) < 1.1
    assert len(fit.left_out_pct) == 3
    assert max(map(abs, fit.left_out_pct)) > max(map(abs, fit.after_pct))


def test_readings_that_no_factor_explains_are_refused_with_what_to_check() -> None:
    with pytest.raises(DeployError, match=r"a: 1\.\d+ ms read, 9\.5 ms predicted") as caught:
        fit_readings([Reading("a", 1.0625, FLASH_BOUND)], MHZ)
    assert "80 MHz" in caught.value.hint


def test_the_file_is_the_board_with_the_factors_and_how_they_were_made(tmp_path: Path) -> None:
    fit = fit_readings([reading("a.tflite", FLASH_BOUND, 1.3, 0.8), reading("b", BRANCHY, 1.3, 0.8)], MHZ)
    board = calibrated(some_board(), fit, "mine")
    path = tmp_path / "mine.toml"
    path.write_text(board_toml(board), encoding="utf-8")
    assert load_target(str(path)).board == board
    assert board.calibration is not None
    assert "calibrate nucleo-l476rg: flash and branch from a.tflite" in board.calibration.text
    assert board.calibration.readings == 2


@pytest.mark.parametrize("name", [t.name for t in list_targets() if t.board])
def test_every_board_survives_being_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.toml"
    path.write_text(board_toml(some_board(name)), encoding="utf-8")
    tomllib.loads(path.read_text(encoding="utf-8"))
    written = load_target(str(path)).board
    assert written is not None
    # What was validated is that of the shipped board; calibrating leaves it behind, and so does the writer.
    assert written == replace(some_board(name), validation=None)


def test_a_validation_of_the_uncalibrated_board_is_left_behind() -> None:
    assert some_board("nucleo-l4r5zi").validation is not None
    fit = fit_readings([reading("a", FLASH_BOUND, 1.3, 1.0)], MHZ)
    assert calibrated(some_board("nucleo-l4r5zi"), fit, "mine").validation is None


def test_latencies_of_a_calibrated_board_are_those_of_its_readings() -> None:
    given_ = [reading("a", FLASH_BOUND, 1.3, 0.8), reading("b", BRANCHY, 1.3, 0.8)]
    board = calibrated(some_board(), fit_readings(given_, MHZ), "mine")
    for one in given_:
        count = CycleCount({"kws_run": one.cycles})
        latency = latency_of(count, load_target("cortex-m4").core, board)
        assert latency.latency_ms == pytest.approx(one.measured_ms, rel=1e-4)
        assert latency.cycles == latency.per_function["kws_run"].total
        assert any("calibrated on 2 reading(s)" in note for note in latency.notes)


def test_readings_are_parsed_from_one_text_or_several() -> None:
    assert parse_readings(["a.tflite=1.5,b=c.tflite=2e1", "d=3"]) == (
        ("a.tflite", 1.5),
        ("b=c.tflite", 20.0),
        ("d", 3.0),
    )


@pytest.mark.parametrize(
    "text", ["", "a.tflite", "a=", "=3", "a=0", "a=-1", "a=nan", "a=inf", "a=x", "a=1,,b=2"]
)
def test_what_is_no_reading_is_refused(text: str) -> None:
    with pytest.raises(DeployError, match="is no reading"):
        parse_readings([text])


def test_a_model_that_is_given_twice_is_refused() -> None:
    with pytest.raises(DeployError, match="given twice"):
        parse_readings(["a=1", "a=2"])


@pytest.mark.parametrize("name", ["mine", "mine.json", "My.toml", "a b.toml", ".toml", "-x.toml"])
def test_a_file_name_that_no_board_may_have_is_refused(name: str) -> None:
    with pytest.raises(DeployError, match="no name of a board file"):
        file_name(Path(name))


@pytest.mark.parametrize(("flash", "told"), [(1.4, False), (3.1, True), (0.3, True)])
def test_a_factor_that_no_board_has_is_called_in_question(flash: float, told: bool) -> None:
    fit = fit_readings([reading("a", FLASH_BOUND, flash, 1.0)], MHZ)
    notes = [note for note in fit.notes if "further off than such a table is" in note]
    assert bool(notes) == told
    assert not told or notes[0].startswith(f"flash x {flash:g} ")
