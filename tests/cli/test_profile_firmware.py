"""`tinydeploy profile FIRMWARE.elf`: the options, the document, and the messages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from firmware_support import link_app

from tinydeploy.cli.main import cli

pytestmark = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is not on PATH"
)
MODEL = Path(__file__).resolve().parent.parent.parent / "fixtures" / "digits" / "digits_int8.tflite"
TARGET_KEYS = {
    *("target", "fits", "why", "flash_bytes", "ram_bytes", "latency_ms", "cycles", "energy_uj", "source"),
    *("error_pct", "instructions", "stack_bytes", "result"),
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_app(tmp_path_factory.mktemp("app"))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["profile", *map(str, arguments)])


def test_the_document_has_the_keys_of_a_models_and_the_functions(app: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.full((1, 16), 3, np.int8))
    into = f"samples={tmp_path / 'in.npz'}"
    options = ("--entry", "sum", "--arg", "samples", "--arg", "16", "--input", into)
    done = run(app, "--target", "nucleo-l4r5zi,cortex-m3", *options, "--json")
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert set(report) >= {"model", "macs", "params", "layers", "targets", "functions", "entry"}
    assert report["macs"] is report["params"] is None
    assert report["layers"] == []
    board, core = report["targets"]
    assert set(board) >= TARGET_KEYS
    assert board["result"] == 48
    assert (board["source"], board["fits"], core["fits"]) == ("emulated", True, None)
    assert board["error_pct"] == board["validation"]["worst_error_pct"]
    assert core["latency_ms"] is core["error_pct"] is None
    (function,) = report["functions"]
    assert function["name"] == "sum"
    assert function["share"] == 1.0
    assert function["cycles"] == board["cycles"] == sum(function["cycles_parts"].values())


def test_the_table_fits_80_columns_and_has_the_band(app: Path) -> None:
    done = run(app, "--target", "nucleo-l4r5zi", "--entry", "calls", "--setup", "setup")
    assert done.exit_code == 0
    assert "twice" in done.stdout
    assert "% (modelled; validated on 8 published results)" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines()[1:])) <= 80


def test_a_board_that_is_too_small_is_exit_1(app: Path, tmp_path: Path) -> None:
    text = Path("targets/boards/nucleo-l4r5zi.toml").read_text(encoding="utf-8")
    board = tmp_path / "small.toml"
    board.write_text(text.replace('"nucleo-l4r5zi"', '"small"').replace("= 655360", "= 1024"))
    done = run(app, "--target", board, "--entry", "memory", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["targets"][0]["fits"] is False


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("no function is named", "--entry")),
        (("--entry", "forever", "--max-instructions", "5000"), ("did not return within 5,000", "forever")),
        (("--entry", "semihosting"), ("BKPT", "semihosting")),
        (("--entry", "calls", "--target", "host"), ("microcontroller",)),
    ],
)
def test_what_cannot_be_run_is_exit_2(app: Path, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    done = run(app, "--target", "nucleo-l4r5zi", *options)
    assert done.exit_code == 2
    assert all(word in done.stderr for word in words), done.stderr
    assert done.stdout == ""


def test_the_options_of_a_firmware_do_not_go_with_a_model() -> None:
    done = run(MODEL, "--target", "nucleo-l4r5zi", "--entry", "digits_run")
    assert done.exit_code == 2
    assert "is not an ELF file" in done.stderr
