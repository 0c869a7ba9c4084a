"""Data stays in the source model's NCHW: model, exports, evaluate and verify take it; the C is NHWC."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from interpreters import run_micro
from onnx import helper
from onnx_models import model, run_onnx
from sweeps import thinned

from tinydeploy import api
from tinydeploy.cli.main import cli
from tinydeploy.engine import run

SHAPE = (3, 10, 6)
"""Channels, rows, columns: all different, so that no mix-up goes unseen."""

HELD = (1, 10, 6, 3)
EXPORTS = ("model.onnx", "model.tflite")


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def document(*arguments: str | Path) -> Any:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def weights(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def onnx_source(folder: Path, *, image_out: bool) -> Path:
    """Two convolutions, then a classifier of 4 classes, or the image itself."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], name="c1"),
        helper.make_node("Relu", ["c1"], ["r1"], name="r1"),
        helper.make_node("Conv", ["r1", "w2"], ["y" if image_out else "c2"], strides=[2, 2], name="c2"),
    ]
    constants = {"w1": weights(1, 8, 3, 3, 3), "b1": weights(2, 8), "w2": weights(3, 6, 8, 1, 1)}
    if not image_out:
        nodes += [
            helper.make_node("Flatten", ["c2"], ["f"], name="f"),
            helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], transB=1, name="l"),
        ]
        constants |= {"w3": weights(4, 4, 90), "b3": weights(5, 4)}
    path = folder / "net.onnx"
    path.write_bytes(model(nodes, {"x": ("N", *SHAPE)}, ["y"], constants))
    return path


def torch_source(folder: Path, *, image_out: bool) -> Path:
    """The same in PyTorch with batch norm, as a .pt2 file."""
    torch = pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
    from torch_networks import conv_bn, randomized

    tail = [] if image_out else [torch.nn.Flatten(), torch.nn.Linear(90, 4)]
    network = torch.nn.Sequential(conv_bn(3, 8), torch.nn.Conv2d(8, 6, 1, 2), *tail)
    with torch.no_grad():
        exported = torch.export.export(randomized(network), (torch.zeros(1, *SHAPE),))
    path = folder / "net.pt2"
    torch.export.save(exported, path)
    return path


@dataclass(frozen=True)
class Case:
    """A float model with 24 samples in NCHW, and the folder that compress wrote."""

    source: Path
    data: Path
    x: Any
    out: Path


def compressed(make: Any, folder: Path, *, image_out: bool) -> Case:
    source = make(folder, image_out=image_out)
    x = np.random.default_rng(6).normal(0, 1, (24, *SHAPE)).astype(np.float32)
    y = np.random.default_rng(7).integers(0, 4, 24)
    data, out = folder / "data.npz", folder / "out"
    np.savez(data, x=x) if image_out else np.savez(data, x=x, y=y)
    result = invoke("compress", source, "--data", data, "-o", out)
    assert result.exit_code == 0, result.output
    return Case(source, data, x, out)


@pytest.fixture(scope="module", params=[onnx_source, torch_source], ids=["onnx", "pytorch"])
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return compressed(request.param, tmp_path_factory.mktemp("classifier"), image_out=False)


