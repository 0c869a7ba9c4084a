"""`tinydeploy analyze`: JSON, the table, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tinydeploy.cli.main import cli

DIGITS = Path(__file__).resolve().parent.parent.parent / "fixtures" / "digits"
MODEL, SAMPLES = DIGITS / "digits_float.tflite", DIGITS / "samples.npz"


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def test_json_has_costs_layers_and_tensors() -> None:
    result = invoke("analyze", MODEL, "--data", SAMPLES, "--samples", "50", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["samples"] == 50
    assert document["average_weight_bits"] == 8
    for total, part in (
        ("representational_cost_bits", "representational_cost_bits"),
        ("computational_cost_fa", "computational_cost_fa"),
        ("weights", "weights"),
    ):
        assert document[total] == sum(layer[part] for layer in document["layers"]) > 0
    activations = [t for t in document["tensors"] if t["kind"] == "activation"]
    assert all(t["sqnr_db"] > 15 and t["kl_forward"] >= 0 and t["kl_reverse"] >= 0 for t in activations)
    assert all(layer["accumulator_bits_proved"] > 8 for layer in document["layers"])


def test_fewer_bits_cost_less_and_spoil_more() -> None:
    documents = [
        json.loads(invoke("analyze", MODEL, "--data", SAMPLES, "--bits", bits, "--json").stdout)
        for bits in ("8", "3")
    ]
    fine, coarse = documents
    assert coarse["average_weight_bits"] == 3
    assert coarse["computational_cost_fa"] < fine["computational_cost_fa"]
    assert coarse["tensors"][-1]["sqnr_db"] < fine["tensors"][-1]["sqnr_db"] - 6


@pytest.mark.parametrize("data", [(), ("--data", SAMPLES)])
def test_the_table_names_every_layer_and_fits_80_columns(data: tuple[str | Path, ...]) -> None:
    result = invoke("analyze", MODEL, *data)
    assert result.exit_code == 0
    assert "full adders" in result.stdout
    assert "layers with weights" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert ("--data" in result.stdout) == (not data)


def test_an_integer_model_is_analyzed_as_it_is(tmp_path: Path) -> None:
    assert invoke("compress", MODEL, "--data", SAMPLES, "-o", tmp_path).exit_code == 0
    result = invoke("analyze", tmp_path / "model.onnx", "--data", SAMPLES, "--json")
    document = json.loads(result.stdout)
    assert document["notes"]
    weights = [t for t in document["tensors"] if t["kind"] == "weights"]
    assert all(t["sqnr_db"] is None and t["predicted_sqnr_db"] > 30 for t in weights)


def test_an_unknown_calibration_is_exit_2() -> None:
    result = invoke("analyze", MODEL, "--data", SAMPLES, "--calibration", "guess")
    assert result.exit_code == 2
    assert "there is no calibration 'guess'" in result.stderr


def test_bits_for_an_integer_model_are_exit_2(tmp_path: Path) -> None:
    assert invoke("compress", MODEL, "--data", SAMPLES, "-o", tmp_path).exit_code == 0
    result = invoke("analyze", tmp_path / "model.onnx", "--bits", "4")
    assert result.exit_code == 2
    assert "quantized already" in result.stderr


def test_a_float_model_with_labels_gets_bits_by_layer() -> None:
    pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
    documents = [
        json.loads(invoke("analyze", MODEL, "--data", SAMPLES, "--accuracy-loss", loss, "--json").stdout)[
            "precision"
        ]
        for loss in ("0.2", "0.001")
    ]
    loose, strict = documents
    assert loose["uniform_bits"] < strict["uniform_bits"]
    assert loose["base_bits"] < strict["base_bits"]
    for layer in strict["layers"]:
        assert min(layer["weights_offset"], layer["activations_offset"]) >= 0
        assert layer["weights_bits"] == strict["base_bits"] + layer["weights_offset"]
        assert isinstance(layer["hessian_trace"], float)
    offsets = [
        n for layer in strict["layers"] for n in (layer["weights_offset"], layer["activations_offset"])
    ]
    assert min(offsets) == 0
