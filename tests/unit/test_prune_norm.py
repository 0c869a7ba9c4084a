"""Batch-norm scales outlive folding, and rank channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx_models import model, read

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.verify import verify
from tinydeploy.model import load_model
from tinydeploy.prune import find_groups, importance, remove, select_by_ratio
from tinydeploy.prune.select import SelectOptions
from tinydeploy.quantize import QuantizeOptions, quantize

FLOAT_TFLITE = Path(__file__).resolve().parents[2] / "fixtures" / "digits" / "digits_float.tflite"
GAMMA = np.array([0.9, -0.05, 1.2, 0.01, -2.0, 0.4, 0.03, 0.7], np.float32)
SMALLEST = {1, 3, 6}


def onnx_network(*, folds: bool = True, norms: bool = True) -> Graph:
    """Convolution, batch norm, RELU, and a convolution as the head; or the RELU before the batch norm."""
    rng = np.random.default_rng(3)
    constants: dict[str, Any] = {
        "w": rng.normal(0, 1, (8, 3, 3, 3)).astype(np.float32),
        "gamma": GAMMA,
        "beta": rng.normal(0, 1, 8).astype(np.float32),
        "mean": rng.normal(0, 1, 8).astype(np.float32),
        "var": rng.uniform(0.5, 1.5, 8).astype(np.float32),
        "head": rng.normal(0, 1, (2, 8, 1, 1)).astype(np.float32),
    }
    norm = helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["n"])
    middle = [norm, helper.make_node("Relu", ["n"], ["r"])]
    if not folds:
        norm.input[0], norm.output[0] = "a", "r"
        middle = [helper.make_node("Relu", ["c"], ["a"]), norm]
    if not norms:
        middle = [helper.make_node("Relu", ["c"], ["r"])]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        *middle,
        helper.make_node("Conv", ["r", "head"], ["y"]),
    ]
    return read(model(nodes, {"x": (1, 3, 6, 6)}, ["y"], constants))


def torch_network(*, folds: bool = True) -> Graph:
    torch = pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
    from torch_networks import randomized

    from tinydeploy.frontends.torch import import_module

    nn = torch.nn
    norm = nn.BatchNorm2d(8)
    parts = (norm, nn.ReLU()) if folds else (nn.ReLU(), norm)
    network = randomized(nn.Sequential(nn.Conv2d(3, 8, 3), *parts, nn.Conv2d(8, 2, 1)))
    with torch.no_grad():
        norm.weight.copy_(torch.from_numpy(GAMMA))
    return import_module(network, (1, 3, 6, 6))


def removed_channels(graph: Graph, ratio: float) -> set[int]:
    groups = find_groups(graph)
    scores = importance(graph, groups, "bn")
    removed = select_by_ratio(groups, scores, ratio, SelectOptions(divisor=1))
    first = groups.groups[0].name
    return {
        i for g in groups.groups for c in g.channels if c.root in removed for n, i in c.outputs if n == first
    }


@pytest.mark.parametrize("network", [onnx_network, torch_network])
@pytest.mark.parametrize("folds", [True, False])
def test_the_channels_with_the_smallest_scales_go(network: Any, folds: bool) -> None:
    graph = network(folds=folds)
    (name,) = graph.norm_scales
    node = next(n for n in graph.nodes if n.name == name)
    assert (node is graph.nodes[0]) == folds
    np.testing.assert_array_equal(graph.norm_scales[name], GAMMA)
    assert removed_channels(graph, 3 / 8) == SMALLEST


def test_scales_are_narrowed_with_their_channels_and_survive_quantization() -> None:
    graph = onnx_network()
    groups = find_groups(graph)
    removed = select_by_ratio(groups, importance(graph, groups, "bn"), 3 / 8, SelectOptions(divisor=1))
    smaller = remove(graph, groups, removed)
    (scale,) = smaller.norm_scales.values()
    np.testing.assert_allclose(scale, [0.9, 1.2, -2.0, 0.4, 0.7])
    assert removed_channels(smaller, 1 / 5) == {3}
    x = np.random.default_rng(0).normal(0, 1, (4, *graph.value(graph.inputs[0]).shape)).astype(np.float32)
    verify(quantize(smaller, [x], QuantizeOptions()))


def test_tied_channels_have_the_mean_of_their_scales() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
    from torch_networks import ResNet8, randomized

    from tinydeploy.frontends.torch import import_module

    network = randomized(ResNet8(8))
    graph = import_module(network, ResNet8.example_input_shape)
    groups = find_groups(graph)
    scores = importance(graph, groups, "bn")
    stem = groups.groups[0]
    # The stem's stream is written by the stem and by the second convolution of the first block.
    stem_norm, block_norm = network.stem[1].weight, network.blocks[0].body[2].weight
    expected = (stem_norm.abs() + block_norm.abs()).detach().numpy() / 2
    assert isinstance(stem_norm, torch.nn.Parameter)
    np.testing.assert_allclose([scores[c.root] for c in stem.channels], expected, rtol=1e-6)


@pytest.mark.parametrize("source", ["onnx", "tflite"])
def test_a_model_without_batch_norms_says_so(source: str) -> None:
    graph = onnx_network(norms=False) if source == "onnx" else load_model(FLOAT_TFLITE).graph
    with pytest.raises(DeployError, match="no batch norm") as error:
        importance(graph, find_groups(graph), "bn")
    assert "--importance" in str(error.value)


def test_a_group_without_a_batch_norm_is_named() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
    from torch_networks import conv_bn, randomized

    from tinydeploy.frontends.torch import import_module

    network = torch.nn.Sequential(conv_bn(3, 8), torch.nn.Conv2d(8, 8, 3), torch.nn.Conv2d(8, 2, 1))
    graph = import_module(randomized(network), (1, 3, 6, 6))
    bare = graph.nodes[1].name
    with pytest.raises(DeployError, match=repr(bare)):
        importance(graph, find_groups(graph), "bn")
    groups = find_groups(graph, protected=[bare])
    assert len(importance(graph, groups, "bn")) == 8
