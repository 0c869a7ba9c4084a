"""Training: it learns, it is reproducible and resumable, and takes the user's own loss and augmentation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
pytest.importorskip("safetensors", reason="safetensors (the extra train) is not installed")

from torch_networks import Inception, randomized  # noqa: E402

from tinydeploy.engine import run  # noqa: E402
from tinydeploy.errors import DeployError  # noqa: E402
from tinydeploy.finetune import TrainOptions, TrainProgress, finetune, weight_gradients  # noqa: E402
from tinydeploy.finetune.augment import flip, flip_and_shift  # noqa: E402
from tinydeploy.frontends.torch import import_module  # noqa: E402
from tinydeploy.ir.graph import Graph  # noqa: E402
from tinydeploy.ir.types import constant  # noqa: E402
from tinydeploy.quantize import calibrate  # noqa: E402
from tinydeploy.quantize.qat import QatOptions, make_quantized_trainable, prepare_qat  # noqa: E402
from tinydeploy.trainable import make_trainable  # noqa: E402
from tinydeploy.trainable.module import Trainable  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")]

Data = tuple[Any, Any]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def task(seed: int = 0, samples: int = 96) -> tuple[Graph, Data]:
    """Images whose class is the quarter that is bright."""
    rng = np.random.default_rng(seed)
    graph = import_module(randomized(Inception(), seed), (1, 3, 16, 16))
    x = rng.normal(0, 0.3, (samples, 1, 16, 16, 3)).astype(np.float32)
    y = rng.integers(0, 4, samples)
    for image, label in zip(x, y, strict=True):
        row, column = 8 * (label // 2), 8 * (label % 2)
        image[0, row : row + 8, column : column + 8] += 1.0
    return graph, (x, y)


OPTIONS = TrainOptions(epochs=4, batch_size=16, learning_rate=4e-2, device="cpu", batch_norm=False)


def weights(trainable: Trainable) -> list[Any]:
    return [p.detach().numpy().copy() for p in trainable.parameters()]


def trained(graph: Graph, data: Data, options: TrainOptions = OPTIONS) -> tuple[Trainable, Any]:
    trainable = make_trainable(graph)
    return trainable, finetune(trainable, *data, options)


def test_training_learns_and_tells_how_it_goes() -> None:
    graph, data = task()
    told: list[TrainProgress] = []
    trainable = make_trainable(graph)
    result = finetune(trainable, *data, dataclasses.replace(OPTIONS, epochs=8), told.append)
    assert len(result.epochs) == 8 and len(told) == 8 * 6
    assert result.epochs[-1].loss < 0.5 * result.epochs[0].loss
    assert told[-1].accuracy is not None and told[-1].accuracy > 0.8
    assert told[0].seconds_left > 0.0 and told[-1].seconds_left == 0.0
    scores = run(trainable.to_graph(), [data[0]])[0].reshape(len(data[0]), -1)
    assert (scores.argmax(1) == data[1]).mean() > 0.8


@pytest.mark.parametrize("optimizer", ["adam", "muon", "sgd"])
def test_training_is_reproducible_and_the_seed_matters(optimizer: str) -> None:
    graph, data = task()
    options = dataclasses.replace(OPTIONS, epochs=2, optimizer=optimizer, clip_norm=1.0)
    first, second = weights(trained(graph, data, options)[0]), weights(trained(graph, data, options)[0])
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    other = weights(trained(graph, data, dataclasses.replace(options, seed=1))[0])
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


class StopError(Exception):
    """What the user's keyboard does."""


