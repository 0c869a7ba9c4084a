"""Muon: orthogonal steps for weight matrices, Adam for the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")

from low_bit_cases import network, samples  # noqa: E402

from tinydeploy.engine import run  # noqa: E402
from tinydeploy.finetune import TrainOptions, finetune  # noqa: E402
from tinydeploy.finetune.muon import ADAM_SHARE, Muon, orthogonalized  # noqa: E402
from tinydeploy.finetune.optimizer import make_optimizer  # noqa: E402
from tinydeploy.trainable import make_trainable  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def matrix(rows: int, columns: int, values: list[float], seed: int = 0) -> Any:
    """With these singular values."""
    rng = np.random.default_rng(seed)
    u = np.linalg.qr(rng.normal(size=(rows, rows)))[0][:, : len(values)]
    v = np.linalg.qr(rng.normal(size=(columns, columns)))[0][:, : len(values)]
    return torch.tensor((u * values) @ v.T, dtype=torch.float32), torch.tensor(u @ v.T, dtype=torch.float32)


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (4, 27), (27, 4), (1, 9), (9, 1)])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_directions_stay_and_their_strengths_become_alike(rows: int, columns: int, scale: float) -> None:
    values = [scale * v for v in (1.0, 0.3, 0.05, 0.004)[: min(rows, columns)]]
    given, nearest = matrix(rows, columns, values)
    found = orthogonalized(given)
    strengths = torch.linalg.svdvals(found)
    assert strengths.min() >= 0.68 and strengths.max() <= 1.21
    # The same directions: the nearest orthogonal matrix is that of the input.
    along = torch.trace(found.T @ nearest) / (found.norm() * nearest.norm())
    assert along > 0.97


def test_no_gradient_is_no_direction() -> None:
    assert torch.equal(orthogonalized(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_a_step_is_as_long_as_the_rate_and_the_length_is_kept() -> None:
    p = torch.nn.Parameter(torch.full((4, 1, 3, 3), 0.5))
    free = torch.nn.Parameter(p.detach().clone())
    length = float(p.detach().norm())
    groups = [
        {"params": [p], "orthogonal": True, "length": length},
        {"params": [free], "orthogonal": True},
    ]
    optimizer = Muon(groups, 0.1)
    p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    free.grad = p.grad.clone()
    was = free.detach().clone()
    optimizer.step()
    assert float(p.detach().norm()) == pytest.approx(length)
    assert float((free.detach() - was).norm()) == pytest.approx(0.1, rel=0.25)
    assert float(((free.detach() - was) * free.grad).sum()) < 0.0


def test_everything_else_takes_the_steps_of_adam() -> None:
    given = torch.randn(7, generator=torch.Generator().manual_seed(0))
    ours, theirs = torch.nn.Parameter(given.clone()), torch.nn.Parameter(given.clone())
    muon = Muon([{"params": [ours], "weight_decay": 0.1 * ADAM_SHARE}], 0.02)
    adam = torch.optim.AdamW([theirs], 0.02 * ADAM_SHARE, weight_decay=0.1)
    for step in range(20):
        gradient = torch.randn(7, generator=torch.Generator().manual_seed(step))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.step()
        adam.step()
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def groups_of(*, normalize: bool) -> tuple[Any, dict[str, Any]]:
    graph = network()
    module = make_trainable(graph)
    if normalize:
        module.normalize(torch.from_numpy(samples(graph)[0]))
    optimizer = make_optimizer(module, TrainOptions(optimizer="muon"))
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    return module, dict(zip(names, optimizer.param_groups, strict=True))


def test_convolutions_are_matrices_and_neither_depthwise_nor_last_layers_are() -> None:
    module, groups = groups_of(normalize=True)
    kinds = {}
    for node in module.graph.nodes:
        if len(node.inputs) == 3:
            weights = module.weight(node.inputs[1])
            (group,) = [g for g in groups.values() if g["params"][0] is weights]
            kinds.setdefault(type(node.op).__name__, set()).add(bool(group.get("orthogonal")))
    assert kinds == {"Conv2D": {True}, "DepthwiseConv2D": {False}, "FullyConnected": {False}}
    matrices = [g for g in groups.values() if g.get("orthogonal")]
    assert all(g["length"] == pytest.approx(float(g["params"][0].detach().norm())) for g in matrices)


def test_a_length_counts_where_nothing_normalizes_it() -> None:
    _, groups = groups_of(normalize=False)
    matrices = [g for g in groups.values() if g.get("orthogonal")]
    assert len(matrices) == 3 and all(g["length"] is None for g in matrices)


def test_at_the_better_of_the_same_rates_it_learns_more_than_adam_in_as_many_epochs() -> None:
    graph = network()
    x = samples(graph, 256)[0]
    y = run(network(seed=3), [x])[0].reshape(256, -1).argmax(axis=1)

    def least(optimizer: Any) -> float:
        # Each has a rate of its own at which it learns best.
        given = [TrainOptions(epochs=8, learning_rate=r, optimizer=optimizer) for r in (0.01, 0.03, 0.1)]
        return min(finetune(make_trainable(graph), x, y, o).epochs[-1].loss for o in given)

    assert least("muon") < least("adam")
