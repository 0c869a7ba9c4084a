"""What a teacher says over many views of a sample: a mean of its answers, and training listens to it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")

from torch_networks import ResNet8, randomized  # noqa: E402

from tinydeploy.engine import run  # noqa: E402
from tinydeploy.errors import DeployError  # noqa: E402
from tinydeploy.finetune import TrainOptions, finetune  # noqa: E402
from tinydeploy.finetune.views import mean_answers  # noqa: E402
from tinydeploy.frontends.torch import import_module  # noqa: E402
from tinydeploy.ir.graph import Graph  # noqa: E402
from tinydeploy.trainable import make_trainable  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

HOOKS = """
import torch

def same(x, generator):
    return x

def dark(x, generator):
    return x * torch.randint(0, 2, (len(x), 1, 1, 1, 1), generator=generator)
"""
SAMPLES = 20


@pytest.fixture(scope="module")
def teacher() -> Graph:
    torch.set_num_threads(1)
    return import_module(randomized(ResNet8(), 0), (1, 3, 16, 16))


@pytest.fixture(scope="module")
def x() -> Any:
    return np.random.default_rng(0).normal(size=(SAMPLES, 1, 16, 16, 3)).astype(np.float32)


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainOptions:
    name = f"views_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(HOOKS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    # Batches of 8 do not divide the samples.
    return TrainOptions(batch_size=8, device="cpu", distill_views=3, augment=f"{name}:same")


def softened(graph: Graph, x: Any, temperature: float) -> Any:
    z = run(graph, [x])[0].reshape(len(x), -1).astype(np.float64) / temperature
    z = np.exp(z - z.max(1, keepdims=True))
    return z / z.sum(1, keepdims=True)


def seen_darkly(options: TrainOptions) -> TrainOptions:
    return dataclasses.replace(options, augment=str(options.augment).replace(":same", ":dark"))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_where_all_views_are_alike_the_mean_is_the_teacher_s_answer(
    teacher: Graph, x: Any, options: TrainOptions, temperature: float
) -> None:
    options = dataclasses.replace(options, temperature=temperature)
    assert mean_answers(teacher, x, options) == pytest.approx(softened(teacher, x, temperature), abs=1e-5)


def test_the_mean_lies_between_the_answers_for_the_views(
    teacher: Graph, x: Any, options: TrainOptions
) -> None:
    bright, dark = softened(teacher, x, 4.0), softened(teacher, np.zeros_like(x), 4.0)
    many = dataclasses.replace(seen_darkly(options), distill_views=64)
    mean = mean_answers(teacher, x, many)
    # The share of bright views of each sample, by each of its outputs; eight of 64 are two deviations.
    shares = ((mean - dark) / (bright - dark)).mean(axis=1)
    assert len(np.unique(shares.round(6))) > 4
    assert np.abs(shares - 0.5).max() < 0.25
    assert mean.sum(axis=1) == pytest.approx(1.0, abs=1e-5)


def test_the_seed_says_which_views_are_drawn(teacher: Graph, x: Any, options: TrainOptions) -> None:
    dark = seen_darkly(options)
    answers = [mean_answers(teacher, x, dataclasses.replace(dark, seed=seed)) for seed in (0, 0, 1)]
    assert np.array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[0], answers[2])


def test_every_batch_of_every_view_is_told(teacher: Graph, x: Any, options: TrainOptions) -> None:
    told: list[tuple[int, int]] = []
    mean_answers(teacher, x, options, lambda done, of: told.append((done, of)))
    assert told == [(i + 1, 9) for i in range(9)]


def test_training_listens_to_the_mean_as_to_the_view_at_hand(
    teacher: Graph, x: Any, options: TrainOptions
) -> None:
    training = dataclasses.replace(
        options, epochs=30, learning_rate=1e-2, distill_from=teacher, distill_weight=1.0, temperature=1.0
    )
    # The labels say 0, which nobody listens to, and the mean says 3.
    answers = np.eye(10, dtype=np.float32)[np.full(SAMPLES, 3)]
    student = make_trainable(teacher)
    finetune(student, x, np.zeros(SAMPLES, np.int64), training, answers=answers)
    half = 0.5 * (answers + softened(teacher, x, 1.0))
    before, after = (np.abs(softened(g, x, 1.0) - half).mean() for g in (teacher, student.to_graph()))
    assert after < 0.5 * before


@pytest.mark.parametrize("given", [{"distill_views": -1}, {"augment": None}])
def test_views_that_cannot_be_are_refused(options: TrainOptions, given: dict[str, Any]) -> None:
    with pytest.raises(DeployError, match="views"):
        dataclasses.replace(options, **given).check()
