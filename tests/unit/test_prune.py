"""Channel pruning: which channels are one, and that removing them equals masking them."""

from __future__ import annotations

import numpy as np
import pytest

from tinydeploy.engine import run
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import DType, Value, constant
from tinydeploy.ir.verify import graph_macs, verify
from tinydeploy.ops import (
    Activation,
    Add,
    AveragePool2D,
    Concatenation,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Mean,
    Mul,
    Padding,
    Reshape,
    Softmax,
)
from tinydeploy.prune import (
    find_groups,
    importance,
    mask,
    remove,
    select_by_macs,
    select_by_params,
    select_by_ratio,
)
from tinydeploy.prune.goal import PruneGoal, parse_goal
from tinydeploy.prune.select import SelectOptions
from tinydeploy.prune.sensitivity import choose_ratios, scan_sensitivity

SAME = Padding(1, 1, 1, 1)
SEED = 11


class Net:
    """A float network, layer by layer, with seeded weights."""

    def __init__(self, *shape: int) -> None:
        self.rng = np.random.default_rng(SEED)
        self.values = {"x": Value("x", DType.FLOAT32, shape)}
        self.nodes: list[Node] = []

    def add(self, name: str, op: object, *inputs: str, shape: tuple[int, ...]) -> str:
        self.values[name] = Value(name, DType.FLOAT32, shape)
        self.nodes.append(Node(name, op, inputs, (name,)))  # type: ignore[arg-type]
        return name

    def weight(self, name: str, *shape: int) -> str:
        data = self.rng.normal(0, 0.5, shape).astype(np.float32)
        self.values[name] = constant(name, data)
        return name

    def conv(self, name: str, x: str, outputs: int, kernel: int = 3, groups: int = 1) -> str:
        n, h, w, c = self.values[x].shape
        weights = self.weight(f"{name}.w", outputs, kernel, kernel, c // groups)
        op = Conv2D(padding=SAME if kernel == 3 else Padding(), activation=Activation.RELU)
        return self.add(name, op, x, weights, self.weight(f"{name}.b", outputs), shape=(n, h, w, outputs))

    def depthwise(self, name: str, x: str, multiplier: int = 1) -> str:
        n, h, w, c = self.values[x].shape
        weights = self.weight(f"{name}.w", 1, 3, 3, c * multiplier)
        bias = self.weight(f"{name}.b", c * multiplier)
        op = DepthwiseConv2D(padding=SAME, activation=Activation.RELU)
        return self.add(name, op, x, weights, bias, shape=(n, h, w, c * multiplier))

    def dense(self, name: str, x: str, outputs: int) -> str:
        value = self.values[x]
        inputs = value.elements
        weights = self.weight(f"{name}.w", outputs, inputs)
        return self.add(
            name, FullyConnected(), x, weights, self.weight(f"{name}.b", outputs), shape=(1, outputs)
        )

    def graph(self, output: str) -> Graph:
        graph = Graph("net", self.values, tuple(self.nodes), ("x",), (output,))
        verify(graph)
        return graph


def residual() -> Graph:
    net = Net(1, 6, 6, 3)
    stem = net.conv("stem", "x", 8)
    inner = net.conv("inner", stem, 12)
    outer = net.conv("outer", inner, 8)
    added = net.add("added", Add(), stem, outer, shape=(1, 6, 6, 8))
    flat = net.add("flat", Reshape((1, 288)), added, shape=(1, 288))
    return net.graph(net.dense("head", flat, 5))


def depthwise_separable() -> Graph:
    net = Net(1, 6, 6, 2)
    x = net.depthwise("dw0", net.conv("stem", "x", 8), multiplier=2)
    x = net.depthwise("dw1", net.conv("pw0", x, 12, kernel=1))
    x = net.conv("pw1", x, 8, kernel=1)
    x = net.add("pool", AveragePool2D((6, 6), (6, 6)), x, shape=(1, 1, 1, 8))
    x = net.dense("head", x, 4)
    return net.graph(net.add("softmax", Softmax(), x, shape=(1, 4)))


def concatenated() -> Graph:
    net = Net(1, 5, 5, 4)
    a, b = net.conv("left", "x", 8), net.conv("right", "x", 4, kernel=1)
    joined = net.add("joined", Concatenation(3), a, b, shape=(1, 5, 5, 12))
    scaled = net.add("scaled", Mul(), joined, net.weight("scale", 12), shape=(1, 5, 5, 12))
    x = net.conv("after", scaled, 8, groups=2)
    x = net.conv("last", x, 8, kernel=1)
    return net.graph(net.dense("head", net.add("mean", Mean((1, 2)), x, shape=(1, 8)), 3))


NETWORKS = {f.__name__: f for f in (residual, depthwise_separable, concatenated)}


def agree(a: Graph, b: Graph) -> None:
    x = np.random.default_rng(5).normal(0, 1, (3, *a.value("x").shape)).astype(np.float32)
    (first,), (second,) = run(a, [x]), run(b, [x])
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)


