"""Each method of training, from a trained network to C on an emulated core: not a bit differs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("unicorn")

from tinydeploy import api

DIGITS = Path(__file__).parents[2] / "fixtures" / "digits"
TARGETS = ("cortex-m4",)
TWO = (*TARGETS, "cortex-m0plus")


@dataclass(frozen=True)
class Case:
    """Options of `compress`.

    Attributes:
        recipe: the text of a recipe.
        least: accuracy on the test samples; chance is 0.1.
        targets: that it is verified on.
    """

    bits: str | None = None
    scheme: str | None = None
    recipe: str | None = None
    ranges: str | None = None
    weights: str | None = None
    rounding: str | None = None
    start: int | None = None
    signs: str | None = None
    least: float = 0.9
    targets: tuple[str, ...] = TARGETS


CASES = {
    "lsq 4:4": Case("4:4", ranges="lsq", weights="lsq"),
    "lsq 3:8 from eight bits": Case("3:8", weights="lsq", start=8),
    "pact 4:4": Case("4:4", ranges="pact"),
    "hwgq 4:4": Case("4:4", ranges="hwgq", least=0.8),
    "hwgq at Lloyd's levels 4:2": Case("4:2", ranges="hwgq-lloyd", least=0.8, targets=TWO),
    "abc of activations 4:3": Case("4:3", ranges="abc", targets=TWO),
    "abc of both by a recipe": Case(
        recipe='[default]\nscheme = "abc:3"\nactivations = "abc:3"\n', least=0.8, targets=TWO
    ),
    "ttq": Case(scheme="ttq"),
    "dynamic range 4": Case(scheme="dynamic:4"),
    "centroids 3": Case(scheme="codebook:3", weights="centroids"),
    "moving centroids 2 from eight bits": Case(scheme="codebook:2", weights="centroids-moving", start=8),
    "stochastic 4:6": Case("4:6", rounding="stochastic"),
    "binary by hard tanh": Case(scheme="binary", signs="hardtanh", least=0.5),
    "binary by a polynomial": Case(scheme="binary", signs="polynomial", least=0.5),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_network_trained_by_it_is_exact_on_a_core(name: str, tmp_path: Path) -> None:
    c = CASES[name]
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(c.recipe or "")
    result, _ = api.compress(
        api.load_model(DIGITS / "digits.pt2"),
        DIGITS / "train.npz",
        eval_data=DIGITS / "test.npz",
        output=tmp_path,
        bits=c.bits,
        scheme=c.scheme,
        recipe=None if c.recipe is None else recipe,
        qat_epochs=6,
        qat_learning_rate=3e-2 if c.scheme == "binary" else 3e-3,
        qat_ranges=c.ranges,  # type: ignore[arg-type]
        qat_weights=c.weights,  # type: ignore[arg-type]
        qat_rounding=c.rounding,  # type: ignore[arg-type]
        qat_bits_from=c.start,
        qat_signs=c.signs,  # type: ignore[arg-type]
    )
    value = result.stages[-1].value
    assert value is not None
    assert value >= c.least
    with np.load(DIGITS / "test.npz") as held:
        np.savez(tmp_path / "few.npz", x=held["x"][:4])
    for target in c.targets:
        verified = api.verify(api.load_model(tmp_path / "model.onnx"), target, inputs=tmp_path / "few.npz")
        assert verified.ok
        assert verified.mismatches == 0
        assert verified.elements == 40
