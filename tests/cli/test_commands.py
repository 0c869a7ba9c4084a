"""The command line: exit codes, messages, and JSON that is alone on standard output."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from graphs import single_op_graph

from tinydeploy.backends.tflite import write_tflite
from tinydeploy.cli.main import cli

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = ROOT / "fixtures" / "digits" / "digits_int8.tflite"
SAMPLES = ROOT / "fixtures" / "digits" / "samples.npz"

VERIFY_KEYS = {
    *("target", "compiler", "optimize", "samples", "elements", "mismatches", "instructions", "cycles"),
    *("latency_ms", "arena_bytes", "ram_bytes", "stack_bytes", "flash_bytes", "flash_code_bytes"),
    *("flash_weights_bytes", "float_symbols", "unaligned_ok"),
}
TARGET_KEYS = {
    *("target", "fits", "why", "flash_bytes", "ram_bytes", "latency_ms", "cycles", "energy_uj", "source"),
    "error_pct",
}
LAYER_KEYS = {"name", "op", "macs", "params", "weights_bytes", "instructions", "cycles"}

SMALL_BOARD = """schema = 1
name = "tiny-board"
title = "A board with next to nothing"
chip = "NONE"
core = "cortex-m4"
clock_mhz = 16
flash_bytes = 1024
ram_bytes = 1024