@pytest.mark.parametrize("qat", [None, "running", "learned"])
@pytest.mark.parametrize("optimizer", ["adam", "muon", "sgd"])
def test_resumed_training_equals_uninterrupted_training(
    tmp_path: Path, optimizer: str, qat: str | None
) -> None:
    graph, data = task()

    def make() -> Trainable:
        trainable = make_trainable(graph)
        if qat is not None:
            prepare_qat(trainable, calibrate(graph, [data[0]]), QatOptions(qat))  # type: ignore[arg-type]
        return trainable

    options = dataclasses.replace(
        OPTIONS, optimizer=optimizer, clip_norm=1.0, checkpoint=tmp_path / "c.safetensors"
    )
    straight = make()
    wanted = finetune(straight, *data, dataclasses.replace(options, checkpoint=None))

    def stop(p: TrainProgress) -> None:
        if (p.epoch, p.step) == (3, 2):
            raise StopError

    with pytest.raises(StopError):
        finetune(make(), *data, options, stop)
    resumed = make()
    result = finetune(resumed, *data, options)
    assert result.resumed == 2
    assert result.epochs == wanted.epochs
    for (name, a), (_, b) in zip(straight.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    again = make()
    assert finetune(again, *data, options).resumed == 4
    assert all(np.array_equal(a, b) for a, b in zip(weights(again), weights(straight), strict=True))


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    graph, data = task()
    path = tmp_path / "c.safetensors"
    options = dataclasses.replace(OPTIONS, epochs=1, checkpoint=path)
    trained(graph, data, options)
    with pytest.raises(DeployError, match="another run"):
        trained(graph, data, dataclasses.replace(options, learning_rate=1e-2))
    with pytest.raises(DeployError, match="another run"):
        trained(graph, (data[0] + 1, data[1]), options)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DeployError, match="no readable checkpoint"):
        trained(graph, data, options)


def test_distillation_pulls_towards_the_teacher() -> None:
    graph, data = task()
    teacher = trained(graph, data, dataclasses.replace(OPTIONS, epochs=6))[0].to_graph()
    options = dataclasses.replace(OPTIONS, epochs=15, distill_from=teacher, distill_weight=1.0)
    # The labels are of no use, so only the teacher can have taught it.
    student = trained(graph, (data[0], np.zeros_like(data[1])), options)[0]
    scores = run(student.to_graph(), [data[0]])[0].reshape(len(data[0]), -1)
    assert (scores.argmax(1) == data[1]).mean() > 0.7


HOOKS = """
import torch

def loss(outputs, labels):
    return ((outputs - torch.nn.functional.one_hot(labels, outputs.shape[1])) ** 2).mean()

def detached(outputs, labels):
    return torch.zeros(())

def shift(x, generator):
    return x + torch.rand(1, generator=generator)

def far(x, generator):
    return 3.0 * x
"""


@pytest.fixture
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"hooks_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(HOOKS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return name


def test_the_user_s_own_loss_and_augmentation(hooks: str) -> None:
    graph, data = task()
    options = dataclasses.replace(OPTIONS, epochs=3, loss=f"{hooks}:loss")
    plain, result = trained(graph, data, options)
    assert result.epochs[-1].loss < result.epochs[0].loss
    shifted = dataclasses.replace(options, augment=f"{hooks}:shift")
    first, second = weights(trained(graph, data, shifted)[0]), weights(trained(graph, data, shifted)[0])
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], weights(plain)[0])
    with pytest.raises(DeployError, match="depends on the outputs"):
        trained(graph, data, dataclasses.replace(options, loss=f"{hooks}:detached"))


def test_statistics_are_those_of_samples_that_are_not_augmented(hooks: str) -> None:
    graph, data = task()
    # Nothing is learned at this rate, so what moves the outputs is what the normalizations settle on.
    options = dataclasses.replace(
        OPTIONS, epochs=1, learning_rate=1e-12, batch_norm=True, augment=f"{hooks}:far"
    )
    module = trained(graph, data, options)[0]
    assert module.norms
    before, after = run(graph, [data[0]])[0], run(module.to_graph(), [data[0]])[0]
    # In the mean over batches, so not to the last bit.
    assert np.abs(after - before).max() < 0.1 * np.abs(before).max()


