"""Networks with staircases in files: ONNX gives them back and damage is refused; TFLite has no operator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from low_bit_cases import RECIPES, network, samples

from tinydeploy import api, ops
from tinydeploy.backends.onnx import write_onnx
from tinydeploy.backends.tflite import write_tflite
from tinydeploy.cli.main import cli
from tinydeploy.engine import run
from tinydeploy.errors import DeployError
from tinydeploy.frontends.onnx import parse_onnx
from tinydeploy.ir.graph import Graph
from tinydeploy.quantize import QuantizeOptions, quantize
from tinydeploy.quantize.recipe import Recipe
from tinydeploy.quantize.staircases import few_levels

DIGITS = Path(__file__).resolve().parent.parent.parent / "fixtures" / "digits"


def quantized(recipe: Recipe) -> Graph:
    graph = network()
    return quantize(graph, samples(graph), QuantizeOptions(recipe=recipe))


@pytest.mark.parametrize("name", ["three bases of activations", "Lloyd's levels of activations"])
def test_tflite_refuses_a_staircase_by_name(name: str) -> None:
    with pytest.raises(
        DeployError, match=r"no operator for the 4 levels of 'conv_2d_0/(abc3|lloyd2)'"
    ) as error:
        write_tflite(quantized(RECIPES[name]))
    assert "ONNX" in error.value.hint


def changed_staircase(change: Any) -> bytes:
    """A written model, with `change` called on each constant of a staircase."""
    model = onnx.load_from_string(write_onnx(quantized(RECIPES["three bases of activations"])))
    for t in model.graph.initializer:
        what = t.name.rpartition("/")[2]
        if what.startswith(("threshold", "level")):
            value = np.array(change(what, float(onnx.numpy_helper.to_array(t))), np.float32)
            t.CopyFrom(onnx.numpy_helper.from_array(value, t.name))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda what, value: -value if what.startswith("threshold") else value, "do not ascend"),
        (lambda what, value: np.nan if what == "threshold1" else value, "not all finite"),
        (lambda what, value: np.inf if what == "level0" else value, "not all finite"),
        (lambda what, value: 1e30 if what == "level3" else value, "not representable"),
    ],
    ids=["descending", "no number", "infinite", "too large"],
)
def test_damaged_staircases_are_refused(change: Any, fact: str) -> None:
    with pytest.raises(DeployError, match=fact) as error:
        parse_onnx(changed_staircase(change), "g", "m.onnx")
    assert "m.onnx" in error.value.where


def rewired(change: Any) -> bytes:
    """The same with `change` called on the nodes Where of the first staircase, the last choice first."""
    model = onnx.load_from_string(write_onnx(quantized(RECIPES["three bases of activations"])))
    change(*[n for n in model.graph.node if n.op_type == "Where"][:3])
    return bytes(model.SerializeToString())


def test_a_step_that_nothing_reads_falls_away() -> None:
    def without_the_middle(top: Any, middle: Any, bottom: Any) -> None:
        middle.input[2], bottom.input[2] = top.input[2], top.output[0]

    back = parse_onnx(rewired(without_the_middle), "g", "m.onnx")
    counts = [len(n.op.levels) for n in back.nodes if isinstance(n.op, ops.Staircase)]
    assert counts == [3, *[4] * (len(counts) - 1)]


def test_a_step_that_is_an_output_too_is_refused() -> None:
    model = onnx.load_from_string(write_onnx(quantized(RECIPES["three bases of activations"])))
    top = next(n for n in model.graph.node if n.op_type == "Where")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(top.output[0]))
    with pytest.raises(DeployError, match="no staircase on what is compared"):
        parse_onnx(model.SerializeToString(), "g", "m.onnx")


def test_a_choice_of_a_computed_level_is_refused() -> None:
    def two_tensors(top: Any, middle: Any, bottom: Any) -> None:
        bottom.input[1] = middle.output[0]

    with pytest.raises(DeployError, match="computed by the model"):
        parse_onnx(rewired(two_tensors), "g", "m.onnx")


def test_a_float_staircase_goes_through_onnx() -> None:
    graph = few_levels(network(), samples(network()), RECIPES["three bases of activations"])
    back = parse_onnx(write_onnx(graph), graph.name, "m.onnx")
    x = samples(graph, 8, 9)
    np.testing.assert_allclose(run(back, x)[0], run(graph, x)[0], rtol=1e-5, atol=1e-5)
    first, second = ([n.op for n in g.nodes if isinstance(n.op, ops.Staircase)] for g in (graph, back))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose((*a.thresholds, *a.levels), (*b.thresholds, *b.levels), rtol=1e-6)


def test_a_staircase_leaves_the_onnx_and_says_so(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[default]\nscheme = "abc:2"\nactivations = "abc:3"\n')
    given = ["compress", DIGITS / "digits_float.tflite", "--data", DIGITS / "samples.npz"]
    given += ["--recipe", recipe, "-o", tmp_path / "out"]
    result = CliRunner().invoke(cli, [str(a) for a in given])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["tflite"] is None
    assert "4 levels" in report["tflite_refused"]
    assert api.load_model(tmp_path / "out" / "model.onnx").graph.is_integer


def test_too_many_levels_are_exit_code_2_before_anything_is_trained(tmp_path: Path) -> None:
    given = ["compress", DIGITS / "digits_float.tflite", "--data", DIGITS / "samples.npz", "--bits", "4:6"]
    given += ["--qat-ranges", "hwgq-lloyd", "-o", tmp_path / "out"]
    result = CliRunner().invoke(cli, [str(a) for a in given])
    assert result.exit_code == 2
    assert "--qat-ranges" in result.output
    assert "2 to 4 are possible" in result.output.replace("\n", " ")
    assert not (tmp_path / "out").exists()
