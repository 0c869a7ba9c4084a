"""Networks of few bits in files: ONNX carries every form without loss, TFLite int4 weights or a refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from interpreters import run_micro
from low_bit_cases import RECIPES, everywhere, network, samples
from onnx_models import session
from quantize_support import integers_of

from tinydeploy import api
from tinydeploy.backends.onnx import write_onnx
from tinydeploy.backends.onnx_forms import FORMS_KEY, packed_bytes
from tinydeploy.backends.tflite import write_tflite
from tinydeploy.cli.main import cli
from tinydeploy.engine import run, run_all
from tinydeploy.errors import DeployError
from tinydeploy.frontends.onnx import parse_onnx
from tinydeploy.frontends.tflite import parse_tflite
from tinydeploy.ir.forms import Codebook, Packed, Planes, Signs
from tinydeploy.ir.graph import Graph
from tinydeploy.passes.pads import fold_pads
from tinydeploy.quantize import QuantizeOptions, quantize
from tinydeploy.quantize.recipe import LayerRule, Recipe, Treatment
from tinydeploy.quantize.schemes import Binary, KMeans, Linear

ROOT = Path(__file__).resolve().parent.parent.parent
DIGITS = ROOT / "fixtures" / "digits"


def quantized(recipe: Recipe) -> Graph:
    graph = network()
    return quantize(graph, samples(graph), QuantizeOptions(recipe=recipe))


def same_form(a: object, b: object) -> bool:
    if isinstance(a, Planes) and isinstance(b, Planes):
        equal = np.array_equal(a.signs, b.signs) and np.array_equal(a.coefficients, b.coefficients)
        return bool(equal) and a.axis == b.axis
    return a == b


@pytest.mark.parametrize("name", RECIPES)
def test_onnx_gives_back_the_same_network_with_its_forms(name: str) -> None:
    graph = quantized(RECIPES[name])
    data = write_onnx(graph)
    assert data == write_onnx(graph)
    back = parse_onnx(data, graph.name, "m.onnx")
    assert [(n.name, n.op) for n in back.nodes if n.op.kind != "RESHAPE"] == [
        (n.name, n.op) for n in graph.nodes if n.op.kind != "RESHAPE"
    ]
    for value in graph.values.values():
        other = back.value(value.name)
        assert (other.quantization, other.dtype) == (value.quantization, value.dtype), value.name
        assert same_form(value.form, other.form), value.name
        if value.is_constant:
            assert np.array_equal(value.array, other.array), value.name
    x = integers_of(graph, samples(network(), 8, 9))
    assert np.array_equal(run(graph, x)[0], run(back, x)[0])
    # And once more from what was read, whose pads of signs are the convolution's own.
    folded = fold_pads(back)
    assert np.array_equal(run(folded, x)[0], run(parse_onnx(write_onnx(folded), "g", "m.onnx"), x)[0])


@pytest.mark.parametrize("name", RECIPES)
def test_onnx_runtime_computes_with_every_form(name: str) -> None:
    """The first layer is within a step of the engine; later ones are fed what ONNX Runtime rounded."""
    graph = quantized(RECIPES[name])
    model = onnx.load_from_string(write_onnx(graph))
    shown = {o.name for o in model.graph.output}
    first = graph.nodes[0].outputs[0]
    if first not in shown:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(first))
    runtime = session(model.SerializeToString(), optimize=False)
    x = integers_of(graph, samples(network(), 1, 9))
    given = runtime.get_inputs()[0]
    names = [o.name for o in runtime.get_outputs()]
    found = dict(zip(names, runtime.run(None, {given.name: x[0][0].reshape(given.shape)}), strict=True))
    ours, theirs = run_all(graph, x)[first][0].astype(int), found[first].astype(int)
    if graph.nodes[0].op.kind == "CONV_2D":
        theirs = theirs.transpose(0, 2, 3, 1)
    assert np.abs(theirs - ours).max() <= 1


@pytest.mark.parametrize(("bits", "opset", "kind"), [(4, 21, 22), (2, 25, 26), (3, 17, 3), (8, 17, 3)])
def test_weights_of_four_and_two_bits_are_types_of_onnx(bits: int, opset: int, kind: int) -> None:
    model = onnx.load_from_string(write_onnx(quantized(everywhere(Linear(bits)))))
    assert model.opset_import[0].version == opset
    weights = {t.name: t for t in model.graph.initializer if len(t.dims) == 4}
    assert {t.data_type for t in weights.values()} == {kind}
    noted = {p.key: json.loads(p.value) for p in model.metadata_props}
    assert set(noted.get(FORMS_KEY, {})) >= (set(weights) if bits == 3 else set())


@pytest.mark.parametrize("bits", [2, 4])
def test_packed_elements_are_as_the_onnx_package_packs_them(bits: int) -> None:
    kind = {2: "INT2", 4: "INT4"}[bits]
    if not hasattr(onnx.TensorProto, kind):
        pytest.skip(f"this onnx has no {kind}")
    data = np.random.default_rng(0).integers(-(1 << (bits - 1)), 1 << (bits - 1), 13).astype(np.int8)
    made = onnx.helper.make_tensor("w", getattr(onnx.TensorProto, kind), [13], data.tolist())
    raw = made.raw_data or bytes(v & 255 for v in made.int32_data)
    assert packed_bytes(data, bits) == raw


def with_unsigned_weights(data: bytes) -> bytes:
    """INT4 weights as UINT4 with a zero point of 8, as other exporters write them."""
    model = onnx.load_from_string(data)
    for t in model.graph.initializer:
        if t.data_type == 22:
            t.data_type = 21
            t.raw_data = bytes(b ^ 0x88 for b in t.raw_data)
    return bytes(model.SerializeToString())


def test_unsigned_weights_of_four_bits_are_the_same_network() -> None:
    graph = quantized(everywhere(Linear(4)))
    other = parse_onnx(with_unsigned_weights(write_onnx(graph)), "g", "m.onnx")
    x = integers_of(graph, samples(network(), 8, 9))
    assert np.array_equal(run(graph, x)[0], run(other, x)[0])
    assert Packed(4) in {v.form for v in other.constants()}


def changed(recipe: Recipe, change: Any) -> bytes:
    """A written model whose notes `change` was called with."""
    model = onnx.load_from_string(write_onnx(quantized(recipe)))
    prop = next(p for p in model.metadata_props if p.key == FORMS_KEY)
    result = change(json.loads(prop.value))
    prop.value = result if isinstance(result, str) else json.dumps(result)
    return bytes(model.SerializeToString())


def every(key: str, value: Any) -> Any:
    """Sets a key in all notes; a function gets the old value."""

    def change(notes: dict[str, dict[str, Any]]) -> Any:
        for note in notes.values():
            if key in note:
                note[key] = value(note[key]) if callable(value) else value
        return notes

    return change


PLANES, BOOK, ODD = RECIPES["ternary everywhere"], RECIPES["codebook 3"], RECIPES["linear 3 full range"]
HOSTILE = {
    "no JSON": (PLANES, lambda notes: "{"),
    "deep JSON": (PLANES, lambda notes: "[" * 100_000),
    "a list": (PLANES, lambda notes: []),
    "a note that is no object": (PLANES, lambda notes: dict.fromkeys(notes, 1)),
    "an unknown form": (PLANES, every("form", "fractal")),
    "a form of another kind": (PLANES, every("form", "packed")),
    "signs that are no base64": (PLANES, every("signs", "!!!!")),
    "signs of another length": (PLANES, every("signs", lambda s: s[:-4])),
    "signs without end": (PLANES, every("signs", "A" * 1_000_000)),
    "other signs": (PLANES, every("signs", lambda s: "A" * len(s.rstrip("=")) + "=" * s.count("="))),
    "an axis that does not exist": (PLANES, every("axis", 7)),
    "an axis that is a boolean": (PLANES, every("axis", True)),
    "coefficients beyond int16": (PLANES, every("coefficients", lambda c: [[70000] * len(c[0])])),
    "coefficients that are text": (PLANES, every("coefficients", "x")),
    "no coefficients": (PLANES, every("coefficients", [])),
    "nine planes": (PLANES, every("coefficients", lambda c: c * 9)),
    "a negative scale": (PLANES, every("scales", lambda s: [-v for v in s])),
    "infinite scales": (PLANES, every("scales", lambda s: [1e999 for _ in s])),
    "scales of nothing": (PLANES, every("scales", [])),
    "a table that lacks the weights": (BOOK, every("table", [1, 2, 3])),
    "a table out of order": (BOOK, every("table", lambda t: t[::-1])),
    "a table that is too long": (BOOK, every("table", lambda t: [*t, *range(9)])),
    "a table of fractions": (BOOK, every("table", lambda t: [v + 0.5 for v in t])),
    "too few bits for the weights": (ODD, every("bits", 2)),
    "no bits": (ODD, every("bits", 0)),
    "huge bits": (ODD, every("bits", 10**30)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_damaged_notes_are_refused(name: str) -> None:
    recipe, change = HOSTILE[name]
    with pytest.raises(DeployError) as error:
        parse_onnx(changed(recipe, change), "g", "m.onnx")
    assert "m.onnx" in error.value.where
    assert error.value.hint


def test_damaged_int4_data_is_refused() -> None:
    model = onnx.load_from_string(write_onnx(quantized(everywhere(Linear(4)))))
    for t in model.graph.initializer:
        if t.data_type == 22 and len(t.dims) == 4:
            t.raw_data = t.raw_data[:-1]
    with pytest.raises(DeployError, match="4 bits"):
        parse_onnx(model.SerializeToString(), "g", "m.onnx")


def test_changed_levels_of_a_sign_are_refused() -> None:
    model = onnx.load_from_string(write_onnx(quantized(RECIPES["binary"])))
    for t in model.graph.initializer:
        if t.name.endswith("/high"):
            t.CopyFrom(onnx.numpy_helper.from_array(np.array(7.5, np.float32), t.name))
    with pytest.raises(DeployError, match=r"half way|levels"):
        parse_onnx(model.SerializeToString(), "g", "m.onnx")


def test_tflite_holds_int4_weights_and_gives_them_back() -> None:
    graph = quantized(everywhere(Linear(4)))
    data = write_tflite(graph)
    back = parse_tflite(data, graph.name, "m.tflite")
    x = integers_of(graph, samples(network(), 8, 9))
    assert np.array_equal(run(graph, x)[0], run(back, x)[0])
    assert {v.form for v in back.constants() if len(v.shape) == 4} == {Packed(4)}


INT4_WHERE_MICRO_HAS_IT = {
    "convolutions": Recipe((LayerRule("fully*", Treatment()),), Treatment(Linear(4))),
    "fully connected, one scale": Recipe((LayerRule("fully*", Treatment(Linear(4, per_tensor=True))),)),
}


@pytest.mark.parametrize("name", INT4_WHERE_MICRO_HAS_IT)
def test_tflite_micro_equals_the_engine_on_int4_weights(name: str) -> None:
    graph = quantized(INT4_WHERE_MICRO_HAS_IT[name])
    x = integers_of(graph, samples(network(), 16, 9))
    (found,) = run_micro(write_tflite(graph), x)
    (wanted,) = run(graph, x)
    assert np.array_equal(np.asarray(found).reshape(wanted.shape), wanted)


def test_litert_runs_int4_weights() -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    graph = quantized(everywhere(Linear(4)))
    runtime = interpreter.Interpreter(model_content=write_tflite(graph))
    runtime.allocate_tensors()
    (x,) = integers_of(graph, samples(network(), 16, 9))
    (wanted,) = run(graph, [x])
    given, result = runtime.get_input_details()[0], runtime.get_output_details()[0]
    for sample, y in zip(x, wanted, strict=True):
        runtime.set_tensor(given["index"], sample.reshape(given["shape"]))
        runtime.invoke()
        assert np.abs(runtime.get_tensor(result["index"]).astype(int) - y.astype(int)).max() <= 2


@pytest.mark.parametrize(
    "recipe",
    [
        everywhere(Linear(3)),
        everywhere(KMeans(4)),
        everywhere(Binary()),
        RECIPES["binary"],
        RECIPES["symmetric activations of 6 bits"],
    ],
    ids=["three bits", "codebook", "planes", "signs", "activations"],
)
def test_tflite_refuses_other_forms_by_name(recipe: Recipe) -> None:
    with pytest.raises(DeployError, match="TFLite has no type") as error:
        write_tflite(quantized(recipe))
    assert "ONNX" in error.value.hint


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def compress(folder: Path, *arguments: str | Path) -> Result:
    model, data = DIGITS / "digits_float.tflite", DIGITS / "samples.npz"
    return invoke("compress", model, "--data", data, "-o", folder, *arguments)


def test_a_form_that_tflite_lacks_leaves_the_onnx_and_says_so(tmp_path: Path) -> None:
    assert compress(tmp_path, "--bits", "4").exit_code == 0
    assert (tmp_path / "model.tflite").exists()
    result = compress(tmp_path, "--scheme", "codebook:4")
    assert result.exit_code == 0
    assert "no model.tflite: TFLite has no type" in result.output.replace("\n", " ")
    # That of the run before must not pass for this one's.
    assert {p.name for p in tmp_path.iterdir()} == {"model.onnx", "report.json"}
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["tflite"] is None
    assert "codebook" in report["tflite_refused"]
    assert set(report["forms"].values()) == {"codebook 4 of 16"}
    model = api.load_model(tmp_path / "model.onnx")
    forms = [v.form for v in model.graph.constants() if v.form is not None]
    assert forms and all(isinstance(f, Codebook) for f in forms)


@pytest.mark.parametrize(
    "given", [("--bits", "4:8"), ("--scheme", "ternary"), ("--scheme", "binary"), ("--recipe", "abc")]
)
def test_what_compress_reports_is_what_evaluate_finds_in_the_file(
    given: tuple[str, str], tmp_path: Path
) -> None:
    recipe = tmp_path / "abc.toml"
    recipe.write_text('[default]\nbits = 4\nactivations = "abc:3"\n')
    chosen = (given[0], str(recipe)) if given[0] == "--recipe" else given
    result = compress(tmp_path / "out", *chosen, "--json")
    report = json.loads(result.stdout)
    found = invoke("evaluate", tmp_path / "out" / "model.onnx", "--data", DIGITS / "samples.npz", "--json")
    assert json.loads(found.stdout)["value"] == report["after"]["value"]
    assert report["after"]["name"] == ("4:abc3" if given[0] == "--recipe" else given[1])


def test_a_recipe_on_the_command_line(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[[layers]]\nname = "*"\nbits = "4:8"\n')
    assert compress(tmp_path / "out", "--recipe", recipe).exit_code == 0
    recipe.write_text('[[layers]]\nname = "nothing"\nbits = 4\n')
    result = compress(tmp_path / "none", "--recipe", recipe)
    assert result.exit_code == 2
    assert "matches no layer" in result.output
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "given", [("--bits", "1"), ("--bits", "4:9"), ("--scheme", "sigma"), ("--scheme", "abc:9")]
)
def test_what_does_not_exist_is_exit_code_2(given: tuple[str, str], tmp_path: Path) -> None:
    result = compress(tmp_path / "out", *given)
    assert result.exit_code == 2
    assert given[0] in result.output
    assert not (tmp_path / "out").exists()


def test_signs_are_a_form_of_their_own() -> None:
    graph = quantized(Recipe(default=Treatment(Binary(), signs=True), ends=False))
    back = parse_onnx(write_onnx(graph), "g", "m.onnx")
    assert Signs() in {v.form for v in back.values.values()}
