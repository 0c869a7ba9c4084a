"""Networks from PyTorch all the way: imported, pruned, quantized, written, read again, proved on the core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")

from interpreters import run_micro  # noqa: E402
from torch_networks import NETWORKS, randomized  # noqa: E402

from tinydeploy import api  # noqa: E402
from tinydeploy.backends.onnx import write_onnx  # noqa: E402
from tinydeploy.backends.tflite import write_tflite  # noqa: E402
from tinydeploy.engine import run  # noqa: E402
from tinydeploy.frontends.torch import import_module  # noqa: E402
from tinydeploy.ir.graph import Graph  # noqa: E402
from tinydeploy.prune import find_groups, importance, remove, select_by_ratio  # noqa: E402
from tinydeploy.quantize import quantize  # noqa: E402

pytestmark = pytest.mark.slow

PATHS = ("resnet8", "ds_cnn", "mobilenet_v1", "inception")


def pruned_int8(name: str) -> Graph:
    """A seeded network with a quarter of its channels gone, calibrated on noise."""
    torch.manual_seed(0)
    network: Any = NETWORKS[name]
    graph = import_module(randomized(network()), network.example_input_shape, name)
    groups = find_groups(graph)
    removed = select_by_ratio(groups, importance(graph, groups, "l2"), 0.25)
    smaller = remove(graph, groups, removed)
    value = smaller.value(smaller.inputs[0])
    x = np.random.default_rng(1).normal(0, 1, (16, *value.shape)).astype(np.float32)
    return quantize(smaller, [x])


@pytest.mark.parametrize("name", PATHS)
def test_both_files_are_proved_on_the_core(name: str, tmp_path: Path) -> None:
    graph = pruned_int8(name)
    x = np.random.default_rng(2).integers(-128, 128, (4, *graph.value(graph.inputs[0]).shape)).astype(np.int8)
    (expected,) = run(graph, [x])
    (tmp_path / "model.onnx").write_bytes(write_onnx(graph))
    (tmp_path / "model.tflite").write_bytes(write_tflite(graph))
    for file in ("model.onnx", "model.tflite"):
        model = api.load_model(tmp_path / file)
        (y,) = run(model.graph, [x.reshape(-1, *model.graph.value(model.graph.inputs[0]).shape)])
        assert np.array_equal(y.reshape(expected.shape), expected)
        assert api.verify(model, "cortex-m4").ok
    (micro,) = run_micro((tmp_path / "model.tflite").read_bytes(), [x])
    assert np.array_equal(np.asarray(micro).reshape(expected.shape), expected)
