"""Energy is cycles times the board's power, and says how far it can be believed."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
from shared import DATA, needs_data

from tinydeploy.energy import energy_json, energy_of
from tinydeploy.targets import Board, Power, list_targets, load_target
from tinydeploy.timing import Validation


def board(name: str) -> Board:
    found = load_target(name).board
    assert found is not None
    return found


def with_power(power: Power | None) -> Board:
    return replace(board("nucleo-l4r5zi"), power=power)


def test_a_microwatt_per_megahertz_is_a_picojoule_a_cycle() -> None:
    energy = energy_of(2_000_000, with_power(Power(250.0)))
    assert energy is not None
    assert energy.microjoules == pytest.approx(2_000_000 * 250e-12 / 1e-6)


def test_power_times_time_is_the_same_energy() -> None:
    chip = with_power(Power(300.0))
    energy = energy_of(chip.clock_mhz * 1e6, chip)  # one second
    assert energy is not None
    assert energy.microjoules == pytest.approx(300 * chip.clock_mhz)


@pytest.mark.parametrize(
    ("cycles", "chip"), [(None, with_power(Power(300.0))), (1000, with_power(None)), (1000, None)]
)
def test_what_is_not_known_is_null(cycles: int | None, chip: Board | None) -> None:
    assert energy_of(cycles, chip) is None
    assert energy_json(energy_of(cycles, chip)) == {"energy_uj": None, "energy_error_pct": None}


@pytest.mark.parametrize(
    ("cycles", "shown"), [(1_000, "0.300 uJ"), (123_456, "37.0 uJ"), (10_300_000, "3.09 mJ"), (0, "0 uJ")]
)
def test_three_significant_digits_and_a_unit(cycles: int, shown: str) -> None:
    energy = energy_of(cycles, with_power(Power(300.0)))
    assert energy is not None
    assert energy.text == f"{shown} (modelled; unvalidated)"


def test_the_band_is_the_worst_error_of_the_board() -> None:
    power = Power(300.0, Validation(40, 28.4, 53.2, "published"))
    energy = energy_of(10_300_000, with_power(power))
    assert energy is not None
    assert energy.text == "3.09 mJ ±54 % (modelled; validated on 40 published results)"
    assert energy_json(energy)["energy_error_pct"] == 53.2


@needs_data
def test_the_stated_errors_are_those_of_the_published_energies() -> None:
    names = {t.board.name: t.board for t in list_targets() if t.board and t.board.power}
    stated = {n: b.power.validation for n, b in names.items() if b.power and b.power.validation}
    errors: dict[str, list[float]] = {name: [] for name in stated}
    with (DATA / "mlperf_tiny_published.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            chip = names.get(row["board"].lower())
            if (
                chip is None
                or chip.name not in stated
                or not row["energy_uj_per_inf"]
                or row["model"] == "sww"
            ):
                continue
            run = float(row["energy_run_throughput_inf_s"] or row["throughput_inf_s"])
            energy = energy_of(chip.clock_mhz * 1e6 / run, chip)
            assert energy is not None
            published = float(row["energy_uj_per_inf"])
            errors[chip.name].append(100 * abs(energy.microjoules - published) / published)
    for name, found in errors.items():
        validation = stated[name]
        assert len(found) == validation.points
        assert sum(found) / len(found) == pytest.approx(validation.mean_error_pct, abs=0.06)
        assert max(found) == pytest.approx(validation.worst_error_pct, abs=0.06)
