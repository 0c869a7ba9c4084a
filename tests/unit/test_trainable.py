"""The trainable form: the engine's numerics, gradients, the way back, and QAT."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphs import every_op_graph, random_inputs, single_op_graph

torch = pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
pytest.importorskip("safetensors", reason="safetensors (the extra train) is not installed")

from torch_networks import NETWORKS, randomized  # noqa: E402

from tinydeploy.engine import run  # noqa: E402
from tinydeploy.errors import DeployError  # noqa: E402
from tinydeploy.frontends.torch import import_module  # noqa: E402
from tinydeploy.ir.graph import Graph  # noqa: E402
from tinydeploy.ops import Padding  # noqa: E402
from tinydeploy.ops.quantize import dequantize_array, quantize_array  # noqa: E402
from tinydeploy.quantize import calibrate  # noqa: E402
from tinydeploy.quantize.qat import QatOptions, prepare_qat  # noqa: E402
from tinydeploy.trainable import make_trainable  # noqa: E402
from tinydeploy.trainable.module import Trainable  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")]


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
