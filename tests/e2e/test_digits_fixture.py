"""The digits fixture: the files in the repository do what fixtures/README.md says of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from interpreters import run_micro

from tinydeploy.data import fit_samples, read_dataset
from tinydeploy.engine import run
from tinydeploy.evaluation import evaluate
from tinydeploy.frontends.tflite import read_tflite
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.verify import graph_macs
from tinydeploy.quantize import CALIBRATORS, QuantizeOptions, first_bad_layer, layer_errors, quantize

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
DIGITS = FIXTURES / "digits"


def load(name: str) -> Graph:
    return read_tflite(DIGITS / f"digits_{name}.tflite")


def accuracy(graph: Graph) -> float:
    samples = fit_samples(graph, read_dataset(DIGITS / "samples.npz"))
    assert not samples.warnings
    return evaluate(graph, samples, model=graph.name).value


def stated_accuracy(name: str) -> float:
    """The last column of README's row for `float` or `int8`."""
    row = re.search(rf"^\| {name} \|.*\| ([0-9.]+) \|$", (FIXTURES / "README.md").read_text(), re.MULTILINE)
    assert row is not None
    return float(row[1])


def test_the_engine_gives_what_tensorflow_lite_micro_gave() -> None:
    graph = load("int8")
    golden = read_dataset(DIGITS / "golden.npz")
    x, y = golden.arrays["x"], golden.arrays["y"]
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((16, 8, 8, 1), np.int8, (16, 10), np.int8)
    assert np.array_equal(run(graph, [x[:, np.newaxis]])[0][:, 0], y)


def test_the_engine_equals_tensorflow_lite_micro_on_all_samples() -> None:
    graph = load("int8")
    (x,) = fit_samples(graph, read_dataset(DIGITS / "samples.npz")).inputs
    noise = np.random.default_rng(0).integers(-128, 128, (50, *x.shape[1:])).astype(np.int8)
    x = np.concatenate([x, noise])
    (theirs,) = run_micro((DIGITS / "digits_int8.tflite").read_bytes(), [x])
    assert np.count_nonzero(run(graph, [x])[0] != theirs) == 0


@pytest.mark.parametrize("name", ["float", "int8"])
def test_the_accuracy_is_at_least_what_the_readme_states(name: str) -> None:
    stated = stated_accuracy(name)
    assert stated >= 0.96
    assert accuracy(load(name)) >= stated


def test_the_two_models_have_the_same_layers_and_the_stated_size() -> None:
    real, integers = load("float"), load("int8")
    assert [n.op.kind for n in real.nodes] == [n.op.kind for n in integers.nodes]
    assert graph_macs(real) == graph_macs(integers)
    parameters = [v for v in real.constants()]
    assert f"{sum(v.elements for v in parameters):,} parameters" in (FIXTURES / "README.md").read_text()


@pytest.mark.parametrize("calibration", CALIBRATORS)
def test_quantizing_the_float_model_again_keeps_its_accuracy(calibration: str) -> None:
    graph = load("float")
    samples = fit_samples(graph, read_dataset(DIGITS / "samples.npz"))
    result = quantize(graph, samples.inputs, QuantizeOptions(calibration))
    # Two of 200 samples.
    assert accuracy(result) >= stated_accuracy("float") - 0.01
    assert first_bad_layer(layer_errors(graph, result, samples.inputs)) is None
