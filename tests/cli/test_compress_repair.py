"""`compress --repair`: the gain of each step in the report, and an ordinary integer model in the end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tinydeploy import api
from tinydeploy.cli.main import cli

DIGITS = Path(__file__).resolve().parent.parent.parent / "fixtures" / "digits"
MODEL, SAMPLES = DIGITS / "digits_float.tflite", DIGITS / "samples.npz"


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


@pytest.mark.parametrize("bits", ["8:8", "4:8"])
def test_each_repair_is_in_the_report_with_its_gain(tmp_path: Path, bits: str) -> None:
    given = ("--data", SAMPLES, "--bits", bits, "--repair", "bias,equalize", "-o", tmp_path)
    result = invoke("compress", MODEL, *given)
    assert result.exit_code == 0
    assert "repairs, one after the other" in result.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    # Equalization is of float weights and so comes first, in whatever order they are named.
    assert [gain["name"] for gain in report["repair"]] == ["none", "equalize", "bias"]
    assert all(0.5 < gain["value"] <= 1.0 and gain["sqnr_db"] > 3.0 for gain in report["repair"])
    assert report["repair"][-1]["value"] == report["after"]["value"]
    assert (tmp_path / "model.tflite").exists()


def test_a_repaired_model_is_the_same_in_both_files(tmp_path: Path) -> None:
    assert invoke("compress", MODEL, "--data", SAMPLES, "--repair", "bias", "-o", tmp_path).exit_code == 0
    result = invoke("diff", tmp_path / "model.onnx", tmp_path / "model.tflite", "--data", SAMPLES)
    assert result.exit_code == 0
    assert "every element of every layer is the same" in result.stdout


@pytest.mark.slow
def test_adaround_moves_weights_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
    x = dict(np.load(SAMPLES))
    few = {name: array[:40] for name, array in x.items()}
    model = api.load_model(MODEL)
    plain, _ = api.compress(model, few)
    learned, _ = api.compress(model, few, repair="adaround")
    assert [g.name for g in learned.gains] == ["none", "adaround"]
    for name, value in plain.graph.values.items():
        other = learned.graph.value(name)
        assert value == other
        if value.data is not None and value.dtype.value == "int8":
            assert np.abs(value.data.astype(int) - other.array.astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("repairs", "message"),
    [
        ("glue", "there is no repair 'glue'"),
        ("bias,bias", "given twice"),
        ("bias,bias-analytic", "given twice"),
        ("", "there is no repair ''"),
    ],
)
def test_repairs_that_make_no_sense_are_exit_2(tmp_path: Path, repairs: str, message: str) -> None:
    result = invoke("compress", MODEL, "--data", SAMPLES, "--repair", repairs, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_repair_of_what_training_quantizes_is_exit_2(tmp_path: Path) -> None:
    given = ("--data", SAMPLES, "--repair", "bias", "--qat-epochs", "1", "-o", tmp_path)
    result = invoke("compress", MODEL, *given)
    assert result.exit_code == 2
    assert "--qat-epochs" in result.stderr
