"""The teacher: what it says joins the loss, and its residual sums are compared where pruning left them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")

from test_prune import depthwise_separable  # noqa: E402
from torch_networks import ResNet8, randomized  # noqa: E402

from tinydeploy.errors import DeployError  # noqa: E402
from tinydeploy.finetune import TrainOptions, finetune  # noqa: E402
from tinydeploy.finetune.teacher import Teacher, relative_distance, shared_features  # noqa: E402
from tinydeploy.frontends.torch import import_module  # noqa: E402
from tinydeploy.ir.graph import Graph  # noqa: E402
from tinydeploy.ir.types import constant  # noqa: E402
from tinydeploy.ops import Add  # noqa: E402
from tinydeploy.prune import find_groups, importance, remove, select_by_ratio  # noqa: E402
from tinydeploy.prune.select import SelectOptions  # noqa: E402
from tinydeploy.trainable import make_trainable  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

OPTIONS = TrainOptions(epochs=6, batch_size=16, learning_rate=1e-2, device="cpu", distill_weight=0.0)


@pytest.fixture(scope="module")
def whole() -> Graph:
    torch.set_num_threads(1)
    return import_module(randomized(ResNet8(), 0), (1, 3, 16, 16))


def half(graph: Graph, *, residual: bool) -> Graph:
    """With half of the channels: inside the blocks alone, or with those that sums share."""
    sums = () if residual else tuple(n.name for n in graph.nodes if isinstance(n.op, Add))
    groups = find_groups(graph, sums)
    ratios = {g.name: 0.5 for g in groups.groups}
    return remove(
        graph, groups, select_by_ratio(groups, importance(graph, groups, "l2"), ratios, SelectOptions(2))
    )


def sums(graph: Graph) -> list[str]:
    return [n.outputs[0] for n in graph.nodes if isinstance(n.op, Add)]


def features(graph: Graph, x: Any, names: tuple[str, ...]) -> list[Any]:
    with torch.no_grad():
        values = make_trainable(graph).eval().values(torch.from_numpy(x))
    return [values[name] for name in names]


def test_the_last_two_stages_are_compared_where_their_channels_stayed(whole: Graph) -> None:
    inside = half(whole, residual=False)
    assert len(sums(whole)) == 3
    assert shared_features(whole, inside) == tuple(sums(whole)[1:])
    assert shared_features(whole, half(whole, residual=True)) == ()


@pytest.mark.parametrize("constant_operand", [False, True])
def test_the_last_block_at_a_resolution_is_compared_and_no_sum_with_a_constant(
    whole: Graph, constant_operand: bool
) -> None:
    # Twice the network's last sum, as a second block without weights would be; or that and a constant.
    node = next(n for n in whole.nodes if n.outputs[0] == sums(whole)[-1])
    before, name = whole.value(node.outputs[0]), "again"
    offset = constant("offset", np.ones(before.shape, np.float32))
    other = offset.name if constant_operand else before.name
    again = dataclasses.replace(node, name=name, inputs=(before.name, other), outputs=(name,))
    place = whole.nodes.index(node) + 1
    nodes = (*whole.nodes[:place], again, *whole.nodes[place:])
    values = {**whole.values, name: dataclasses.replace(before, name=name), offset.name: offset}
    deeper = dataclasses.replace(whole, nodes=nodes, values=values)
    last = before.name if constant_operand else name
    assert shared_features(deeper, deeper) == (sums(whole)[1], last)


def test_a_network_without_whole_sums_is_refused_by_name(whole: Graph) -> None:
    options = dataclasses.replace(OPTIONS, feature_weight=1.0)
    for teacher, student in ((whole, half(whole, residual=True)), (depthwise_separable(),) * 2):
        with pytest.raises(DeployError, match="--protect-residual"):
            Teacher(teacher, student, options)
        assert Teacher(teacher, student, OPTIONS).features == ()


def test_the_distance_is_relative_to_what_the_teacher_sees() -> None:
    b = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert relative_distance(b, b) == 0.0
    assert float(relative_distance(torch.zeros_like(b), b)) == pytest.approx(1.0)
    for scale in (1e-3, 1e3):
        assert float(relative_distance(scale * 1.5 * b, scale * b)) == pytest.approx(0.25, rel=1e-5)
    nothing = torch.zeros_like(b)
    assert torch.isfinite(relative_distance(b, nothing))


def test_training_draws_the_sums_to_those_of_the_teacher(whole: Graph) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 1, 16, 16, 3)).astype(np.float32)
    # No label says anything, and the logits of the teacher are not listened to.
    y = np.zeros(96, np.int64)
    student = half(whole, residual=False)
    names = shared_features(whole, student)
    distances = {}
    for weight in (0.0, 4.0):
        module = make_trainable(student)
        options = dataclasses.replace(OPTIONS, distill_from=whole, feature_weight=weight)
        finetune(module, x, y, options)
        pairs = zip(features(module.to_graph(), x, names), features(whole, x, names), strict=True)
        distances[weight] = [float(relative_distance(a, b)) for a, b in pairs]
    for with_it, without in zip(distances[4.0], distances[0.0], strict=True):
        assert with_it < 0.5 * without


@pytest.mark.parametrize("weight", [-1.0, float("inf"), float("nan")])
def test_weights_of_features_that_make_no_sense_are_refused(weight: float) -> None:
    with pytest.raises(DeployError, match="weight of features"):
        dataclasses.replace(OPTIONS, feature_weight=weight).check()
