"""Batch normalization put back for training, and folded away after it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import random_inputs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]

torch = pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
pytest.importorskip("safetensors", reason="safetensors (the extra train) is not installed")

from torch_networks import NETWORKS, Inception, randomized  # noqa: E402

from tinydeploy.engine import run  # noqa: E402
from tinydeploy.finetune import TrainOptions, finetune  # noqa: E402
from tinydeploy.frontends.torch import import_module  # noqa: E402
from tinydeploy.ir.graph import Graph  # noqa: E402
from tinydeploy.trainable import make_trainable  # noqa: E402
from tinydeploy.trainable.normalization import normalized_nodes  # noqa: E402

OPTIONS = TrainOptions(epochs=3, batch_size=16, learning_rate=2e-2, device="cpu")


class StopError(Exception):
    """What the user's keyboard does."""


def inception() -> Graph:
    return import_module(randomized(Inception(), 0), (1, 3, 16, 16))


def data(graph: Graph, samples: int = 64) -> tuple[Any, Any]:
    x = random_inputs(graph, samples)[0].astype(np.float32)
    return x, np.random.default_rng(1).integers(0, 4, samples)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_putting_it_in_changes_nothing_on_the_samples_that_set_it(name: str) -> None:
    network: Any = NETWORKS[name]
    graph = import_module(randomized(network(), 0), network.example_input_shape)
    x = random_inputs(graph, 8)[0].astype(np.float32)
    trainable = make_trainable(graph).train()
    trainable.normalize(torch.from_numpy(x))
    assert len(trainable.norms) > 0
    with torch.no_grad():
        y = trainable(torch.from_numpy(x))[0].numpy()
    np.testing.assert_allclose(y, run(graph, [x])[0], atol=1e-3, rtol=1e-3)
    assert [v.shape for v in trainable.to_graph().constants()] == [v.shape for v in graph.constants()]


def test_folded_it_is_what_evaluation_mode_computes() -> None:
    graph = inception()
    x, y = data(graph)
    trainable = make_trainable(graph)
    finetune(trainable, x, y, OPTIONS)
    with torch.no_grad():
        expected = trainable(torch.from_numpy(x))[0].numpy()
    np.testing.assert_allclose(run(trainable.to_graph(), [x])[0], expected, atol=1e-4, rtol=1e-3)


def test_every_convolution_has_one_but_the_last_layer_has_none() -> None:
    graph = inception()
    convolutions = {n.name for n in graph.nodes if n.op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D")}
    assert {n.name for n in normalized_nodes(graph, graph.outputs[0])} == convolutions
    last = next(n for n in graph.nodes if n.name in convolutions)
    assert last.name not in {n.name for n in normalized_nodes(graph, last.outputs[0])}


def test_weights_that_two_layers_share_are_left_alone() -> None:
    graph = inception()
    a, b = [n for n in graph.nodes if n.op.kind == "CONV_2D"][:2]
    shared = tuple(
        dataclasses.replace(n, inputs=(n.inputs[0], n.inputs[1], a.inputs[2])) if n is b else n
        for n in graph.nodes
    )
    names = {n.name for n in normalized_nodes(dataclasses.replace(graph, nodes=shared), graph.outputs[0])}
    assert a.name not in names and b.name not in names


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    graph = inception()
    x, y = data(graph)
    whole = make_trainable(graph)
    finetune(whole, x, y, OPTIONS)

    def stop(p: Any) -> None:
        if p.epoch == 2:
            raise StopError

    options = dataclasses.replace(OPTIONS, checkpoint=tmp_path / "c.safetensors")
    with pytest.raises(StopError):
        finetune(make_trainable(graph), x, y, options, stop)
    resumed = make_trainable(graph)
    assert finetune(resumed, x, y, options).resumed == 1
    for a, b in zip(whole.to_graph().constants(), resumed.to_graph().constants(), strict=True):
        np.testing.assert_array_equal(a.array, b.array)
