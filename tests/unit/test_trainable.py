"""The trainable form: the engine's numerics, gradients, the way back, QAT, and reproducible training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import every_op_graph, random_inputs, single_op_graph

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
pytest.importorskip("safetensors", reason="safetensors (the extra train) is not installed")

from torch_networks import NETWORKS, Inception, randomized  # noqa: E402

from tinydeploy.engine import run  # noqa: E402
from tinydeploy.errors import DeployError  # noqa: E402
from tinydeploy.finetune import TrainOptions, TrainProgress, finetune, weight_gradients  # noqa: E402
from tinydeploy.finetune.augment import flip_and_shift  # noqa: E402
from tinydeploy.frontends.torch import import_module  # noqa: E402
from tinydeploy.ir.graph import Graph  # noqa: E402
from tinydeploy.ir.types import constant  # noqa: E402
from tinydeploy.ops import Padding  # noqa: E402
from tinydeploy.ops.quantize import dequantize_array, quantize_array  # noqa: E402
from tinydeploy.quantize import calibrate  # noqa: E402
from tinydeploy.quantize.qat import QatOptions, make_quantized_trainable, prepare_qat  # noqa: E402
from tinydeploy.trainable import make_trainable  # noqa: E402
from tinydeploy.trainable.module import Trainable  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

Data = tuple[Any, Any]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def tensors(arrays: list[Any]) -> list[Any]:
    return [torch.from_numpy(x) for x in arrays]


def assert_equals_engine(graph: Graph) -> None:
    inputs = random_inputs(graph, 3)
    with torch.no_grad():
        outputs = make_trainable(graph)(*tensors(inputs))
    for y, expected in zip(outputs, run(graph, inputs), strict=True):
        assert y.shape == expected.shape
        np.testing.assert_allclose(y.numpy(), expected, atol=1e-4, rtol=1e-4)


ODD = Padding(1, 0, 0, 2)
CASES: list[tuple[str, dict[str, Any]]] = [
    ("ADD", {"shapes": ((1, 5, 4, 3), (3,))}),
    ("ADD", {"shapes": ((3,), (1, 5, 4, 3))}),
    ("AVERAGE_POOL_2D", {"padding": "same", "kernel": (3, 3)}),
    ("AVERAGE_POOL_2D", {"padding": ODD, "kernel": (3, 3), "strides": (1, 2)}),
    ("CONCATENATION", {}),
    ("CONV_2D", {"groups": 2, "strides": (2, 1)}),
    ("CONV_2D", {"padding": ODD, "dilations": (1, 2)}),
    ("CONV_2D", {"bias": False, "padding": "valid"}),
    ("DEPTHWISE_CONV_2D", {"multiplier": 3}),
    ("DEPTHWISE_CONV_2D", {"padding": ODD}),
    ("FULLY_CONNECTED", {"shape": (3, 20), "keep_dims": True}),
    ("LOGISTIC", {}),
    ("MAX_POOL_2D", {"padding": ODD, "kernel": (3, 3)}),
    ("MEAN", {"keep_dims": True}),
    ("MEAN", {"axes": (1,)}),
    ("MUL", {}),
    ("PAD", {"value": 0.5}),
    ("RELU", {}),
    ("RESHAPE", {}),
    ("SOFTMAX", {"beta": 0.5}),
]


@pytest.mark.parametrize(("kind", "given"), CASES)
def test_an_op_equals_the_engine(kind: str, given: dict[str, Any]) -> None:
    assert_equals_engine(single_op_graph(kind, is_float=True, **given))


def test_every_op_together_equals_the_engine() -> None:
    assert_equals_engine(every_op_graph(is_float=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_equals_the_engine(name: str) -> None:
    module = NETWORKS[name]()
    assert_equals_engine(import_module(randomized(module), module.example_input_shape))


def test_integer_graphs_are_refused() -> None:
    with pytest.raises(DeployError, match="quantized already"):
        make_trainable(every_op_graph())


def test_gradients_reach_every_weight_and_weights_flow_back() -> None:
    graph = every_op_graph(is_float=True)
    trainable = make_trainable(graph)
    inputs = random_inputs(graph, 4)
    sum(y.square().sum() for y in trainable(*tensors(inputs))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trainable.parameters())
    assert len(list(trainable.parameters())) == sum(1 for _ in graph.constants())
    with torch.no_grad():
        for p in trainable.parameters():
            p.add_(0.01)
    changed = trainable.to_graph()
    assert changed.nodes == graph.nodes
    for before, after in zip(graph.constants(), changed.constants(), strict=True):
        np.testing.assert_allclose(after.array, before.array + np.float32(0.01), atol=1e-7)
    for y, expected in zip(trainable(*tensors(inputs)), run(changed, inputs), strict=True):
        np.testing.assert_allclose(y.detach().numpy(), expected, atol=1e-4)


def test_the_logits_are_what_goes_into_the_softmax() -> None:
    module = NETWORKS["ds_cnn"]()
    trainable = make_trainable(import_module(randomized(module), module.example_input_shape))
    x = tensors(random_inputs(trainable.graph, 2))
    with torch.no_grad():
        wanted = trainable(*x)[0]
        assert torch.allclose(torch.softmax(trainable.logits(*x), -1), wanted)
        assert not torch.allclose(trainable.logits(*x), wanted)


def prepared(graph: Graph, ranges: str) -> tuple[Trainable, list[Any]]:
    inputs = random_inputs(graph, 8)
    trainable = make_trainable(graph)
    prepare_qat(trainable, calibrate(graph, inputs), QatOptions(ranges))  # type: ignore[arg-type]
    return trainable, inputs


def assert_equals_integer_engine(trainable: Trainable, inputs: list[Any]) -> None:
    """Bit for bit: the int8 graph on quantized inputs, its outputs in real units."""
    graph = trainable.to_quantized_graph()
    values = [graph.value(n) for n in graph.inputs]
    integers = [quantize_array(x, v.quant, v.dtype) for x, v in zip(inputs, values, strict=True)]
    outputs = trainable.eval()(*tensors(inputs))
    for y, q, name in zip(outputs, run(graph, integers), graph.outputs, strict=True):
        assert np.array_equal(y.numpy(), dequantize_array(q, graph.value(name).quant))


QAT = {"every op": lambda: every_op_graph(is_float=True)} | {
    name: lambda network=network: import_module(randomized(network()), network.example_input_shape)
    for name, network in NETWORKS.items()
}


@pytest.mark.parametrize("ranges", ["running", "learned"])
@pytest.mark.parametrize("name", QAT)
def test_qat_in_evaluation_mode_is_the_integer_engine(name: str, ranges: str) -> None:
    trainable, inputs = prepared(QAT[name](), ranges)
    assert_equals_integer_engine(trainable, inputs)
    trainable.train()
    optimizer = torch.optim.SGD(trainable.parameters(), 1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        sum(y.square().mean() for y in trainable(*tensors(inputs))).backward()
        assert all(p.grad is not None for p in trainable.parameters())
        optimizer.step()
    assert_equals_integer_engine(trainable, inputs)


@pytest.mark.parametrize("ranges", ["running", "learned"])
def test_what_training_simulates_is_near_to_the_integers(ranges: str) -> None:
    trainable, inputs = prepared(QAT["resnet8"](), ranges)
    with torch.no_grad():
        simulated = trainable.train()(*tensors(inputs))[0]
        exact = trainable.eval()(*tensors(inputs))[0]
    scale = trainable.to_quantized_graph().value(trainable.graph.outputs[0]).quant.scale
    assert (simulated - exact).abs().max() <= 3 * scale


def test_running_ranges_follow_the_batches_and_learned_ones_the_gradient() -> None:
    for kind in ("running", "learned"):
        trainable, inputs = prepared(QAT["inception"](), kind)
        before = trainable.simulation.ranges()  # type: ignore[union-attr]
        trainable.train()
        loss = trainable(*tensors([x * 3 for x in inputs]))[0].square().sum()
        if kind == "learned":
            loss.backward()
            torch.optim.SGD(trainable.simulation.parameters(), 0.1).step()  # type: ignore[union-attr]
        after = trainable.simulation.ranges()  # type: ignore[union-attr]
        assert after != before
        if kind == "running":
            assert all(after[n].high >= before[n].high for n in before)


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


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
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
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
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
