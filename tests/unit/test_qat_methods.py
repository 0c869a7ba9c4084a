"""The methods of quantization-aware training: whole trainings end with the integers that they trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from low_bit_cases import everywhere, inside, network, samples
from quantize_support import integers_of
from sweeps import thinned

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from tinydeploy import ops  # noqa: E402
from tinydeploy.cli.compress import compress_command  # noqa: E402
from tinydeploy.engine import run, run_all  # noqa: E402
from tinydeploy.errors import DeployError  # noqa: E402
from tinydeploy.finetune import TrainOptions, finetune  # noqa: E402
from tinydeploy.ir.forms import Codebook, Packed, Planes  # noqa: E402
from tinydeploy.ir.graph import Graph  # noqa: E402
from tinydeploy.ops.quantize import dequantize_array  # noqa: E402
from tinydeploy.quantize.methods.signs import PACE, BinaryWeights  # noqa: E402
from tinydeploy.quantize.qat import QatOptions, make_quantized_trainable  # noqa: E402
from tinydeploy.quantize.qat_options import (  # noqa: E402
    Ranges,
    Rounding,
    SignGradient,
    WeightSteps,
    overridden,
)
from tinydeploy.quantize.recipe import Recipe, linear_nodes  # noqa: E402
from tinydeploy.quantize.recipe_file import read_recipe  # noqa: E402
from tinydeploy.quantize.scales import Activations  # noqa: E402
from tinydeploy.quantize.schemes import (  # noqa: E402
    AbcNet,
    Binary,
    KMeans,
    Linear,
    MinMaxRange,
    TrainedTernary,
)
from tinydeploy.quantize.staircases import few_levels  # noqa: E402

CASES: dict[str, tuple[Recipe, QatOptions]] = {
    "lsq": (everywhere(Linear(3), Activations(4)), QatOptions("lsq", weights="lsq")),
    "lsq one step a layer": (everywhere(Linear(4, per_tensor=True)), QatOptions("lsq", weights="lsq")),
    "lsq from eight bits": (
        everywhere(Linear(2), Activations(4)),
        QatOptions("lsq", weights="lsq", bits_from=8),
    ),
    "pact": (everywhere(Linear(4), Activations(4)), QatOptions("pact")),
    "pact of symmetric integers": (
        everywhere(Linear(4), Activations(5, symmetric=True)),
        QatOptions("pact"),
    ),
    "hwgq": (everywhere(Linear(4), Activations(2)), QatOptions("hwgq")),
    "hwgq plain": (everywhere(Linear(4), Activations(3)), QatOptions("hwgq-plain")),
    "hwgq log": (everywhere(Linear(4), Activations(3)), QatOptions("hwgq-log")),
    "hwgq at Lloyd's levels": (everywhere(Linear(4), Activations(2)), QatOptions("hwgq-lloyd")),
    "abc of activations": (everywhere(Linear(4), Activations(3, levels="abc")), QatOptions()),
    "abc of both": (everywhere(AbcNet(2), Activations(2)), QatOptions("abc")),
    "abc of both, one base": (everywhere(AbcNet(1), Activations(1, levels="abc")), QatOptions("lsq")),
    "ttq": (inside(TrainedTernary()), QatOptions()),
    "ttq everywhere": (everywhere(TrainedTernary()), QatOptions()),
    "centroids": (everywhere(KMeans(3)), QatOptions(weights="centroids")),
    "centroids from eight bits": (everywhere(KMeans(2)), QatOptions(weights="centroids", bits_from=8)),
    "moving centroids": (everywhere(KMeans(3)), QatOptions(weights="centroids-moving")),
    "moving centroids from eight bits": (
        everywhere(KMeans(2)),
        QatOptions(weights="centroids-moving", bits_from=8),
    ),
    "dynamic": (everywhere(MinMaxRange(3)), QatOptions()),
    "stochastic": (everywhere(Linear(4), Activations(6)), QatOptions(rounding="stochastic")),
    "stochastic lsq": (
        everywhere(Linear(4), Activations(6)),
        QatOptions("lsq", weights="lsq", rounding="stochastic"),
    ),
    "binary by hard tanh": (inside(Binary(), signs=True), QatOptions(signs="hardtanh")),
    "binary by a polynomial": (inside(Binary(), signs=True), QatOptions(signs="polynomial")),
    "binary by a ReLU": (inside(Binary(), signs=True), QatOptions(signs="relu")),
}


def trained(name: str, epochs: int = 3, **given: Any) -> tuple[Any, Any, Any]:
    recipe, options = CASES[name]
    graph = network()
    x = samples(graph, 96)[0]
    y = np.random.default_rng(7).integers(0, 5, 96)
    module = make_quantized_trainable(graph, [x], options=options, recipe=recipe)
    result = finetune(module, x, y, TrainOptions(epochs=epochs, learning_rate=5e-3, **given))
    return module, result, x


@pytest.mark.parametrize("name", thinned(CASES, 2))
def test_evaluation_is_the_integer_engine(name: str) -> None:
    module, result, x = trained(name)
    lowered = module.to_quantized_graph()
    (q,) = run(lowered, integers_of(lowered, [x]))
    (real,) = module(torch.from_numpy(x))
    assert np.array_equal(real.numpy(), dequantize_array(q, lowered.value(lowered.outputs[0]).quant))
    assert min(e.loss for e in result.epochs[1:]) < result.epochs[0].loss


@pytest.mark.parametrize("name", thinned([n for n in CASES if "stochastic" not in n], 2, first=1))
def test_the_first_layers_train_with_the_integers_that_are_exported(name: str) -> None:
    module, _, x = trained(name)
    lowered = module.to_quantized_graph()
    arrays = run_all(lowered, integers_of(lowered, [x]))
    with torch.no_grad():
        values = module.values(torch.from_numpy(x))
    first = module.graph.nodes[0].outputs[0]
    value = lowered.value(first)
    off = np.abs(values[first].numpy() - dequantize_array(arrays[first], value.quant)) / value.quant.scale
    # Sums near the middle of two integers may go to the other one: the bias is rounded in between, by a
    # quarter of its step in the mean.
    assert off.max() < 1.01
    step = max(lowered.value(str(lowered.nodes[0].inputs[2])).quant.scales) / value.quant.scale
    assert (off > 0.5).mean() < 0.02 + step / 4


def test_binary_weights_move_faster_than_others_so_that_signs_change(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, _ = CASES["binary by hard tanh"]
    module = make_quantized_trainable(network(), samples(network(), 8), recipe=recipe)
    paces = {name: module.pace(name) for name, _ in module.named_parameters()}
    assert set(paces.values()) == {1.0, PACE}
    treated = recipe.assign(module.graph)
    binary = [n for n in linear_nodes(module.graph) if treated.of(n).weights == Binary()]
    weights = {str(n.inputs[1]) for n in binary}
    assert {id(module.weight(w)) for w in weights} == {
        id(p) for name, p in module.named_parameters() if paces[name] == PACE
    }

    def changed() -> float:
        after = trained("binary by hard tanh")[0].to_graph()
        signs = [np.sign(after.value(w).array) != np.sign(network().value(w).array) for w in weights]
        return float(np.mean(np.concatenate([s.ravel() for s in signs])))

    fast = changed()
    monkeypatch.setattr(BinaryWeights, "pace", 1.0)
    assert fast > 2.0 * changed()
    assert fast > 0.03


@pytest.mark.parametrize(
    "name", ["lsq", "ttq", "stochastic lsq", "pact", "abc of both", "centroids", "moving centroids"]
)
def test_a_seed_gives_the_same_network_again(name: str) -> None:
    first, second = trained(name, 2)[0].to_quantized_graph(), trained(name, 2)[0].to_quantized_graph()
    other = trained(name, 2, seed=1)[0].to_quantized_graph()

    def constants(graph: Graph) -> list[Any]:
        return [(v.name, v.quantization, v.array.tobytes()) for v in graph.constants()]

    assert constants(first) == constants(second)
    assert constants(first) != constants(other)


@pytest.mark.parametrize(
    "name", ["lsq from eight bits", "centroids from eight bits", "moving centroids from eight bits"]
)
def test_a_stopped_training_of_learned_steps_goes_on(name: str, tmp_path: Path) -> None:
    recipe, options = CASES[name]
    graph = network()
    x, y = samples(graph, 64)[0], np.random.default_rng(7).integers(0, 5, 64)

    def module() -> Any:
        return make_quantized_trainable(graph, [x], options=options, recipe=recipe)

    given = TrainOptions(epochs=4, learning_rate=5e-3, checkpoint=tmp_path / "run.safetensors")
    whole = module()
    finetune(whole, x, y, replace(given, checkpoint=None))
    stopped = module()

    class StopError(Exception):
        pass

    def stop(p: Any) -> None:
        if p.epoch == 3:
            raise StopError

    with pytest.raises(StopError):
        finetune(stopped, x, y, given, stop)
    resumed = module()
    assert finetune(resumed, x, y, given).resumed == 2
    for key, p in whole.state_dict().items():
        assert torch.equal(p, resumed.state_dict()[key]), key


@pytest.mark.parametrize(
    ("name", "learns"),
    [
        ("lsq", "step.parts"),
        ("pact", "alpha.parts"),
        ("ttq", "positive.parts"),
        ("abc of activations", "beta.parts"),
    ],
)
def test_what_is_learned_moves(name: str, learns: str) -> None:
    module = trained(name)[0]
    found = [p for n, p in module.named_parameters() if n.endswith(learns)]
    assert found
    assert any((p.detach() - 1.0).abs().max() > 1e-3 for p in found)
    assert all((p > 0).all() for p in found)


def stairs(graph: Graph) -> list[ops.Staircase]:
    return [node.op for node in graph.nodes if isinstance(node.op, ops.Staircase)]


@pytest.mark.parametrize("name", ["hwgq at Lloyd's levels", "abc of activations"])
def test_staircases_learn_and_the_float_graph_has_what_was_learned(name: str) -> None:
    recipe, options = CASES[name]
    graph = network()
    before = make_quantized_trainable(graph, [samples(graph, 96)[0]], options=options, recipe=recipe)
    module = trained(name)[0]
    first, learned, integers = (
        stairs(g) for g in (before.to_graph(), module.to_graph(), module.to_quantized_graph())
    )
    assert len(first) == len(learned) == len(integers) > 0
    for a, b, q in zip(first, learned, integers, strict=True):
        assert a.levels != b.levels
        assert a.thresholds != b.thresholds
        steps = np.diff(b.levels) / (b.levels[-1] - b.levels[0]) * (q.levels[-1] - q.levels[0])
        np.testing.assert_allclose(np.diff(q.levels), steps, atol=1.001)


def test_a_staircase_that_came_with_the_network_learns_too() -> None:
    recipe = everywhere(Linear(4), Activations(3, levels="abc"))
    graph = few_levels(network(), samples(network(), 96), recipe)
    x, y = samples(graph, 96)[0], np.random.default_rng(7).integers(0, 5, 96)
    module = make_quantized_trainable(graph, [x])
    finetune(module, x, y, TrainOptions(epochs=1, learning_rate=5e-3))
    assert all(a != b for a, b in zip(stairs(graph), stairs(module.to_graph()), strict=True))


@pytest.mark.parametrize("name", ["hwgq at Lloyd's levels", "abc of activations"])
def test_staircases_train_in_bfloat16(name: str) -> None:
    module, result, x = trained(name, precision="bfloat16")
    assert min(e.loss for e in result.epochs[1:]) < result.epochs[0].loss
    lowered = module.to_quantized_graph()
    (q,) = run(lowered, integers_of(lowered, [x]))
    (real,) = module(torch.from_numpy(x))
    assert np.array_equal(real.numpy(), dequantize_array(q, lowered.value(lowered.outputs[0]).quant))


@pytest.mark.parametrize(
    "given",
    [
        {"ranges": "guessed"},
        {"weights": "pact"},
        {"rounding": "up"},
        {"signs": "step"},
        {"momentum": 0.0},
        {"bits_from": 2},
        {"ranges": "learned", "weights_only": True},
    ],
)
def test_options_without_sense_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(DeployError):
        QatOptions(**given).check()


def test_a_recipe_says_how_it_is_learned(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(
        '[default]\nscheme = "ttq"\n[training]\nranges = "pact"\nweights = "lsq"\nrounding = "stochastic"\n'
        'bits_from = 8\nsigns = "relu"\n'
    )
    recipe = read_recipe(path)
    assert recipe.training == QatOptions("pact", 0.01, False, "lsq", "stochastic", 8, "relu")
    assert overridden(recipe.training, ranges="lsq").ranges == "lsq"
    for wrong in ('ranges = "hwgq-loyd"', "bits_from = 9", "momentum = 0.5", "weights = 1"):
        path.write_text(f"[training]\n{wrong}\n")
        with pytest.raises(DeployError, match=str(path)):
            read_recipe(path)


def test_the_command_line_offers_what_there_is() -> None:
    offered = {p.name: getattr(p.type, "choices", ()) for p in compress_command.params}
    for name, allowed in (
        ("qat_ranges", Ranges),
        ("qat_weights", WeightSteps),
        ("qat_rounding", Rounding),
        ("qat_signs", SignGradient),
    ):
        assert tuple(offered[name]) == get_args(allowed)


def test_forms_of_what_was_trained() -> None:
    kinds: dict[str, Callable[[Any], bool]] = {
        "lsq": lambda form: form == Packed(3),
        "ttq everywhere": lambda form: isinstance(form, Planes) and len(form.signs) == 2,
        "dynamic": lambda form: isinstance(form, Codebook) and form.bits == 3,
        "centroids": lambda form: isinstance(form, Codebook) and form.bits == 3,
    }
    for name, fits in kinds.items():
        graph = trained(name, 1)[0].to_quantized_graph()
        assert fits(graph.value(str(graph.nodes[2].inputs[1])).form), name