[sources]
clock_mhz = "made up"
flash_bytes = "made up"
ram_bytes = "made up"
"""


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


@cache
def profiled() -> Result:
    """The digits on a board that they fit."""
    return run("profile", MODEL, "--target", "nucleo-l4r5zi")


def document(result: Result) -> dict[str, object]:
    parsed = json.loads(result.stdout)
    assert isinstance(parsed, dict)
    return parsed


def test_verify_json_has_the_keys_of_the_contract() -> None:
    result = run("verify", MODEL, "--target", "cortex-m4", "--inputs", SAMPLES, "--json")
    report = document(result)
    assert result.exit_code == 0
    assert set(report) >= VERIFY_KEYS
    assert report["mismatches"] == 0
    assert report["cycles"] > report["instructions"]  # type: ignore[operator]
    assert report["latency_ms"] is None
    assert report["cycle_notes"] == ["waits for the flash are not in the cycles"]
    assert "y" in result.stderr
    assert "not compared" in result.stderr


def test_host_has_no_instructions() -> None:
    report = document(run("verify", MODEL, "--target", "host", "--json"))
    assert report["mismatches"] == 0
    assert report["instructions"] is None
    assert report["cycles"] is None
    assert report["flash_bytes"] is None


def test_verify_prints_a_verdict() -> None:
    result = run("verify", MODEL, "--target", "cortex-m0plus")
    assert result.exit_code == 0
    assert "bit-exact" in result.stdout


def test_profile_json_has_the_keys_of_the_contract() -> None:
    result = run("profile", MODEL, "--target", "nucleo-l4r5zi,cortex-m0plus", "--json")
    report = document(result)
    assert result.exit_code == 0
    layers, targets = report["layers"], report["targets"]
    assert isinstance(layers, list)
    assert isinstance(targets, list)
    assert all(set(layer) >= LAYER_KEYS for layer in layers)
    assert all(set(t) >= TARGET_KEYS for t in targets)
    assert [t["fits"] for t in targets] == [True, None]
    assert sum(layer["macs"] for layer in layers) == report["macs"]
    assert sum(layer["instructions"] for layer in layers) <= targets[0]["instructions"]
    assert all(layer["instructions"] > 0 for layer in layers)
    board, core = targets
    assert board["cycles"] == sum(board["cycles_parts"].values())
    assert board["latency_ms"] == pytest.approx(board["cycles"] / 120e3)
    assert board["cycles_parts"]["flash_read"] > 0
    assert board["error_pct"] == board["validation"]["worst_error_pct"]
    assert core["error_pct"] is None
    assert core["latency_ms"] is None
    assert core["cycles_parts"]["flash_read"] == 0
    assert sum(layer["cycles"] for layer in layers) <= board["cycles"]
    for layer in layers:
        assert layer["cycles"] == sum(layer["cycles_parts"].values())
        assert layer["cycles_per_mac"] == (layer["cycles"] / layer["macs"] if layer["macs"] else None)


def test_a_core_that_pairs_instructions_says_that_this_is_modelled() -> None:
    result = run("profile", MODEL, "--target", "nucleo-h743zi", "--json")
    (target,) = document(result)["targets"]  # type: ignore[misc]
    assert target["cycles"] > 0
    assert target["error_pct"] is None
    assert "two instructions at a time are modelled" in target["cycle_notes"][0]


@pytest.mark.slow
def test_every_latency_is_printed_with_its_band() -> None:
    assert "% (modelled; validated on 8 published results)" in " ".join(profiled().stdout.split())
    result = run("profile", MODEL, "--target", "nucleo-f446re")
    assert " ms (modelled; unvalidated)" in result.stdout
    assert " ms (modelled; unvalidated)" in run("verify", MODEL, "--target", "nucleo-f446re").stdout


@pytest.mark.slow
def test_a_model_that_does_not_fit_is_exit_1_and_json_all_the_same(tmp_path: Path) -> None:
    board = tmp_path / "tiny-board.toml"
    board.write_text(SMALL_BOARD)
    result = run("profile", MODEL, "--target", board, "--json")
    assert result.exit_code == 1
    (target,) = document(result)["targets"]  # type: ignore[misc]
    assert target["fits"] is False
    assert "over" in target["why"]


def test_profile_prints_a_table_that_fits_80_columns() -> None:
    result = profiled()
    assert result.exit_code == 0
    assert "conv_2d" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "…" not in result.stdout


def test_export_writes_the_whole_project(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    result = run("export-c", MODEL, "--target", "cortex-m4", "--name", "digits", "-o", folder)
    assert result.exit_code == 0
    names = {p.name for p in folder.iterdir()}
    assert names >= {
        *("digits.h", "digits.c", "digits_weights.h", "digits_weights.c", "td_kernels.h"),
        *("Makefile", "example_main.c", "manifest.json"),
    }
    assert not [n for n in names if n.startswith(".")]


@pytest.mark.slow
def test_export_within_limits_is_measured_first(tmp_path: Path) -> None:
    arguments = ("export-c", MODEL, "--target", "cortex-m4", "-o", tmp_path / "out")
    refused = run(*arguments, "--max-ram", "64")
    assert refused.exit_code == 1
    assert "RAM" in refused.stderr
    assert not (tmp_path / "out").exists()
    assert run(*arguments, "--max-ram", "100000", "--max-flash", "100000").exit_code == 0


def test_inspect_text_and_json() -> None:
    text = run("inspect", MODEL).stdout
    assert "CONV_2D" in text
    report = document(run("inspect", MODEL, "--json"))
    assert set(report) >= {"model", "macs", "params", "inputs", "outputs", "ops"}
    assert "arena" in run("inspect", MODEL, "--memory").stdout
    assert "prunable groups" in run("inspect", MODEL, "--groups").stdout
    assert document(run("inspect", MODEL, "--groups", "--json"))["groups"]


def test_targets_lists_and_shows() -> None:
    listed = json.loads(run("targets", "--json").stdout)
    assert {"cortex-m4", "nucleo-l4r5zi"} <= {t["name"] for t in listed}
    assert "nucleo-l4r5zi" in run("targets").stdout
    (one,) = json.loads(run("targets", "nucleo-l4r5zi", "--json").stdout)
    assert one["clock_mhz"] == 120


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("inspect", "missing.tflite"), ("missing.tflite", "No such file")),
        (("inspect", "README.md"), ("README.md", ".tflite")),
        (("inspect", "no_such_module:factory"), ("no_such_module:factory",)),
        (("inspect", str(MODEL), "--weights", "x.safetensors"), ("--weights",)),
        (("verify", str(MODEL), "--target", "cortex-m9"), ("cortex-m9", "tinydeploy targets")),
        (("verify", str(MODEL), "--target", "cortex-m4", "--inputs", "none.npz"), ("none.npz",)),
        (("evaluate", str(MODEL), "--data", str(MODEL)), ("digits_int8.tflite", ".npz")),
        (("export-c", str(MODEL), "--target", "cortex-m4", "--name", "1x", "-o", "out"), ("'1x'", "letter")),
        (("profile", str(MODEL), "--target", ","), ("--target",)),
        (("profile", str(MODEL)), ("--target",)),
        (("nonsense",), ("nonsense",)),
    ],
)
def test_bad_input_is_exit_2_with_a_message(
    arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "README.md").write_text("no model")
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert all(w in result.stderr for w in words), result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    result = run("export-c", MODEL, "--target", "cortex-m4", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "out" in result.stderr


def test_a_float_model_is_refused_by_export(tmp_path: Path) -> None:
    path = tmp_path / "float.tflite"
    path.write_bytes(write_tflite(single_op_graph("CONV_2D", 1, is_float=True)))
    result = run("export-c", path, "--target", "cortex-m4", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "float" in result.stderr
    assert not (tmp_path / "out").exists()


def test_saturating_data_is_a_warning(tmp_path: Path) -> None:
    with np.load(SAMPLES, allow_pickle=False) as archive:
        x, y = archive["x"], archive["y"]
    path = tmp_path / "loud.npz"
    np.savez(path, x=x * 1000, y=y)
    result = run("evaluate", MODEL, "--data", path, "--json")
    assert result.exit_code == 0
    assert "saturate" in result.stderr


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "unicorn", None)
    result = run("verify", MODEL, "--target", "cortex-m4")
    assert result.exit_code == 2
    assert "tinydeploy[emulate]" in result.stderr


@pytest.mark.slow
def test_profile_limits_are_exit_1_and_say_what_would_help() -> None:
    result = run("profile", MODEL, "--target", "nucleo-l4r5zi", "--max-ram", "2000")
    assert result.exit_code == 1
    text = " ".join(result.stdout.split())
    needed = document(run("profile", MODEL, "--target", "nucleo-l4r5zi", "--json"))["targets"][0]["ram_bytes"]  # type: ignore[index]
    assert f"RAM: {needed:,} B needed, 2,000 B there, {needed - 2000:,} B over" in text
    assert "would fit: " in text
    assert "tinydeploy compress FLOAT_MODEL --data DATA --prune " in text
    assert "weights in RAM: " in text
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.slow
def test_profile_limits_in_json() -> None:
    result = run("profile", MODEL, "--target", "nucleo-l4r5zi", "--max-latency-ms", "1", "--json")
    assert result.exit_code == 1
    (target,) = document(result)["targets"]  # type: ignore[misc]
    needs = {need["resource"]: need for need in target["needs"]}
    assert needs["latency"]["needed"] == target["latency_ms"] > needs["latency"]["limit"] == 1
    assert needs["ram"]["needed"] == target["ram_bytes"]
    for entry in target["advice"]:
        (latency,) = [need for need in entry["needs"] if need["resource"] == "latency"]
        assert entry["fits"] == (latency["over"] <= 0)
    moved = target["weights_in_ram"]
    assert moved["saved_cycles"] == target["cycles"] - moved["cycles"]
    for layer in target["layers"]:
        assert layer["flash_bytes"] == layer["weights_bytes"] + layer["code_bytes"]
        assert layer["share"] == layer["cycles"] / target["cycles"]
        assert layer["arena_bytes"] <= target["arena_bytes"]
        assert layer["cycles_weights_in_ram"] <= layer["cycles"]
    assert target["layers"] == document(result)["layers"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--target", "cortex-m4", "--max-latency-ms", "5"), ("--max-latency-ms", "cortex-m4", "clock")),
        (("--target", "host", "--max-ram", "5"), ("--max-ram", "host")),
        (("--target", "cortex-m4", "--max-ram", "0"), ("--max-ram",)),
        (("--target", "cortex-m4", "--html", "page.html", "--compress-report", "none.json"), ("none.json",)),
        (("--target", "cortex-m4", "--html", "."), ("--html",)),
    ],
)
def test_profile_refuses_what_has_no_answer(
    arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("profile", MODEL, *arguments)
    assert result.exit_code == 2
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_page_is_written_beside_the_json(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = run("profile", MODEL, "--target", "nucleo-l4r5zi", "--html", page, "--json")
    assert result.exit_code == 0
    assert document(result)["targets"]
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "ST NUCLEO-L4R5ZI" in text
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
