"""`tinydeploy diff`: exit codes, JSON, and what people read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from graphs import single_op_graph
from shared import DATA, needs_data

from tinydeploy import api
from tinydeploy.backends.tflite import write_tflite
from tinydeploy.cli.main import cli
from tinydeploy.ir.types import constant

DIGITS = Path(__file__).resolve().parent.parent.parent / "fixtures" / "digits"
MODEL, SAMPLES = DIGITS / "digits_float.tflite", DIGITS / "samples.npz"


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compressed")
    assert invoke("compress", MODEL, "--data", SAMPLES, "-o", folder).exit_code == 0
    return folder


def test_the_two_files_of_one_compression_are_the_same(out: Path) -> None:
    result = invoke("diff", out / "model.onnx", out / "model.tflite", "--data", SAMPLES)
    assert result.exit_code == 0
    assert "every element of every layer is the same" in result.stdout


def test_float_and_int8_differ_by_a_stated_error_in_each_layer(out: Path) -> None:
    result = invoke("diff", MODEL, out / "model.tflite", "--data", SAMPLES, "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert document["same"]
    assert document["first"] is None
    assert document["threshold_db"] == 10
    assert document["only_a"] == document["only_b"] == []
    with np.load(SAMPLES) as z:
        assert document["samples"] == len(z["x"])
    assert all(10 < layer["sqnr_db"] < 60 for layer in document["layers"])
    assert all(layer["max_abs_difference"] > 0 for layer in document["layers"])


def test_a_stricter_threshold_names_the_first_layer_and_is_exit_1(out: Path) -> None:
    arguments = ("diff", MODEL, out / "model.tflite", "--data", SAMPLES, "--samples", "20")
    result = invoke(*arguments, "--threshold-db", "90", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert document["samples"] == 20
    assert document["first"] == document["layers"][0]["name"]
    text = invoke(*arguments, "--threshold-db", "90")
    assert text.exit_code == 1
    assert f"first layer that differs: {document['first']}" in text.stdout.replace("\n", " ")


def test_one_wrong_weight_is_named_with_the_count_of_elements(out: Path, tmp_path: Path) -> None:
    graph = api.load_model(out / "model.tflite").graph
    name = str(graph.nodes[1].inputs[1])
    data = graph.value(name).array.copy()
    data.reshape(-1)[:8] ^= 64
    values = {**graph.values, name: constant(name, data, graph.value(name).quantization)}
    wrong = tmp_path / "wrong.tflite"
    wrong.write_bytes(write_tflite(replace(graph, values=values)))
    result = invoke("diff", out / "model.onnx", wrong, "--data", SAMPLES, "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert document["first"] == document["layers"][1]["name"]
    assert document["layers"][0]["differing"] == 0
    assert document["layers"][1]["differing"] > 0


def test_unrelated_models_are_exit_2_and_say_so(out: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.tflite"
    other.write_bytes(write_tflite(single_op_graph("LOGISTIC", shape=(1, 8, 8, 1))))
    result = invoke("diff", out / "model.tflite", other, "--data", SAMPLES)
    assert result.exit_code == 2
    assert f"{out / 'model.tflite'}: has no layer in common with {other}" in result.stderr


def test_models_that_take_other_data_are_exit_2_and_name_the_model(out: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.tflite"
    other.write_bytes(write_tflite(single_op_graph("CONV_2D")))
    result = invoke("diff", out / "model.tflite", other, "--data", SAMPLES)
    assert result.exit_code == 2
    assert "[samples, *[7, 6, 4]]" in result.stderr
    assert f"this is said of {other}" in result.stderr


def test_the_python_api_gives_the_same(out: Path) -> None:
    a, b = api.load_model(out / "model.onnx"), api.load_model(out / "model.tflite")
    result, warnings = api.diff(a, b, SAMPLES)
    assert result.same
    assert warnings == ()


@needs_data
@pytest.mark.slow
def test_a_reference_model_and_its_float_model_pair_layer_by_layer(tmp_path: Path) -> None:
    """`ic_int8` was made of `ic_float` by another converter; all 15 layers pair, none is below 10 dB."""
    data = tmp_path / "images.npz"
    with np.load(DATA / "golden" / "ic_int8.npz") as z:
        np.savez(data, x=(z["x"].astype(np.int16) + 128).astype(np.uint8))
    models = DATA / "models"
    result = invoke("diff", models / "ic_float.tflite", models / "ic_int8.tflite", "--data", data, "--json")
    document = json.loads(result.stdout)
    assert len(document["layers"]) == 15
    assert document["only_a"] == document["only_b"] == []
    assert result.exit_code == 0
