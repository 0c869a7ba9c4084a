"""PyTorch networks all the way on the command line: compress with pruning, both files, C, the core."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

torch = pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")

from interpreters import run_micro  # noqa: E402
from onnx_nodes import nodes_alone, source_order  # noqa: E402
from torch_networks import NETWORKS, randomized  # noqa: E402

from tinydeploy import api  # noqa: E402
from tinydeploy.cli.main import cli  # noqa: E402
from tinydeploy.engine import run, run_all  # noqa: E402

pytestmark = pytest.mark.slow

PATHS = ("resnet8", "ds_cnn", "mobilenet_v1", "inception", "sequence")
"""Residuals; depthwise and softmax; many layers; concatenation and grouped convolution; one dimension."""

FILES = ("model.onnx", "model.tflite")
DIVISOR = {"inception": 2}
"""Its layers are so narrow that a quarter of them is less than four channels."""

SAMPLES = 24


@dataclass(frozen=True)
class Compressed:
    """What `compress` wrote for a network, and NCHW samples that were not calibrated on."""

    name: str
    folder: Path
    report: dict[str, Any]
    x: Any


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def document(*arguments: str | Path) -> Any:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module", params=PATHS)
def compressed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Compressed]:
    """A quarter of the channels pruned, an epoch of training, int8; the labels are the network's own."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp(request.param)
    network: Any = NETWORKS[request.param]
    module = randomized(network())
    save_file(module.state_dict(), folder / "weights.safetensors")
    x = (
        np.random.default_rng(1)
        .normal(0, 1, (2 * SAMPLES, *network.example_input_shape[1:]))
        .astype(np.float32)
    )
    with torch.no_grad():
        y = module(torch.from_numpy(x)).argmax(dim=1).numpy()
    np.savez(folder / "train.npz", x=x[:SAMPLES], y=y[:SAMPLES])
    np.savez(folder / "test.npz", x=x[SAMPLES:], y=y[SAMPLES:])
    report = document(
        *("compress", f"torch_networks:{network.__name__}", "--weights", folder / "weights.safetensors"),
        *("--data", folder / "train.npz", "--eval-data", folder / "test.npz", "-o", folder / "out"),
        *("--prune", "0.25", "--prune-divisor", str(DIVISOR.get(request.param, 4))),
        *("--finetune-epochs", "1", "--batch-size", "8", "--learning-rate", "0.0001"),
    )
    yield Compressed(request.param, folder / "out", report, x[SAMPLES:])


def test_compress_prunes_every_network_and_writes_both_files(compressed: Compressed) -> None:
    report = compressed.report
    assert {p.name for p in compressed.folder.iterdir()} == {*FILES, "report.json"}
    assert [s["name"] for s in report["stages"]] == ["float", "pruned", "int8"]
    assert report["before"]["value"] == 1.0
    assert report["after"]["macs"] < 0.9 * report["before"]["macs"]
    assert report["after"]["weights_bytes"] < 0.3 * report["before"]["weights_bytes"]
    assert any(g["after"] < g["before"] for g in report["prune"]["groups"])


@pytest.mark.parametrize("file", FILES)
def test_verify_finds_no_mismatch_on_the_core(compressed: Compressed, file: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=compressed.x[:1])
    found = document(
        *("verify", compressed.folder / file, "--target", "cortex-m4", "--inputs", tmp_path / "x.npz")
    )
    assert found["ok"]
    assert found["mismatches"] == 0
    assert found["samples"] == 1
    assert found["float_symbols"] == []


def test_export_c_gives_the_same_weights_from_either_file(compressed: Compressed, tmp_path: Path) -> None:
    texts = []
    for file in FILES:
        folder = tmp_path / file
        result = invoke(
            "export-c", compressed.folder / file, "--target", "cortex-m4", "--name", "m", "-o", folder
        )
        assert result.exit_code == 0, result.output
        lines = (folder / "m_weights.c").read_text(encoding="ascii").splitlines()
        texts.append([line for line in lines if "model sha256" not in line])
    assert texts[0] == texts[1]
    assert len(texts[0]) > 100


def test_diff_finds_no_element_that_differs_between_the_files(compressed: Compressed, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=compressed.x[:4])
    found = document("diff", *(compressed.folder / f for f in FILES), "--data", tmp_path / "x.npz")
    assert found["same"]
    assert [layer["differing"] for layer in found["layers"]] == [0] * len(found["layers"])
    assert found["only_a"] == found["only_b"] == []


def test_micro_agrees_with_the_engine_on_every_element(compressed: Compressed) -> None:
    graph = api.load_model(compressed.folder / "model.tflite").graph
    value, border = graph.value(graph.inputs[0]), graph.input_borders[0]
    assert border.layout is not None
    assert border.layout.shape == (1, *compressed.x.shape[1:])
    held = np.random.default_rng(2).integers(-128, 128, (4, *value.shape)).astype(np.int8)
    (ours,) = run(graph, [held])
    source = border.layout.to_source(held)
    (theirs,) = run_micro((compressed.folder / "model.tflite").read_bytes(), [source])
    assert np.array_equal(theirs.reshape(ours.shape), ours)


@pytest.mark.parametrize("optimize", [True, False], ids=["optimized", "plain"])
def test_each_node_of_the_exported_onnx_is_within_one_step_of_the_engine(
    compressed: Compressed, optimize: bool
) -> None:
    graph = api.load_model(compressed.folder / "model.onnx").graph
    x = np.random.default_rng(3).integers(-128, 128, (2, *graph.value(graph.inputs[0]).shape)).astype(np.int8)
    values = source_order(graph, run_all(graph, [x]))
    exported = onnx.load(compressed.folder / "model.onnx")
    checked = 0
    for alone in nodes_alone(exported):
        theirs = alone.run(values, optimize=optimize)
        steps = np.abs(theirs.astype(int) - values[alone.output].astype(int)).max()
        assert steps <= 1, f"{alone.output}: {steps} steps"
        checked += 1
    assert checked >= len(graph.nodes) - 1
