"""Centroids that are learned: the example of the paper, and what training leaves in the codebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from low_bit_cases import everywhere, network, samples
from quantize_support import integers_of

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from tinydeploy.engine import run  # noqa: E402
from tinydeploy.finetune import TrainOptions, finetune  # noqa: E402
from tinydeploy.ir.forms import Codebook  # noqa: E402
from tinydeploy.ops.quantize import dequantize_array  # noqa: E402
from tinydeploy.quantize.methods.centroids import CentroidWeights, shared, table_of  # noqa: E402
from tinydeploy.quantize.qat import QatOptions, make_quantized_trainable  # noqa: E402
from tinydeploy.quantize.recipe_file import read_recipe  # noqa: E402
from tinydeploy.quantize.schemes import KMeans, folded  # noqa: E402
from tinydeploy.quantize.schemes.codebook import nearest  # noqa: E402
from tinydeploy.quantize.schemes.learned import Scaled  # noqa: E402
from tinydeploy.quantize.weights import quantize_linear  # noqa: E402

# S. Han et al., "Deep Compression" (ICLR 2016), figure 3.
WEIGHTS = [
    [2.09, -0.98, 1.48, 0.09],
    [0.05, -0.14, -1.08, 2.12],
    [-0.91, 1.92, 0, -1.03],
    [1.87, 0, 1.53, 1.49],
]
GRADIENT = [
    [-0.03, -0.01, 0.03, 0.02],
    [-0.01, 0.01, -0.02, 0.12],
    [-0.01, 0.02, 0.04, 0.01],
    [-0.07, -0.02, 0.01, -0.02],
]
CENTROIDS = [-1.0, 0.0, 1.5, 2.0]


def method(weights: Any, bits: int = 2, *, moving: bool = False, bits_from: int | None = None) -> Any:
    return CentroidWeights(KMeans(bits), torch.as_tensor(weights), 0, bits_from, moving=moving)


def normal(*shape: int, seed: int = 0) -> Any:
    return torch.tensor(np.random.default_rng(seed).normal(0, 0.1, shape), dtype=torch.float32)


def test_the_worked_example_of_the_paper() -> None:
    centroids = torch.tensor(CENTROIDS, requires_grad=True)
    clusters = torch.from_numpy(nearest(np.array(CENTROIDS), np.array(WEIGHTS)))
    assert clusters.tolist() == [[3, 0, 2, 1], [1, 1, 0, 3], [0, 3, 1, 0], [3, 1, 2, 2]]
    shared(centroids, clusters).backward(torch.tensor(GRADIENT))
    assert centroids.grad.tolist() == pytest.approx([-0.03, 0.04, 0.02, 0.04])
    fine_tuned = (centroids - centroids.grad).tolist()
    assert fine_tuned == pytest.approx([-0.97, -0.04, 1.48, 1.96])


@pytest.mark.parametrize("moving", [False, True])
def test_a_centroid_gets_the_sum_of_its_weights_under_the_scale_of_each_output(moving: bool) -> None:
    weights, gradient = normal(6, 3, 3, 4).requires_grad_(), normal(6, 3, 3, 4, seed=1)
    m = method(weights, 3, moving=moving)
    m(weights).backward(gradient)
    scaled = gradient * m.scales.reshape(-1, 1, 1, 1)
    for k in range(int(m.used)):
        assert m.centroids.grad[k].item() == pytest.approx(scaled[m.clusters == k].sum().item(), rel=1e-4)
    if moving:
        torch.testing.assert_close(weights.grad, gradient)
    else:
        assert weights.grad is None


@pytest.mark.parametrize("moving", [False, True])
def test_it_starts_at_the_fit_of_the_scheme(moving: bool) -> None:
    weights = normal(6, 3, 3, 4)
    made = quantize_linear(weights.numpy(), None, 0, 1.0, KMeans(3))
    real = made.weights * np.array(made.scales).reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(method(weights, 3, moving=moving)(weights).detach().numpy(), real, rtol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 3.7])
def test_what_was_learned_lowers_to_the_integers_of_training_whatever_the_weights_are(factor: float) -> None:
    weights = normal(5, 40)
    m = method(weights, 3)
    with torch.no_grad():
        # They may pass each other and all lie at one side.
        m.centroids += torch.linspace(0.9, -0.6, 8)
    learned = m(weights).detach().numpy()
    scheme = Scaled(m.scheme(), (factor,) * 5)
    moved = factor * normal(5, 40, seed=2).numpy()
    made = quantize_linear(moved, np.zeros(5, np.float32), 0, 0.01, scheme)
    table, _ = table_of(m.centroids.detach())
    assert np.array_equal(made.weights, table[m.clusters].numpy())
    assert isinstance(made.form, Codebook)
    assert set(made.form.table) <= set(table.int().tolist())
    np.testing.assert_allclose(made.weights * np.array(made.scales)[:, None], factor * learned, rtol=1e-5)


def test_moving_centroids_take_the_weights_that_are_nearest() -> None:
    weights = normal(5, 40)
    m = method(weights, 2, moving=True)
    with torch.no_grad():
        m.centroids += torch.tensor([0.3, 0.2, -0.4, -0.1])
    moved = normal(5, 40, seed=3)
    m(moved)
    distances = (moved / m.scales[:, None])[..., None] - m.centroids.detach()
    assert torch.equal(m.clusters, distances.abs().argmin(dim=-1))
    stays = method(weights, 2)
    before = stays.clusters.clone()
    stays(moved)
    assert torch.equal(stays.clusters, before)


def test_an_output_of_zeros_stays_one_when_no_centroid_does() -> None:
    weights = normal(4, 40)
    weights[2] = 0.0
    m = method(weights, 2)
    with torch.no_grad():
        m.centroids += 0.21
    assert (m(weights)[2] == 0).all()
    bias = np.array([1.0, -1.0, 0.5, 0.0], np.float32)
    made = quantize_linear(weights.numpy(), bias, 0, 0.01, m.scheme())
    assert np.abs(made.weights[2] * made.scales[2]).max() < 1e-6
    assert made.bias is not None
    assert made.bias[2] * made.scales[2] * 0.01 == pytest.approx(0.5, rel=1e-6)


def test_weights_of_nothing_but_zeros() -> None:
    m = method(torch.zeros(3, 8))
    assert not m(torch.zeros(3, 8)).any()
    made = quantize_linear(np.zeros((3, 8), np.float32), None, 0, 1.0, m.scheme())
    assert not made.weights.any()


@pytest.mark.parametrize("moving", [False, True])
def test_bits_that_go_down_share_anew_what_was_learned(moving: bool) -> None:
    weights = normal(5, 40)
    m = method(weights, 2, moving=moving, bits_from=8)
    assert m.centroids.shape == (128,)
    m.set_bits(lambda bits: 8)
    fine = m(weights).detach()
    assert len(fine[0].unique()) > 16
    # In between it lowers as if this were the end.
    assert len(quantize_linear(weights.numpy(), None, 0, 1.0, m.scheme()).form.table) <= 4
    m.set_bits(lambda bits: bits)
    expected = KMeans(2).fit(folded((weights if moving else fine).numpy(), 0))
    m(weights)
    assert np.array_equal(m.scheme().fit(np.ones((5, 40))).table, expected.table)
    assert int(m.used) <= 4


@pytest.mark.parametrize("weights", ["centroids", "centroids-moving"])
def test_training_in_bfloat16_leaves_at_most_so_many_values_and_the_engine_agrees(weights: Any) -> None:
    graph = network()
    x, y = samples(graph, 96)[0], np.random.default_rng(7).integers(0, 5, 96)
    options = QatOptions(weights=weights, weights_only=True)
    module = make_quantized_trainable(graph, [x], options=options, recipe=everywhere(KMeans(2)))
    result = finetune(module, x, y, TrainOptions(epochs=2, learning_rate=5e-3, precision="bfloat16"))
    assert result.epochs[1].loss < result.epochs[0].loss
    lowered = module.to_quantized_graph()
    forms = [v for v in lowered.constants() if isinstance(v.form, Codebook)]
    assert len(forms) == 5
    assert all(len(np.unique(v.array)) <= 4 for v in forms)
    (q,) = run(lowered, integers_of(lowered, [x]))
    (real,) = module(torch.from_numpy(x))
    assert np.array_equal(real.numpy(), dequantize_array(q, lowered.value(lowered.outputs[0]).quant))


def test_a_recipe_chooses_learned_centroids(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[default]\nscheme = "codebook:3"\n[training]\nweights = "centroids-moving"\n')
    assert read_recipe(path).training == QatOptions(weights="centroids-moving")