def test_a_residual_add_ties_the_layers_on_both_sides() -> None:
    groups = {g.name: g for g in find_groups(residual()).groups}
    assert set(groups) == {"stem", "inner"}
    assert groups["stem"].layers == ("stem", "outer")
    assert groups["stem"].consumers == ("inner", "head")
    assert len(groups["inner"].channels) == 12


def test_a_depthwise_layer_goes_with_the_layer_before_it() -> None:
    groups = {g.name: g for g in find_groups(depthwise_separable()).groups}
    assert groups["stem"].layers == ("stem", "dw0")
    assert all(len(c.outputs) == 3 for c in groups["stem"].channels)
    assert groups["pw0"].layers == ("pw0", "dw1")


def test_concatenated_channels_keep_their_own_groups_until_a_grouped_convolution_ties_them() -> None:
    groups = find_groups(concatenated())
    # A convolution in two groups reads channels 0..5 and 6..11: position p of both must go together.
    tied = next(g for g in groups.groups if "left" in g.layers and "right" in g.layers)
    assert all(len(c.outputs) == 2 for c in tied.channels)


def test_the_output_and_protected_layers_stay() -> None:
    graph = residual()
    groups = find_groups(graph, protected=["inner"])
    assert "head" in groups.frozen
    assert "inner" in groups.frozen
    assert "inner" not in {g.name for g in groups.groups}


@pytest.mark.parametrize("network", sorted(NETWORKS))
@pytest.mark.parametrize("measure", ["l1", "l2", "random"])
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_removed_equals_masked(network: str, measure: str, ratio: float) -> None:
    graph = NETWORKS[network]()
    groups = find_groups(graph)
    scores = importance(graph, groups, measure, seed=3)
    removed = select_by_ratio(groups, scores, ratio, SelectOptions(divisor=1))
    assert removed
    smaller = remove(graph, groups, removed)
    agree(smaller, mask(graph, groups, removed))
    assert graph_macs(smaller) < graph_macs(graph)


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_removing_nothing_changes_nothing(network: str) -> None:
    graph = NETWORKS[network]()
    agree(remove(graph, find_groups(graph), frozenset()), graph)


def test_the_least_important_channels_go_first() -> None:
    graph = residual()
    weights = np.asarray(graph.value("inner.w").array).copy()
    weights[[2, 5, 7]] *= 1e-3
    values = dict(graph.values) | {"inner.w": constant("inner.w", weights)}
    graph = Graph("net", values, graph.nodes, graph.inputs, graph.outputs)
    groups = find_groups(graph)
    removed = select_by_ratio(
        groups, importance(graph, groups, "l1"), {"inner": 0.25}, SelectOptions(divisor=1)
    )
    gone = {i for g in groups.groups for c in g.channels if c.root in removed for _, i in c.outputs}
    assert gone == {2, 5, 7}


def test_taylor_importance_is_parameter_times_gradient_squared_over_batches() -> None:
    graph = residual()
    groups = find_groups(graph)
    ones = {v.name: np.ones(v.shape, np.float32) for v in graph.constants()}
    batches = [ones, {name: -3 * g for name, g in ones.items()}]
    scores = importance(graph, groups, "taylor", gradients=batches)
    inner = next(g for g in groups.groups if g.name == "inner")
    change = graph.value("inner.w").array.reshape(12, -1).sum(axis=1) + graph.value("inner.b").array
    # Over the batches together the gradient nearly cancels out; its square does not.
    by_hand = np.sqrt((change**2 + (3 * change) ** 2) / 2)
    np.testing.assert_allclose([scores[c.root] for c in inner.channels], by_hand / by_hand.mean(), rtol=1e-5)