def test_the_gradient_of_a_weight_is_what_the_loss_does_when_it_moves() -> None:
    graph, (x, y) = task(samples=32)
    gradients = weight_gradients(graph, x, y, batch_size=20)
    assert gradients.keys() == {v.name for v in graph.constants()}

    def loss(changed: Graph) -> float:
        scores = torch.from_numpy(run(changed, [x])[0].reshape(len(x), -1)).double()
        return float(torch.nn.functional.cross_entropy(scores, torch.from_numpy(y)))

    name = "head.bias"
    for index in range(graph.value(name).elements):
        sides = []
        for step in (1e-2, -1e-2):
            data = graph.value(name).array.copy()
            data[index] += step
            sides.append(
                loss(dataclasses.replace(graph, values={**graph.values, name: constant(name, data)}))
            )
        assert gradients[name][index] == pytest.approx((sides[0] - sides[1]) / 2e-2, abs=1e-3)


def test_quantization_aware_training_keeps_what_was_learned() -> None:
    graph, data = task()
    trained_graph = trained(graph, data, dataclasses.replace(OPTIONS, epochs=8))[0].to_graph()
    trainable = make_quantized_trainable(trained_graph, [data[0]])
    result = finetune(trainable, *data, dataclasses.replace(OPTIONS, epochs=2, learning_rate=1e-2))
    assert result.epochs[-1].accuracy is not None and result.epochs[-1].accuracy > 0.8
    integer = trainable.to_quantized_graph()
    assert integer.is_integer
    scores = trainable(torch.from_numpy(data[0]))[0].reshape(len(data[0]), -1)
    assert float((scores.argmax(1).numpy() == data[1]).mean()) > 0.8


def test_each_image_is_flipped_or_left_alone() -> None:
    x = torch.arange(64 * 4 * 6 * 3, dtype=torch.float32).reshape(64, 1, 4, 6, 3)
    y = flip(x, torch.Generator().manual_seed(0))
    same = (y == x).flatten(1).all(1)
    mirrored = (y == torch.from_numpy(x.numpy()[:, :, :, ::-1].copy())).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 16 < int(same.sum()) < 48


def test_flipped_and_shifted_images_are_their_own_pixels() -> None:
    x = torch.arange(2 * 16 * 16 * 3, dtype=torch.float32).reshape(2, 1, 16, 16, 3)
    seen = set()
    for seed in range(40):
        y = flip_and_shift(x, torch.Generator().manual_seed(seed))
        assert y.shape == x.shape
        assert torch.isin(y[0], x[0]).all() and torch.isin(y[1], x[1]).all()
        flipped = bool(y[0, 0, 8, 12, 0] < y[0, 0, 8, 4, 0])
        line = y[0, 0, :, 8, 0]
        seen.add((flipped, int((line[1:] == line[:-1]).sum())))
    assert {f for f, _ in seen} == {True, False} and {n for _, n in seen} == {0, 1, 2}


def test_values_are_learned_by_their_squared_error() -> None:
    graph, (x, _) = task()
    wanted = np.stack([x.mean((1, 2, 3, 4))] * 5, axis=1)
    _, result = trained(graph, (x, wanted), dataclasses.replace(OPTIONS, epochs=6))
    assert result.epochs[-1].accuracy is None
    assert result.epochs[-1].loss < result.epochs[0].loss


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": -1},
        {"batch_size": 0},
        {"learning_rate": float("nan")},
        {"loss": "hinge"},
        {"loss": "nowhere:loss"},
        {"optimizer": "lion"},
        {"distill_weight": 2.0},
        {"learning_rate": 1e30},
    ],
)
def test_options_that_make_no_sense_are_refused(given: dict[str, Any]) -> None:
    graph, data = task(samples=32)
    with pytest.raises(DeployError):
        trained(graph, data, dataclasses.replace(OPTIONS, **given))


def test_data_that_do_not_fit_are_refused() -> None:
    graph, (x, y) = task(samples=16)
    for data in ((x[:, :, :8], y), (x, y[:8]), (x, y + 5), (x, np.zeros((16, 3)))):
        with pytest.raises(DeployError):
            trained(graph, data)