@pytest.fixture(scope="module", params=[onnx_source, torch_source], ids=["onnx", "pytorch"])
def imager(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return compressed(request.param, tmp_path_factory.mktemp("imager"), image_out=True)


def quantized(case: Case, name: str) -> Any:
    """x as int8 in NCHW, by the scale that the file states."""
    graph = api.load_model(case.out / name).graph
    quant = graph.value(graph.inputs[0]).quant
    q = np.round(case.x.astype(np.float64) / quant.scale) + quant.zero_point
    return np.clip(q, -128, 127).astype(np.int8)[:, None]


def in_c_order(x: Any) -> Any:
    """(samples, 1, C, H, W) as (samples, 1, H, W, C), by hand."""
    return np.ascontiguousarray(np.moveaxis(x, 2, -1))


def shown(case: Case, name: str, end: str) -> tuple[int, ...]:
    """The shape that the file itself states for its input or output."""
    if name.endswith(".onnx"):
        value = getattr(onnx.load(case.out / name).graph, end)[0]
        return tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    subgraph = schema.Model.GetRootAs((case.out / name).read_bytes(), 0).Subgraphs(0)
    number = subgraph.Inputs(0) if end == "input" else subgraph.Outputs(0)
    return tuple(subgraph.Tensors(number).ShapeAsNumpy().tolist())


@pytest.mark.parametrize("name", EXPORTS)
def test_the_exported_file_takes_nchw(classifier: Case, name: str) -> None:
    assert shown(classifier, name, "input") == (1, *SHAPE)


@pytest.mark.parametrize("name", EXPORTS)
def test_the_exported_file_gives_an_image_in_nchw(imager: Case, name: str) -> None:
    assert shown(imager, name, "output") == (1, 6, 5, 3)


@pytest.mark.parametrize("name", EXPORTS)
def test_no_transposition_remains_and_inspect_prints_the_count(imager: Case, name: str) -> None:
    text = invoke("inspect", imager.out / name).stdout
    assert "transpositions: 0 between layers, 2 at the borders" in text
    assert "1x3x10x6 NCHW in the source model" in text
    assert document("inspect", imager.out / name)["transposes"] == {"layers": 0, "borders": 2}


def test_micro_agrees_with_the_engine_on_every_element(classifier: Case, imager: Case) -> None:
    for case in (classifier, imager):
        x = quantized(case, "model.tflite")
        graph = api.load_model(case.out / "model.tflite").graph
        (ours,) = run(graph, [in_c_order(x)])
        (theirs,) = run_micro((case.out / "model.tflite").read_bytes(), [x])
        back = np.moveaxis(ours, -1, 2) if ours.ndim == 5 else ours
        assert np.array_equal(back, theirs.reshape(back.shape))


def test_onnx_runtime_takes_the_same_x(classifier: Case) -> None:
    """One step a node adds up to few over four nodes; another order of axes gives noise."""
    x = quantized(classifier, "model.onnx")
    graph = api.load_model(classifier.out / "model.onnx").graph
    (ours,), (theirs,) = (
        run(graph, [in_c_order(x)]),
        run_onnx((classifier.out / "model.onnx").read_bytes(), [x]),
    )
    assert np.abs(ours.astype(int) - theirs.reshape(ours.shape)).max() <= 4


def test_evaluate_of_the_source_takes_nchw(classifier: Case) -> None:
    """The labels are what ONNX Runtime or PyTorch itself says of x: all are right."""
    if classifier.source.suffix == ".onnx":
        (scores,) = run_onnx(classifier.source.read_bytes(), [classifier.x[:, None]])
    else:
        torch = pytest.importorskip("torch")
        module = torch.export.load(classifier.source).module()
        with torch.no_grad():
            scores = np.stack([module(torch.from_numpy(x[None])).numpy() for x in classifier.x])
    labels = scores.reshape(24, 4).argmax(1)
    assert evaluated(classifier.source, classifier.x, labels) == 1.0


@pytest.mark.parametrize("name", EXPORTS)
def test_evaluate_of_an_export_takes_nchw(classifier: Case, name: str) -> None:
    graph = api.load_model(classifier.out / name).graph
    (scores,) = run(graph, [in_c_order(quantized(classifier, name))])
    labels = scores.reshape(24, 4).argmax(1)
    assert evaluated(classifier.out / name, classifier.x, labels) == 1.0


def evaluated(path: Path, x: Any, y: Any) -> float:
    data = path.with_name("labelled.npz")
    np.savez(data, x=x, y=y)
    return float(document("evaluate", path, "--data", data)["value"])


def test_data_in_nhwc_is_refused_with_the_shape_that_is_taken(classifier: Case, tmp_path: Path) -> None:
    data = tmp_path / "nhwc.npz"
    np.savez(data, x=classifier.x.transpose(0, 2, 3, 1), y=np.zeros(24, np.int64))
    for path in (classifier.source, *(classifier.out / name for name in EXPORTS)):
        result = invoke("evaluate", path, "--data", data)
        assert result.exit_code == 2
        assert "[samples, *[3, 10, 6]]" in result.stderr


@pytest.mark.parametrize("name", thinned(EXPORTS, 2))
def test_verify_takes_x_and_y_in_nchw(imager: Case, name: str, tmp_path: Path) -> None:
    """y comes from TensorFlow Lite Micro, which knows nothing of our layouts; one wrong element is found."""
    x = quantized(imager, name)[:2]
    (y,) = run_micro((imager.out / "model.tflite").read_bytes(), [x])
    data = tmp_path / "samples.npz"
    for wrong in (0, 1):
        changed = y.reshape(2, 1, 6, 5, 3).copy()
        changed[0, 0, 4, 3, 2] ^= wrong
        np.savez(data, x=imager.x[:2], y=changed)
        result = invoke("verify", imager.out / name, "--target", "cortex-m4", "--inputs", data, "--json")
        assert result.exit_code == wrong
        assert json.loads(result.stdout)["mismatches"] == wrong
        assert "compared with the engine and with y" in result.stderr


@pytest.mark.parametrize("name", EXPORTS)
def test_the_c_takes_nhwc_and_says_so(imager: Case, name: str, tmp_path: Path) -> None:
    assert invoke("export-c", imager.out / name, "--target", "cortex-m4", "--name", "m", "-o", tmp_path)
    header = (tmp_path / "m.h").read_text(encoding="ascii")
    assert "#define M_INPUT_SHAPE { 1, 10, 6, 3 }" in header
    assert '#define M_INPUT_LAYOUT "NHWC"' in header
    assert "/* 1x3x10x6 NCHW in the source model; 1x10x6x3 NHWC here. */" in header
    assert "#define M_OUTPUT_SHAPE { 1, 5, 3, 6 }" in header
    assert "/* 1x6x5x3 NCHW in the source model; 1x5x3x6 NHWC here. */" in header
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="ascii"))
    assert manifest["inputs"][0]["source_shape"] == [1, *SHAPE]
    assert manifest["inputs"][0]["shape"] == list(HELD)
