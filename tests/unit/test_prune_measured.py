"""Statistics kept after a removal, channels chosen by the loss, and how epochs are shared out."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from graphs import random_inputs

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")]

torch = pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")

from torch_networks import Inception, randomized  # noqa: E402

from tinydeploy.compression import CompressOptions, Inputs, compress  # noqa: E402
from tinydeploy.compression.pruning import PruneOptions  # noqa: E402
from tinydeploy.data import Samples  # noqa: E402
from tinydeploy.engine import run  # noqa: E402
from tinydeploy.errors import DeployError  # noqa: E402
from tinydeploy.finetune.recalibrate import StatisticsKeeper  # noqa: E402
from tinydeploy.frontends.torch import import_module  # noqa: E402
from tinydeploy.ir.graph import Graph  # noqa: E402
from tinydeploy.ir.types import constant  # noqa: E402
from tinydeploy.ir.verify import graph_macs  # noqa: E402
from tinydeploy.ops import Conv2D  # noqa: E402
from tinydeploy.prune import find_groups, importance, remove, select_by_ratio  # noqa: E402
from tinydeploy.prune.goal import PruneGoal  # noqa: E402
from tinydeploy.prune.groups import kept_channels  # noqa: E402
from tinydeploy.prune.measured import select_by_loss  # noqa: E402
from tinydeploy.prune.select import SelectOptions  # noqa: E402


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.set_num_threads(1)
    return import_module(randomized(Inception(), 0), (1, 3, 16, 16))


@pytest.fixture(scope="module")
def data(graph: Graph) -> tuple[Any, Any]:
    x = random_inputs(graph, 64)[0].astype(np.float32)
    y: Any = run(graph, [x])[0].reshape(len(x), -1).argmax(1)
    return x, y


def activations(graph: Graph, x: Any) -> dict[str, Any]:
    """The outputs of the convolutions before their activations, by layer."""
    bare = tuple(
        dataclasses.replace(n, op=dataclasses.replace(n.op, activation=type(n.op.activation).NONE))
        if isinstance(n.op, Conv2D)
        else n
        for n in graph.nodes
    )
    first = next(n for n in bare if isinstance(n.op, Conv2D))
    cut = dataclasses.replace(graph, nodes=(first,), outputs=(first.outputs[0],))
    return {first.name: run(cut, [x])[0]}


def test_without_a_removal_nothing_changes(graph: Graph, data: tuple[Any, Any]) -> None:
    keeper = StatisticsKeeper(graph, *data)
    same = keeper.mend(graph, kept_channels(find_groups(graph), frozenset()))
    np.testing.assert_allclose(run(same, [data[0]])[0], run(graph, [data[0]])[0], atol=1e-3, rtol=1e-3)


def test_the_channels_that_stay_get_mean_and_deviation_back(graph: Graph, data: tuple[Any, Any]) -> None:
    """The first convolution is spoilt by a factor of its weights, which is what a removal before it does."""
    first = next(n for n in graph.nodes if isinstance(n.op, Conv2D))
    weights = str(first.inputs[1])
    values = {**graph.values, weights: constant(weights, graph.value(weights).array * np.float32(0.25))}
    spoilt = dataclasses.replace(graph, values=values)
    groups = find_groups(graph)
    mended = StatisticsKeeper(graph, *data).mend(spoilt, kept_channels(groups, frozenset()))
    wanted, found = activations(graph, data[0])[first.name], activations(mended, data[0])[first.name]
    axes = tuple(range(wanted.ndim - 1))
    np.testing.assert_allclose(found.mean(axes), wanted.mean(axes), atol=1e-3, rtol=1e-3)
    np.testing.assert_allclose(found.std(axes), wanted.std(axes), atol=1e-3, rtol=1e-2)


def test_mending_lowers_the_loss(graph: Graph, data: tuple[Any, Any]) -> None:
    groups = find_groups(graph)
    removed = select_by_ratio(groups, importance(graph, groups, "l2"), 0.5)
    smaller = remove(graph, groups, removed)
    keeper = StatisticsKeeper(graph, *data)
    kept = kept_channels(groups, removed)
    x, y = data

    def loss(g: Graph) -> float:
        p = run(g, [x])[0].reshape(len(x), -1)
        p = p if graph.nodes[-1].op.kind == "SOFTMAX" else np.exp(p) / np.exp(p).sum(1, keepdims=True)
        return float(-np.log(np.maximum(p[np.arange(len(y)), y], 1e-9)).mean())

    mended = keeper.mend(smaller, kept)
    assert keeper.loss(smaller, kept) == pytest.approx(loss(mended), rel=0.02)
    assert loss(mended) < loss(smaller)


def test_the_cheapest_loss_for_what_it_saves_goes_first(graph: Graph) -> None:
    """With a loss that knows one group only, that group stays whole as long as another has channels."""
    groups = find_groups(graph)
    precious = groups.groups[0]

    def loss(smaller: Graph, kept: Any) -> float:
        node = next(n for n in graph.nodes if n.name == precious.name)
        return float(-len(kept[node.outputs[0]]))

    scores = importance(graph, groups, "l2")
    options = SelectOptions(divisor=1)
    goal = 0.8 * graph_macs(graph)
    removed = select_by_loss(graph, groups, scores, goal, graph_macs, loss, options)
    assert graph_macs(remove(graph, groups, removed)) <= goal
    assert not removed & {c.root for c in precious.channels}
    with pytest.raises(DeployError, match="smallest allowed"):
        select_by_loss(graph, groups, scores, 1.0, graph_macs, loss, options)


def options(**changes: Any) -> CompressOptions:
    prune = PruneOptions(
        steps=changes.pop("steps", 1), select=SelectOptions(divisor=1, scope=changes.pop("scope", None))
    )
    return CompressOptions(goal=PruneGoal("macs", 0.6), prune=prune, calibration_samples=16, **changes)


def inputs(graph: Graph, data: tuple[Any, Any]) -> Inputs:
    samples = Samples((data[0],), data[1], ())
    return Inputs(graph, samples, samples, "inception", "cortex-m4", None, lambda g: 0)


def test_all_epochs_together_are_those_that_were_asked_for(graph: Graph, data: tuple[Any, Any]) -> None:
    seen: list[str] = []
    given = options(steps=3, scope="measured", finetune_epochs=5, warmup_epochs=2, distill=True)
    result = compress(inputs(graph, data), given, progress=lambda what, *_: seen.append(what))
    assert sum(w.startswith("training: epoch") for w in dict.fromkeys(seen)) >= 5
    assert any(w.startswith("measuring what") for w in seen)
    assert result.stages[-1].macs <= 0.6 * result.stages[0].macs
    assert result.to_json()["warmup_epochs"] == 2


def test_more_epochs_of_pruning_than_in_all_are_refused(graph: Graph, data: tuple[Any, Any]) -> None:
    with pytest.raises(DeployError, match="more than --finetune-epochs 3"):
        compress(inputs(graph, data), options(steps=3, finetune_epochs=3, warmup_epochs=2))


def test_measuring_needs_labels_and_a_goal_that_it_can_count(graph: Graph, data: tuple[Any, Any]) -> None:
    given = inputs(graph, data)
    bare = dataclasses.replace(given, training=Samples((data[0],), None, ()))
    with pytest.raises(DeployError, match="labels"):
        compress(bare, options(scope="measured"))
    by_ratio = dataclasses.replace(options(scope="measured"), goal=PruneGoal("ratio", 0.3))
    with pytest.raises(DeployError, match="goals in macs"):
        compress(given, by_ratio)


def test_products_in_bfloat16_train_as_well(graph: Graph, data: tuple[Any, Any]) -> None:
    from tinydeploy.finetune import TrainOptions, finetune
    from tinydeploy.trainable import make_trainable

    losses = {}
    for precision in ("float32", "bfloat16"):
        train = TrainOptions(epochs=3, batch_size=16, learning_rate=2e-2, device="cpu", precision=precision)  # type: ignore[arg-type]
        trainable = make_trainable(graph)
        losses[precision] = finetune(trainable, *data, train).epochs[-1].loss
        assert all(p.dtype == torch.float32 for p in trainable.parameters())
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.1)
    assert losses["bfloat16"] != losses["float32"]
