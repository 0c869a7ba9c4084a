"""`tinydeploy profile --estimate`, and the estimate that stands in for a compiler that is not there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tinydeploy.cli.main import cli

MODEL = Path(__file__).resolve().parent.parent.parent / "fixtures" / "digits" / "digits_int8.tflite"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["profile", *map(str, arguments)])


def no_tool(*_: object, **__: object) -> None:
    raise AssertionError("a tool was started")


def test_an_estimate_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", no_tool)
    monkeypatch.setitem(sys.modules, "unicorn", None)
    done = run(MODEL, "--target", "nucleo-l4r5zi,cortex-m3", "--estimate", "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    board, core = report["targets"]
    assert board["source"] == core["source"] == "estimated"
    assert board["error_pct"] > board["validation"]["worst_error_pct"]
    assert core["error_pct"] > 0
    assert board["fits"] is True
    assert board["latency_ms"] == pytest.approx(board["cycles"] / 120e3)
    assert sum(layer["cycles"] for layer in report["layers"]) == board["cycles"]
    assert report["notes"] == []


def test_an_estimate_is_printed_as_one() -> None:
    done = run(MODEL, "--target", "nucleo-l4r5zi", "--estimate")
    assert "(estimated; the model of the board is validated)" in " ".join(done.stdout.split())
    assert "stack are estimated" in " ".join(done.stdout.split())
    assert "measured" not in done.stdout


def test_without_a_compiler_the_estimate_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("TINYDEPLOY_COMPILER", raising=False)
    monkeypatch.setitem(sys.modules, "ziglang", None)
    done = run(MODEL, "--target", "nucleo-l4r5zi", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["targets"][0]["source"] == "estimated"
    assert "no compiler was found" in done.stderr
    assert "tinydeploy[emulate]" in done.stderr


def test_a_compiler_that_was_asked_for_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setitem(sys.modules, "ziglang", None)
    done = run(MODEL, "--target", "nucleo-l4r5zi", "--compiler", "zig")
    assert done.exit_code == 2
    assert "ziglang" in done.stderr


def test_what_cannot_be_estimated_says_so() -> None:
    done = run(MODEL, "--target", "cortex-m4", "--estimate", "--optimize", "flash")
    assert done.exit_code == 2
    assert "--optimize flash" in done.stderr
