"""Recipes: what the options and the file say, which layer they fall on, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphs import GraphBuilder, conv_2d, depthwise_conv_2d, fully_connected, pool, reshape

from tinydeploy import ops
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.quantize.recipe import LayerRule, Recipe, Treatment
from tinydeploy.quantize.recipe_file import make_recipe, parse_bits, read_recipe
from tinydeploy.quantize.scales import Activations
from tinydeploy.quantize.schemes import INT8, AbcNet, Binary, KMeans, Linear, Ternary


def network() -> Graph:
    """conv_2d_0, depthwise_conv_2d_1, conv_2d_2, conv_2d_3, a pool, and a fully connected layer."""
    b = GraphBuilder(0, is_float=True)
    x = conv_2d(b, outputs=4)
    x = conv_2d(b, x=depthwise_conv_2d(b, x=x), outputs=4, kernel=(1, 1))
    x = pool(b, ops.MaxPool2D, x=conv_2d(b, x=x, outputs=4))
    return b.graph(fully_connected(b, x=reshape(b, x=x, to=(1, 36))))


def weights(recipe: Recipe) -> dict[str, str]:
    graph = network()
    assigned = recipe.assign(graph)
    return {n.name: assigned.of(n).weights.name for n in graph.nodes if len(n.inputs) > 1}


def test_bits_fall_on_every_layer() -> None:
    assert set(weights(make_recipe(bits="4:8")).values()) == {"linear:4"}
    assert make_recipe(bits="4:6").default == Treatment(Linear(4), Activations(6))
    assert make_recipe() == Recipe()


@pytest.mark.parametrize("scheme", ["binary", "ternary", "abc:2"])
def test_bit_planes_leave_the_first_the_last_and_depthwise_layers_linear(scheme: str) -> None:
    assert weights(make_recipe(scheme=scheme)) == {
        "conv_2d_0": "linear:8",
        "depthwise_conv_2d_1": "linear:4" if scheme == "binary" else "linear:8",
        "conv_2d_2": scheme,
        "conv_2d_3": scheme,
        "fully_connected_6": "linear:8",
    }


def test_a_codebook_falls_on_every_layer() -> None:
    assert set(weights(make_recipe(scheme="codebook:3")).values()) == {"codebook:3"}


def test_binary_layers_alone_read_signs() -> None:
    assert make_recipe(scheme="binary").default.signs
    assert not make_recipe(scheme="ternary").default.signs


WHOLE = """
[[layers]]
name = "depthwise*"
scheme = "abc:2"

[[layers]]
name = "conv_2d_[23]"
bits = "3:5"
range = "full"
granularity = "tensor"
activation_range = "symmetric"

[[layers]]
name = "conv_2d_3"
scheme = "binary"

