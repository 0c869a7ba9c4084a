"""A small trained network in every form: compressed, read back from ONNX, and bit-exact on two cores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tinydeploy.cli.main import cli

pytestmark = pytest.mark.slow

pytest.importorskip("unicorn", reason="the extra emulate is not installed")

DIGITS = Path(__file__).resolve().parent.parent.parent / "fixtures" / "digits"
WAYS = {
    "4:8": ("--bits", "4:8"),
    "3:8": ("--bits", "3:8"),
    "2:8": ("--bits", "2:8"),
    "4:4": ("--bits", "4:4"),
    "ternary": ("--scheme", "ternary"),
    "codebook": ("--scheme", "codebook:4"),
    "binary": ("--scheme", "binary"),
    "abc": ("--scheme", "abc:3"),
}
RECIPES = {
    "bases of activations": '[default]\nbits = 4\nactivations = "abc:3"\n',
    "Lloyd's levels": '[default]\nscheme = "abc:2"\nactivations = "lloyd:2"\n',
    "mixed": """
[[layers]]
name = "first*"
bits = 4
[[layers]]
name = "widen*"
scheme = "binary"
[[layers]]
name = "classify*"
scheme = "codebook:3"
[default]
scheme = "abc:2"
""",
}


@pytest.mark.parametrize("way", [*WAYS, *RECIPES])
def test_every_form_is_bit_exact_on_two_cores(way: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPES.get(way, ""))
    given = WAYS.get(way, ("--recipe", str(recipe)))
    runner, out = CliRunner(), tmp_path / "out"
    data = ("--data", str(DIGITS / "samples.npz"))
    model = str(DIGITS / "digits_float.tflite")
    done = runner.invoke(cli, ["compress", model, *data, *given, "-o", str(out)])
    assert done.exit_code == 0, done.output
    for target in ("cortex-m4", "cortex-m0plus"):
        found = runner.invoke(cli, ["verify", str(out / "model.onnx"), "--target", target, "--json"])
        assert found.exit_code == 0, found.output
        report = json.loads(found.stdout)
        assert (report["mismatches"], report["float_symbols"]) == (0, [])
        assert report["elements"] > 0
