"""PyTorch networks through the frontend, compared with PyTorch itself; and files that mean harm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")

from sweeps import thinned  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch_networks import NETWORKS, Inception, Sequence, randomized  # noqa: E402

from tinydeploy.engine import run  # noqa: E402
from tinydeploy.errors import DeployError  # noqa: E402
from tinydeploy.frontends.torch import import_module, read_pt2  # noqa: E402
from tinydeploy.ir.graph import Graph  # noqa: E402
from tinydeploy.quantize import QuantizeOptions, quantize  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

IMAGE = (1, 4, 9, 8)
SIGNAL = (1, 4, 20)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def run_graph(graph: Graph, *inputs: Any) -> list[Any]:
    """Outputs in the source's layout, for inputs in the source's layout with samples in front."""
    held = [
        np.ascontiguousarray(x.reshape(len(x), *graph.value(name).shape))
        if border.layout is None
        else border.layout.to_held(x, graph.value(name).shape)
        for x, name, border in zip(inputs, graph.inputs, graph.input_borders, strict=True)
    ]
    outputs = [
        y if border.layout is None else border.layout.to_source(y)
        for y, border in zip(run(graph, held), graph.output_borders, strict=True)
    ]
    # The batch axis of 1 behind the samples goes.
    return [y.reshape(len(y), *y.shape[2:]) for y in outputs]


class Lambda(nn.Module):
    """A function as a module, with parts that have weights."""

    def __init__(self, function: Callable[..., Any], *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x, *self.parts)


def saved(module: nn.Module, shape: tuple[int, ...], path: Path, **options: Any) -> Path:
    torch.export.save(torch.export.export(module, (torch.zeros(shape),), **options), path)
    return path


def check(module: nn.Module, shape: tuple[int, ...], tmp_path: Path, tolerance: float = 1e-4) -> Graph:
    """Both ways in give what PyTorch gives, and the same graph; no transposition exists in any graph."""
    module = randomized(module)
    x = torch.randn(3, *shape[1:], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = module(x)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    graph = import_module(module, shape)
    for read in (graph, read_pt2(saved(module, shape, tmp_path / "model.pt2"))):
        assert "TRANSPOSE" not in {node.op.kind for node in read.nodes}
        for y, expected in zip(run_graph(read, x.numpy()), wanted, strict=True):
            real = expected.numpy()
            assert np.abs(y.reshape(real.shape) - real).max() <= tolerance * max(1.0, np.abs(real).max())
    return graph


def kinds(graph: Graph) -> list[str]:
    return [node.op.kind for node in graph.nodes]


CONVOLUTIONS = {
    "plain": (nn.Conv2d(4, 6, 3), IMAGE),
    "strided": (nn.Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(1, 0)), IMAGE),
    "dilated": (nn.Conv2d(4, 6, 3, dilation=2, padding=2), IMAGE),
    "same": (nn.Conv2d(4, 6, (2, 4), padding="same"), IMAGE),
    "valid": (nn.Conv2d(4, 6, 2, padding="valid", bias=False), IMAGE),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), IMAGE),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, padding=1), IMAGE),
    "depthwise multiplied": (nn.Conv2d(4, 12, 3, groups=4), IMAGE),
    "one channel": (nn.Conv2d(1, 5, 3), (1, 1, 9, 8)),
    "sequence": (nn.Conv1d(4, 6, 5, stride=2, padding=2), SIGNAL),
    "sequence same": (nn.Conv1d(4, 6, 4, padding="same", dilation=2), SIGNAL),
    "sequence depthwise": (nn.Conv1d(4, 8, 3, groups=4), SIGNAL),
}


@pytest.mark.parametrize("name", thinned(CONVOLUTIONS, 2))
def test_a_convolution_is_one_layer(name: str, tmp_path: Path) -> None:
    module, shape = CONVOLUTIONS[name]
    graph = check(module, shape, tmp_path)
    assert kinds(graph) == ["DEPTHWISE_CONV_2D" if "depthwise" in name else "CONV_2D"]


FOLDED = {
    "batch norm": lambda: nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)),
    "batch norm, relu": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
    "in place": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
    "depthwise": lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8), nn.ReLU6()),
    "hardtanh": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.Hardtanh(0, 6)),
    "clamp": lambda: Lambda(lambda x, c: torch.clamp(c(x), 0.0, 6.0), nn.Conv2d(4, 6, 3)),
    "clamp_min": lambda: Lambda(lambda x, c: c(x).clamp(min=0), nn.Conv2d(4, 6, 3)),
    "scaled": lambda: Lambda(lambda x, c: torch.relu(c(x) * 0.5 + 0.25), nn.Conv2d(4, 6, 3)),
    "padded": lambda: nn.Sequential(nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(4, 6, 3)),
    "dropout": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.Dropout2d(), nn.Identity(), nn.Dropout()),
}


@pytest.mark.parametrize("name", thinned(FOLDED, 2))
def test_what_stands_around_a_convolution_folds_into_it(name: str, tmp_path: Path) -> None:
    assert len(kinds(check(FOLDED[name](), IMAGE, tmp_path))) == 1


def test_a_batch_norm_without_a_layer_before_it_is_a_product_and_a_sum(tmp_path: Path) -> None:
    graph = check(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), IMAGE, tmp_path)
    assert kinds(graph) == ["MUL", "ADD"]
    assert all(v.shape == (1, 1, 1, 4) for v in graph.constants())


def test_a_batch_norm_behind_a_value_that_is_read_twice_stays(tmp_path: Path) -> None:
    def forward(x: Any, conv: nn.Module, norm: nn.Module) -> Any:
        y = conv(x)
        return norm(y) + y

    check(Lambda(forward, nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), IMAGE, tmp_path)


F = functional
SINGLE = {
    "relu": (torch.relu, IMAGE, ["RELU"]),
    "relu6": (F.relu6, SIGNAL, ["RELU"]),
    "sigmoid": (torch.sigmoid, IMAGE, ["LOGISTIC"]),
    "average": (lambda x: F.avg_pool2d(x, 2), IMAGE, ["AVERAGE_POOL_2D"]),
    "average padded": (lambda x: F.avg_pool2d(x, 3, 2, 1), IMAGE, ["PAD", "AVERAGE_POOL_2D"]),
    "average not counting": (
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        IMAGE,
        ["AVERAGE_POOL_2D"],
    ),
    "average up": (lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True), IMAGE, ["AVERAGE_POOL_2D"]),
    "average padded up": (
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
        (1, 4, 10, 8),
        ["PAD", "AVERAGE_POOL_2D"],
    ),
    "average of a sequence": (lambda x: F.avg_pool1d(x, 2), SIGNAL, ["AVERAGE_POOL_2D"]),
    "maximum": (lambda x: F.max_pool2d(x, (3, 2), 2, (1, 0)), IMAGE, ["MAX_POOL_2D"]),
    "maximum up": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), IMAGE, ["MAX_POOL_2D"]),
    "maximum of a sequence": (lambda x: F.max_pool1d(x, 3, 2, 1), SIGNAL, ["MAX_POOL_2D"]),
    "global": (lambda x: F.adaptive_avg_pool2d(x, 1), IMAGE, ["MEAN"]),
    "global of a sequence": (lambda x: F.adaptive_avg_pool1d(x, 1), SIGNAL, ["MEAN"]),
    "adaptive": (lambda x: F.adaptive_avg_pool2d(x, (3, 2)), IMAGE, ["AVERAGE_POOL_2D"]),
    "mean": (lambda x: x.mean((2, 3)), IMAGE, ["MEAN"]),
    "mean kept": (lambda x: x.mean((-1, -2), keepdim=True), IMAGE, ["MEAN"]),
    "mean of a sequence": (lambda x: x.mean(2), SIGNAL, ["MEAN"]),
    "mean of one axis": (lambda x: x.mean(3, keepdim=True), IMAGE, ["MEAN"]),
    "pad": (lambda x: F.pad(x, (1, 0, 2, 3), value=1.5), IMAGE, ["PAD"]),
    "pad channels": (lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)), IMAGE, ["PAD"]),
    "pad a sequence": (lambda x: F.pad(x, (1, 2)), SIGNAL, ["PAD"]),
    "softmax of channels": (lambda x: torch.softmax(x, 1), IMAGE, ["SOFTMAX"]),
    "add": (lambda x: x + x, IMAGE, ["ADD"]),
    "add scaled": (lambda x: torch.add(x, x, alpha=2), IMAGE, ["MUL", "ADD"]),
    "subtract": (lambda x: torch.relu(x) - x, IMAGE, ["RELU", "MUL", "ADD"]),
    "subtract from": (lambda x: 1.0 - x, IMAGE, ["MUL", "ADD"]),
    "subtract a number": (lambda x: x - 2, IMAGE, ["ADD"]),
    "multiply": (lambda x: x * torch.relu(x), IMAGE, ["RELU", "MUL"]),
    "divide": (lambda x: x / 4, IMAGE, ["MUL"]),
    "negate": (lambda x: -x, IMAGE, ["MUL"]),
    "gate": (lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)), IMAGE, ["MEAN", "LOGISTIC", "MUL"]),
    "gate of places": (lambda x: x * x.mean(1, keepdim=True), IMAGE, ["MEAN", "MUL"]),
    "concatenate": (lambda x: torch.cat([x, x * 2.0], 1), IMAGE, ["MUL", "CONCATENATION"]),
    "concatenate rows": (lambda x: torch.cat([x, x], 2), IMAGE, ["CONCATENATION"]),
    "concatenate a sequence": (lambda x: torch.cat([x, x], -1), SIGNAL, ["CONCATENATION"]),
    "every second": (lambda x: x[:, :, ::2, ::2], IMAGE, ["MAX_POOL_2D", "MAX_POOL_2D"]),
    "flat": (lambda x: torch.relu(x).flatten(1), IMAGE, ["RELU"]),
    "permuted twice": (lambda x: torch.relu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), IMAGE, ["RELU"]),
    "views": (lambda x: x.view(1 * x.shape[0], 4, -1).unsqueeze(3).relu().reshape(x.shape), IMAGE, ["RELU"]),
}


@pytest.mark.parametrize("name", thinned(SINGLE, 2))
def test_an_operator(name: str, tmp_path: Path) -> None:
    function, shape, expected = SINGLE[name]
    graph = check(Lambda(function), shape, tmp_path)
    found = [k for k in kinds(graph) if k != "RESHAPE"]
    assert found == expected


LINEAR = {
    "flattened image": lambda: nn.Sequential(nn.Conv2d(4, 3, 2), nn.Flatten(), nn.Linear(3 * 8 * 7, 5)),
    "flat relu": lambda: nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(4 * 72, 5)),
    "flat norm": lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4 * 72), nn.Linear(4 * 72, 5)),
    "norm behind": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(4 * 72, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
    ),
    "two flat parts": lambda: Lambda(
        lambda x, a: a(torch.cat([x.flatten(1), torch.relu(x).flatten(1)], 1)), nn.Linear(8 * 72, 5)
    ),
    "over channels": lambda: Lambda(lambda x, a: a(x.permute(0, 2, 3, 1)), nn.Linear(4, 5)),
    "over channels and back": lambda: Lambda(
        lambda x, a, c: c(a(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)), nn.Linear(4, 5), nn.Conv2d(5, 2, 3)
    ),
    "softmax": lambda: nn.Sequential(nn.Flatten(), nn.Linear(4 * 72, 8), nn.Softmax(-1)),
    "matrix": lambda: Lambda(lambda x, a: x.flatten(1) @ a.weight.t() + a.bias, nn.Linear(4 * 72, 5)),
    "addmm": lambda: Lambda(
        lambda x, a: torch.addmm(a.bias, x.flatten(1), a.weight.t()), nn.Linear(4 * 72, 5)
    ),
}


@pytest.mark.parametrize("name", thinned(LINEAR, 2))
def test_a_linear_layer_takes_any_order(name: str, tmp_path: Path) -> None:
    graph = check(LINEAR[name](), IMAGE, tmp_path)
    assert "FULLY_CONNECTED" in kinds(graph)
    if name in ("norm behind", "matrix"):
        assert not {"MUL", "ADD"} & set(kinds(graph))


def test_features_of_a_sequence_stay_where_they_are(tmp_path: Path) -> None:
    """(N, T, F) into linear layers: no channels, and so nothing is moved."""
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(-1))
    graph = check(module, (1, 5, 6), tmp_path)
    assert kinds(graph) == ["FULLY_CONNECTED", "FULLY_CONNECTED", "SOFTMAX"]
    assert graph.input_borders[0].layout is None


def test_a_module_that_takes_nhwc_keeps_it(tmp_path: Path) -> None:
    graph = check(Lambda(lambda x, c: c(x.permute(0, 3, 1, 2)), nn.Conv2d(4, 6, 3)), (1, 9, 8, 4), tmp_path)
    assert kinds(graph) == ["CONV_2D"]
    assert graph.input_borders[0].layout is None
    assert graph.output_borders[0].layout is not None


def test_several_outputs(tmp_path: Path) -> None:
    graph = check(
        Lambda(lambda x, c: (torch.relu(c(x)), c(x).mean((2, 3))), nn.Conv2d(4, 6, 3)), IMAGE, tmp_path
    )
    assert len(graph.outputs) == 2


@pytest.mark.parametrize("name", thinned(NETWORKS, 2))
def test_a_network(name: str, tmp_path: Path) -> None:
    module = NETWORKS[name]()
    graph = check(module, module.example_input_shape, tmp_path)
    assert not {"MUL", "RELU", "PAD"} & set(kinds(graph))
    assert graph.input_borders[0].layout is not None
    assert graph.input_borders[0].layout.shape == module.example_input_shape


def test_core_aten_is_read_as_well(tmp_path: Path) -> None:
    module = randomized(Inception())
    exported = torch.export.export(module, (torch.zeros(1, 3, 16, 16),)).run_decompositions()
    torch.export.save(exported, tmp_path / "core.pt2")
    x = torch.randn(2, 3, 16, 16)
    (y,) = run_graph(read_pt2(tmp_path / "core.pt2"), x.numpy())
    np.testing.assert_allclose(y, module(x).detach().numpy(), atol=1e-5)


def test_a_varying_batch_becomes_one(tmp_path: Path) -> None:
    module = randomized(
        Lambda(lambda x, c, a: a(c(x).view(x.size(0), -1)), nn.Conv2d(4, 3, 2), nn.Linear(3 * 8 * 7, 5))
    )
    path = tmp_path / "model.pt2"
    batch = torch.export.Dim("batch")
    saved(module, (2, 4, 9, 8), path, dynamic_shapes={"x": {0: batch}})
    graph = read_pt2(path)
    x = torch.randn(3, 4, 9, 8)
    np.testing.assert_allclose(run_graph(graph, x.numpy())[0], module(x).detach().numpy(), atol=1e-5)


def test_everything_that_is_not_supported_is_named_at_once(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GELU())
            self.up = nn.ConvTranspose2d(4, 4, 2)

        def forward(self, x: Any) -> Any:
            return torch.sin(self.up(self.head(x)))

    for read in (
        lambda: import_module(Net(), IMAGE),
        lambda: read_pt2(saved(Net(), IMAGE, tmp_path / "n.pt2")),
    ):
        with pytest.raises(DeployError) as caught:
            read()
        text = str(caught.value)
        assert "gelu" in text and "head.1" in text and "transpose" in text


def test_a_transposition_that_does_not_fold_is_refused() -> None:
    module = Lambda(lambda x, a: a(x.permute(0, 2, 1, 3)), nn.Conv2d(9, 4, 3))
    with pytest.raises(DeployError, match="does not fold"):
        import_module(module, IMAGE)


def test_training_mode_and_branches_are_refused() -> None:
    module = Lambda(lambda x: x if x.sum() > 0 else -x)
    with pytest.raises(DeployError, match="cannot trace"):
        import_module(module, IMAGE)


def test_the_order_of_a_sequence_is_told_at_the_border() -> None:
    graph = import_module(randomized(Sequence()), (1, 6, 64))
    layout = graph.input_borders[0].layout
    assert layout is not None
    assert (layout.shape, graph.value(graph.inputs[0]).shape) == ((1, 6, 64), (1, 1, 64, 6))


def test_quantizing_keeps_the_layout_at_the_borders() -> None:
    graph = import_module(randomized(Lambda(torch.relu)), IMAGE)
    x = np.random.default_rng(0).normal(size=(4, *graph.value(graph.inputs[0]).shape)).astype(np.float32)
    for float_borders in (False, True):
        quantized = quantize(graph, [x], QuantizeOptions(float_borders=float_borders))
        assert [b.layout for b in quantized.input_borders] == [b.layout for b in graph.input_borders]
        assert [b.layout for b in quantized.output_borders] == [b.layout for b in graph.output_borders]
