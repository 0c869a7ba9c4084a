"""`tinydeploy calibrate`: a board file out of readings, and every way to get it wrong."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tinydeploy import api
from tinydeploy.cli.main import cli

DIGITS = str(Path(__file__).resolve().parents[2] / "fixtures" / "digits" / "digits_int8.tflite")
NEEDS_EMULATOR = pytest.mark.skipif(
    importlib.util.find_spec("unicorn") is None, reason="the extra 'emulate' is not installed"
)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.mark.slow
@NEEDS_EMULATOR
def test_a_planted_flash_factor_is_found_and_the_file_predicts_the_reading(tmp_path: Path) -> None:
    board = "nucleo-l476rg"
    parts = api.profile(api.load_model(DIGITS), [board]).targets[0].measurement.latency.parts
    assert parts is not None
    planted = parts.scaled(1.5, 1.0).total / 80_000
    output = tmp_path / "mine.toml"
    done = invoke("calibrate", board, "--measured", f"{DIGITS}={planted}", "-o", str(output), "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["flash_factor"] == pytest.approx(1.5, rel=1e-3)
    assert report["parameters"] == ["flash"]
    assert report["readings"][0]["before_error_pct"] < -1
    assert abs(report["readings"][0]["after_error_pct"]) < 0.01
    found = json.loads(invoke("profile", DIGITS, "--target", str(output), "--json").stdout)["targets"][0]
    assert found["target"] == "mine"
    assert found["latency_ms"] == pytest.approx(planted, rel=1e-4)
    assert any("calibrated on 1 reading(s)" in note for note in found["cycle_notes"])
    again = invoke("calibrate", str(output), "--measured", f"{DIGITS}={planted}", "-o", str(output), "--json")
    assert json.loads(again.stdout)["flash_factor"] == pytest.approx(report["flash_factor"])


@NEEDS_EMULATOR
def test_the_report_fits_80_columns_and_says_what_the_errors_are_worth(tmp_path: Path) -> None:
    output = tmp_path / "mine.toml"
    done = invoke("calibrate", "nucleo-l476rg", "--measured", f"{DIGITS}=4.2", "-o", str(output))
    assert done.exit_code == 0, done.output
    assert "waits for flash x" in done.stdout
    assert "the errors after say nothing" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if str(output) not in line)


@NEEDS_EMULATOR
@pytest.mark.parametrize(
    ("board", "measured", "name", "told"),
    [
        ("cortex-m4", f"{DIGITS}=14", "mine.toml", "which has no clock"),
        ("nucleo-l476rg", f"{DIGITS}=0.01", "mine.toml", "explains the readings"),
        ("nucleo-l476rg", "no_such.tflite=14", "mine.toml", "no_such.tflite"),
        ("nucleo-l476rg", f"{DIGITS}", "mine.toml", "is no reading"),
        ("nucleo-l476rg", f"{DIGITS}=14", "Mine.toml", "no name of a board file"),
        ("nucleo-l476", f"{DIGITS}=14", "mine.toml", "did you mean 'nucleo-l476rg'"),
    ],
)
def test_bad_input_is_exit_2_and_writes_nothing(
    board: str, measured: str, name: str, told: str, tmp_path: Path
) -> None:
    done = invoke("calibrate", board, "--measured", measured, "-o", str(tmp_path / name))
    assert done.exit_code == 2
    assert told in done.stderr
    assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_without_a_reading_click_says_so() -> None:
    done = invoke("calibrate", "nucleo-l476rg", "-o", "mine.toml")
    assert done.exit_code == 2
    assert "--measured" in done.stderr