[default]
scheme = "codebook:4"
"""


def file(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_the_first_rule_that_matches_wins(tmp_path: Path) -> None:
    recipe = read_recipe(file(tmp_path, WHOLE))
    assert recipe.rules == (
        LayerRule("depthwise*", Treatment(AbcNet(2))),
        LayerRule(
            "conv_2d_[23]", Treatment(Linear(3, full=True, per_tensor=True), Activations(5, symmetric=True))
        ),
        LayerRule("conv_2d_3", Treatment(Binary(), signs=True)),
    )
    assert recipe.default == Treatment(KMeans(4))
    assert weights(recipe) == {
        "conv_2d_0": "codebook:4",
        "depthwise_conv_2d_1": "abc:2",
        "conv_2d_2": "linear:3",
        "conv_2d_3": "linear:3",
        "fully_connected_6": "codebook:4",
    }


def test_activations_may_have_levels_that_are_not_even(tmp_path: Path) -> None:
    text = '[[layers]]\nname = "conv_2d_0"\nbits = 4\nactivations = "lloyd:2"\n'
    recipe = read_recipe(file(tmp_path, text + '[default]\nscheme = "binary"\nactivations = "abc:1"'))
    assert recipe.rules[0].treatment == Treatment(Linear(4), Activations(2, levels="lloyd"))
    # In place of the signs that binary weights read unless told otherwise.
    assert recipe.default == Treatment(Binary(), Activations(1, levels="abc"), signs=False)


def test_a_rule_overrides_what_a_default_of_bit_planes_leaves_alone(tmp_path: Path) -> None:
    recipe = read_recipe(
        file(tmp_path, '[[layers]]\nname = "conv_2d_0"\nscheme = "ternary"\n[default]\nscheme = "ternary"')
    )
    assert weights(recipe)["conv_2d_0"] == "ternary"
    assert weights(recipe)["fully_connected_6"] == "linear:8"
    assert recipe.default.weights == Ternary()


def test_a_tensor_has_the_most_bits_that_a_reader_asks_for(tmp_path: Path) -> None:
    recipe = read_recipe(file(tmp_path, '[[layers]]\nname = "conv_2d_2"\nbits = 8\nactivations = 4'))
    graph = network()
    assigned = recipe.assign(graph)
    assert assigned.activations("depthwise_conv_2d_1") == Activations(4)
    assert assigned.activations("conv_2d_2") == Activations(8)
    assert assigned.of(graph.nodes[2]).weights == INT8


WRONG = {
    "two kinds": ('[default]\nbits = 4\nscheme = "binary"', "exclude each other"),
    "bits out of range": ("[default]\nbits = 9", "out of range"),
    "bits as text": ('[default]\nbits = "4:9"', "not possible"),
    "a scheme that does not exist": ('[default]\nscheme = "sigma"', "no scheme"),
    "an unknown key": ("[default]\nbit = 4", "unknown key"),
    "a rule without a name": ("[[layers]]\nbits = 4", "missing"),
    "rules that are no tables": ("layers = [1]", "type"),
    "rules that are no array": ('layers = "x"', "type"),
    "a range of codebooks": ('[default]\nscheme = "codebook:2"\nrange = "full"', "has no range"),
    "a word that is no range": ('[default]\nbits = 4\nrange = "wide"', "unknown value"),
    "activations out of range": ("[default]\nactivations = 1", "out of range"),
    "nine bases": ('[default]\nactivations = "abc:9"', "no activations"),
    "no bases": ('[default]\nactivations = "abc:0"', "no activations"),
    "bases without a number": ('[default]\nactivations = "abc"', "no activations"),
    "Lloyd's levels of five bits": ('[default]\nactivations = "lloyd:5"', "no activations"),
    "levels that do not exist": ('[default]\nactivations = "max:3"', "no activations"),
    "a range of bases": ('[default]\nactivations = "abc:3"\nactivation_range = "symmetric"', "have no range"),
    "signs of bases": ('[default]\nactivations = "abc:3"\nsigns = true', "exclude each other"),
    "signs that are no boolean": ("[default]\nsigns = 1", "type"),
    "no TOML": ("[default", "not valid TOML"),
    "control characters": ('[[layers]]\nname = "a\\u0007"\nbits = 4', "printable"),
    "too many rules": ("layers = [" + "{}," * 1001 + "]", "1001 tables"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_recipe_is_refused_with_its_file_and_the_fact(name: str, tmp_path: Path) -> None:
    text, fact = WRONG[name]
    path = file(tmp_path, text)
    with pytest.raises(DeployError, match=fact) as error:
        read_recipe(path)
    assert error.value.where.startswith(str(path))
    assert error.value.hint


def test_a_missing_or_large_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="no such file"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(DeployError, match="larger"):
        read_recipe(file(tmp_path, "#" * 70_000))


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    recipe = read_recipe(file(tmp_path, '[[layers]]\nname = "convolution*"\nbits = 4'))
    with pytest.raises(DeployError, match="matches no layer") as error:
        recipe.assign(network())
    assert "inspect" in error.value.hint


@pytest.mark.parametrize("text", ["", "1", "9", "4:1", "4:9", "4:", ":8", "4:8:8", "-4", "４", "4 "])
def test_bits_that_do_not_exist_are_refused(text: str) -> None:
    with pytest.raises(DeployError, match="not possible"):
        parse_bits(text)


def test_two_options_at_once_are_refused() -> None:
    with pytest.raises(DeployError, match="--bits and --scheme exclude each other"):
        make_recipe(bits="4", scheme="binary")