def test_taylor_importance_foretells_what_the_loss_does_without_a_channel() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
    from tinydeploy.finetune import batch_gradients

    graph = residual()
    rng = np.random.default_rng(4)
    x = rng.normal(0, 1, (6, 1, 6, 6, 3)).astype(np.float32)
    y = rng.integers(0, 5, 6)
    (gradients,) = batch_gradients(graph, x, y)
    groups = find_groups(graph)

    def loss(weakened: int, by: float) -> float:
        values = dict(graph.values)
        for name in ("inner.w", "inner.b"):
            data = graph.value(name).array.copy()
            data[weakened] *= 1.0 - by
            values[name] = constant(name, data)
        (out,) = run(Graph("net", values, graph.nodes, graph.inputs, graph.outputs), [x])
        logits = torch.from_numpy(out.reshape(6, -1)).double()
        return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(y)))

    inner = next(g for g in groups.groups if g.name == "inner")
    scores = importance(graph, groups, "taylor", gradients=[gradients])
    found = np.array([scores[c.root] for c in inner.channels])
    slopes = np.array([abs(loss(i, 1e-3) - loss(i, -1e-3)) / 2e-3 for i in range(12)])
    np.testing.assert_allclose(found, slopes / slopes.mean(), rtol=0.05, atol=0.02)


@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
def test_groups_keep_a_multiple_of_the_divisor(divisor: int) -> None:
    graph = residual()
    groups = find_groups(graph)
    options = SelectOptions(divisor=divisor)
    smaller = remove(graph, groups, select_by_ratio(groups, importance(graph, groups, "l1"), 0.4, options))
    for name, size in (("stem", 8), ("inner", 12)):
        left = smaller.value(name).shape[3]
        assert left % divisor == 0 or left == size
        assert left >= 0.6 * size - 1e-9


@pytest.mark.parametrize("fraction", [0.8, 0.5, 0.3])
def test_a_goal_in_macs_is_reached_and_not_by_much_too_far(fraction: float) -> None:
    graph = residual()
    groups = find_groups(graph)
    scores = importance(graph, groups, "l2")
    removed = select_by_macs(graph, groups, scores, fraction, SelectOptions(divisor=1))
    left = graph_macs(remove(graph, groups, removed)) / graph_macs(graph)
    assert fraction - 0.2 < left <= fraction
    fewer = select_by_params(graph, groups, scores, fraction, SelectOptions(divisor=1))
    assert sum(v.elements for v in remove(graph, groups, fewer).constants()) <= fraction * sum(
        v.elements for v in graph.constants()
    )


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 2.0, float("nan")])
def test_a_ratio_outside_its_range_is_refused(ratio: float) -> None:
    graph = residual()
    groups = find_groups(graph)
    with pytest.raises(DeployError, match="ratio"):
        select_by_ratio(groups, importance(graph, groups, "l1"), ratio)


def test_a_goal_that_cannot_be_reached_says_so() -> None:
    graph = residual()
    groups = find_groups(graph)
    with pytest.raises(DeployError, match="smallest allowed"):
        select_by_macs(graph, groups, importance(graph, groups, "l1"), 0.001)


def test_a_sensitivity_scan_finds_the_group_that_matters_least() -> None:
    graph = residual()
    # The layer whose weights are next to nothing can lose most of its channels.
    values = dict(graph.values) | {"inner.w": constant("inner.w", graph.value("inner.w").array * 1e-4)}
    values["inner.b"] = constant("inner.b", graph.value("inner.b").array * 1e-4)
    graph = Graph("net", values, graph.nodes, graph.inputs, graph.outputs)
    x = np.random.default_rng(5).normal(0, 1, (8, *graph.value("x").shape)).astype(np.float32)
    (reference,) = run(graph, [x])

    def score(candidate: Graph) -> float:
        return 1.0 - float(np.abs(run(candidate, [x])[0] - reference).mean() / np.abs(reference).mean())

    groups = find_groups(graph)
    scores = importance(graph, groups, "l1")
    options = SelectOptions(divisor=1)
    scan = scan_sensitivity(graph, groups, scores, score, options)
    assert scan.baseline == 1.0
    assert scan.ratios_within(0.01)["inner"] == 0.75
    assert scan.ratios_within(0.01).get("stem", 0.0) < 0.75
    removed = choose_ratios(graph, groups, scores, scan, score, 0.05, options)
    assert removed
    assert scan.baseline - score(remove(graph, groups, removed)) <= 0.05


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        (None, "none", 0.0),
        ("auto", "auto", 0.0),
        ("0.3", "ratio", 0.3),
        ("macs=50%", "macs", 0.5),
        ("params=12.5%", "params", 0.125),
        ("flash=64k", "flash", 65536),
        ("ram=20000", "ram", 20000),
        ("latency=12.5ms", "latency", 12.5),
    ],
)
def test_goals_are_read(text: str | None, kind: str, amount: float) -> None:
    assert parse_goal(text) == PruneGoal(kind, amount)


@pytest.mark.parametrize(
    "text", ["", "1.0", "-0.1", "nan", "macs=50", "macs=0%", "speed=2", "flash=x", "ram=-1"]
)
def test_a_goal_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(DeployError):
        parse_goal(text)
