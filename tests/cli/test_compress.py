"""`tinydeploy compress`: a float model to an int8 one, with exit codes and files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from onnx_models import run_onnx
from shared import DATA, needs_data

from tinydeploy import api
from tinydeploy.cli.main import cli
from tinydeploy.engine import run
from tinydeploy.ops.quantize import quantize_array

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = ROOT / "fixtures" / "digits" / "digits_float.tflite"
SAMPLES = ROOT / "fixtures" / "digits" / "samples.npz"
FILES = {"model.onnx", "model.tflite", "report.json"}


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def compress(folder: Path, *arguments: str) -> Result:
    return invoke("compress", MODEL, "--data", SAMPLES, "-o", folder, *arguments)


def test_post_training_quantization_keeps_the_accuracy(tmp_path: Path) -> None:
    result = compress(tmp_path / "out", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert report["metric"] == "accuracy"
    assert report["after"]["value"] >= report["before"]["value"] - 0.01
    assert report["after"]["arena_bytes"] < report["before"]["arena_bytes"]
    assert all(layer["sqnr_db"] is None or layer["sqnr_db"] > 10 for layer in report["layers"])


def test_both_files_give_the_same_weights_and_outputs(tmp_path: Path) -> None:
    assert compress(tmp_path / "out").exit_code == 0
    x = np.random.default_rng(0).integers(-128, 128, (8, 1, 8, 8, 1)).astype(np.int8)
    outputs, weights = [], []
    for name in ("model.onnx", "model.tflite"):
        model = api.load_model(tmp_path / "out" / name)
        outputs.append(run(model.graph, [x])[0])
        export = tmp_path / name
        assert invoke(
            "export-c", tmp_path / "out" / name, "--target", "cortex-m4", "--name", "m", "-o", export
        )
        lines = (export / "m_weights.c").read_text().splitlines()
        weights.append([line for line in lines if "sha256" not in line])
    assert np.array_equal(*outputs)
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_what_was_written_is_proved_on_the_core(tmp_path: Path) -> None:
    assert compress(tmp_path / "out", "--prune", "0.25").exit_code == 0
    for name in ("model.onnx", "model.tflite"):
        assert invoke("verify", tmp_path / "out" / name, "--target", "cortex-m4").exit_code == 0


def test_pruning_leaves_at_most_what_was_asked_for(tmp_path: Path) -> None:
    result = compress(tmp_path / "out", "--prune", "macs=60%", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert report["after"]["macs"] <= 0.6 * report["before"]["macs"]
    assert [s["name"] for s in report["stages"]] == ["float", "pruned", "int8"]
    assert any(g["after"] < g["before"] for g in report["prune"]["groups"])


def test_a_missed_accuracy_writes_nothing(tmp_path: Path) -> None:
    arguments = ("--prune", "0.75", "--prune-divisor", "1", "--max-accuracy-drop", "0.01")
    result = compress(tmp_path / "out", *arguments, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["missed"]
    assert not (tmp_path / "out").exists()
    assert compress(tmp_path / "out", *arguments, "--force").exit_code == 1
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES


def test_auto_stays_within_the_drop(tmp_path: Path) -> None:
    result = compress(tmp_path / "out", "--prune", "auto", "--max-accuracy-drop", "0.05", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert report["after"]["macs"] < report["before"]["macs"]
    assert report["after"]["value"] >= report["before"]["value"] - 0.05


@pytest.mark.slow
def test_a_goal_in_ram_is_measured_on_the_target(tmp_path: Path) -> None:
    result = compress(tmp_path / "out", "--prune", "ram=2000", "--prune-divisor", "2", "--json")
    assert result.exit_code == 0
    verified = invoke("verify", tmp_path / "out" / "model.tflite", "--target", "cortex-m4", "--json")
    assert json.loads(verified.stdout)["ram_bytes"] <= 2000


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--prune", "fast=1"), "fast"),
        (("--prune", "macs=1%"), "smallest"),
        (("--prune", "latency=1ms"), "latency"),
        (("--calibration", "guess"), "guess"),
        (("--prune", "0.5", "--importance", "size"), "size"),
    ],
)
def test_bad_requests_are_exit_2(tmp_path: Path, arguments: tuple[str, ...], word: str) -> None:
    result = compress(tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert word in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_int8_model_is_refused(tmp_path: Path) -> None:
    model = MODEL.with_name("digits_int8.tflite")
    result = invoke("compress", model, "--data", SAMPLES, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "quantized already" in result.stderr


@pytest.mark.slow
def test_training_brings_a_pruned_network_back(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
    arguments = (
        "--prune",
        "macs=50%",
        "--prune-divisor",
        "2",
        "--batch-size",
        "8",
        "--learning-rate",
        "0.01",
        "--json",
    )
    without = json.loads(compress(tmp_path / "a", *arguments).stdout)
    trained = compress(tmp_path / "b", *arguments, "--finetune-epochs", "20", "--qat-epochs", "2")
    report = json.loads(trained.stdout)
    assert trained.exit_code == 0
    assert report["after"]["value"] > without["after"]["value"]
    assert report["after"]["value"] >= 0.95
    again = json.loads(
        compress(tmp_path / "c", *arguments, "--finetune-epochs", "20", "--qat-epochs", "2").stdout
    )
    assert again == report


def test_debug_layers_prints_the_error_of_each(tmp_path: Path) -> None:
    result = compress(tmp_path / "out", "--debug-layers")
    assert "SQNR" in result.stdout
    assert "no layer is below 10 dB" in result.stdout


def onnx_accuracy(model: Path, x: np.ndarray, y: np.ndarray) -> float:
    """Of an int8 model in ONNX Runtime, for real numbers (samples, *shape)."""
    graph = api.load_model(model).graph
    value = graph.value(graph.inputs[0])
    given = quantize_array(x, value.quant, value.dtype).reshape(len(x), *value.shape)
    (scores,) = run_onnx(model.read_bytes(), [given])
    return float(np.mean(scores.reshape(len(x), -1).argmax(1) == y))


def test_onnx_runtime_has_the_accuracy_of_the_engine(tmp_path: Path) -> None:
    """Within one point; how many elements agree over a whole network is not gated."""
    report = json.loads(compress(tmp_path / "out", "--json").stdout)
    with np.load(SAMPLES) as z:
        theirs = onnx_accuracy(tmp_path / "out" / "model.onnx", z["x"], z["y"])
    assert abs(theirs - report["after"]["value"]) <= 0.01


@needs_data
@pytest.mark.slow
def test_a_keyword_spotter_keeps_its_accuracy_in_the_engine_and_in_onnx_runtime(tmp_path: Path) -> None:
    """The published float model has 91.5 % of these 1000 samples; a tenth of them calibrates."""
    with np.load(DATA / "kws01.npz") as z:
        x = ((z["x"].astype(np.float32) - 83) * np.float32(0.584702909)).astype(np.float32)
        y = z["y"]
    np.savez(tmp_path / "test.npz", x=x, y=y)
    np.savez(tmp_path / "calibration.npz", x=x[::10], y=y[::10])
    result = invoke(
        *("compress", DATA / "models" / "kws_float32.tflite", "--data", tmp_path / "calibration.npz"),
        *("--eval-data", tmp_path / "test.npz", "-o", tmp_path / "out", "--json"),
    )
    report = json.loads(result.stdout)
    assert report["before"]["value"] == 0.915
    assert report["after"]["value"] >= 0.905
    assert abs(onnx_accuracy(tmp_path / "out" / "model.onnx", x, y) - report["after"]["value"]) <= 0.01
