"""A recipe as a user writes it: `--bits`, `--scheme`, or a TOML file, which is hostile until checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from tinydeploy.errors import DeployError
from tinydeploy.quantize.qat_options import (
    QatOptions,
    Ranges,
    Rounding,
    SignGradient,
    WeightSteps,
)
from tinydeploy.quantize.recipe import INT8_RECIPE, LayerRule, Recipe, Treatment
from tinydeploy.quantize.scales import Activations
from tinydeploy.quantize.schemes import SCHEMES, Kind, Linear, parse_scheme
from tinydeploy.toml_file import Table, read_toml

_RULES_MAX = 1000
_BITS = "the bits of weights and activations, 2 to 8 each, such as 4 or 4:8"
_TREATMENT = ("bits", "scheme", "range", "granularity", "fit", "activations", "activation_range", "signs")


def make_recipe(bits: str | None = None, scheme: str | None = None, file: Path | None = None) -> Recipe:
    """The recipe of the three options, of which at most one is given; int8 without.

    Raises:
        DeployError: more than one, a number or name that does not exist, or a file that says nothing sound.
    """
    given = [o for o, v in (("--bits", bits), ("--scheme", scheme), ("--recipe", file)) if v is not None]
    if len(given) > 1:
        raise DeployError(
            f"{' and '.join(given)} exclude each other",
            where=given[1],
            hint="say all of it in a recipe: docs/low_bits.md",
        )
    if file is not None:
        return read_recipe(file)
    if scheme is not None:
        weights, kind = parse_scheme(scheme)
        return Recipe((), Treatment(weights, signs=kind.signs), kind.ends, _depthwise(kind))
    if bits is None:
        return INT8_RECIPE
    weight_bits, activation_bits = parse_bits(bits)
    return Recipe(default=Treatment(Linear(weight_bits), Activations(activation_bits)))


def parse_bits(text: str, where: str = "--bits") -> tuple[int, int]:
    """Bits of weights and of activations from `W` or `W:A`; 8 where A is missing."""
    first, colon, second = text.partition(":")
    numbers = [first, second] if colon else [first, "8"]
    if not all(len(n) == 1 and n in "2345678" for n in numbers):
        raise DeployError(f"{text[:80]!r} is not possible", where=where, hint=f"give {_BITS}")
    return int(numbers[0]), int(numbers[1])


def read_recipe(path: Path) -> Recipe:
    """The recipe of a TOML file: an array `layers`, with a pattern `name` each, and two tables, `default` for
    all other layers and `training` for how quantization-aware training learns.

    Raises:
        DeployError: naming file, key, fact and what is allowed.
    """
    table = read_toml(path, "docs/low_bits.md shows a whole recipe")
    table.check_keys((), ("layers", "default", "training"))
    rules = table.tables("layers", _RULES_MAX) if "layers" in table else []
    for rule in rules:
        rule.check_keys(("name",), _TREATMENT)
    made = tuple(LayerRule(rule.text("name"), _treatment(rule, path)[0]) for rule in rules)
    training = _training(table.table("training")) if "training" in table else QatOptions()
    if "default" not in table:
        return Recipe(made, where=str(path), training=training)
    inner = table.table("default")
    inner.check_keys((), _TREATMENT)
    default, kind = _treatment(inner, path)
    return Recipe(made, default, kind.ends, _depthwise(kind), str(path), training)


def _training(table: Table) -> QatOptions:
    """How quantization-aware training learns, as far as the table says it."""
    table.check_keys((), ("ranges", "weights", "rounding", "bits_from", "signs"))
    given: dict[str, Any] = {}
    for key, allowed in (
        ("ranges", get_args(Ranges)),
        ("weights", get_args(WeightSteps)),
        ("rounding", get_args(Rounding)),
        ("signs", get_args(SignGradient)),
    ):
        if key in table:
            given[key] = table.choice(key, allowed)
    if "bits_from" in table:
        given["bits_from"] = table.integer("bits_from", 3, 8)
    return QatOptions(**given)


def _depthwise(kind: Kind) -> Treatment:
    return Treatment(Linear(kind.depthwise_bits))


def _treatment(table: Table, path: Path) -> tuple[Treatment, Kind]:
    """What a table says of layers, and the kind of its scheme."""
    if "bits" in table and "scheme" in table:
        raise table.error("scheme", "bits and a scheme exclude each other", "leave one of them out")
    activation_bits, kind, linear = 8, SCHEMES["linear"], Linear()
    weights = None
    if "scheme" in table:
        weights, kind = parse_scheme(table.text("scheme"), str(path))
        linear = weights if isinstance(weights, Linear) else linear
    elif "bits" in table:
        weight_bits, activation_bits = _bits(table, path)
        linear = Linear(weight_bits)
    if weights is None or isinstance(weights, Linear):
        weights = _linear(linear, table)
    else:
        for key in ("range", "granularity", "fit"):
            if key in table:
                raise table.error(key, f"the scheme {weights.name} has no {key}", "linear weights have it")
    how = _activations(table, activation_bits)
    signs = table.boolean("signs") if "signs" in table else kind.signs and how.levels == "even"
    if signs and how.levels != "even":
        raise table.error("signs", f"signs and activations {how.label} exclude each other", "leave one out")
    return Treatment(weights, how, signs), kind


def _activations(table: Table, bits: int) -> Activations:
    """What a table says of what its layers read; a text names levels that are not even."""
    if isinstance(table.get("activations"), str):
        text = table.text("activations")
        levels, _, number = text.partition(":")
        most = {"abc": 8, "lloyd": 4}.get(levels, 0)
        least = 1 if levels == "abc" else 2
        if len(number) != 1 or number not in "12345678" or not least <= int(number) <= most:
            raise table.error(
                "activations",
                f"there are no activations {text[:80]!r}",
                "2 to 8 bits, abc:1 to abc:8, or lloyd:2 to lloyd:4",
            )
        if "activation_range" in table:
            raise table.error("activation_range", f"the levels of {levels} have no range", "leave it out")
        return Activations(int(number), levels="abc" if levels == "abc" else "lloyd")
    if "activations" in table:
        bits = table.integer("activations", 2, 8)
    symmetric = "activation_range" in table and (
        table.choice("activation_range", ("affine", "symmetric")) == "symmetric"
    )
    return Activations(bits, symmetric)


def _bits(table: Table, path: Path) -> tuple[int, int]:
    if isinstance(table["bits"], str):
        return parse_bits(table.text("bits"), str(path))
    return table.integer("bits", 2, 8), 8


def _linear(linear: Linear, table: Table) -> Linear:
    """Linear weights with the range, the granularity and the fit that the table says."""
    full = "range" in table and table.choice("range", ("restricted", "full")) == "full"
    tensor = "granularity" in table and table.choice("granularity", ("channel", "tensor")) == "tensor"
    fit = table.choice("fit", ("max", "mse")) if "fit" in table else None
    return Linear(linear.bits, full, tensor, "max" if fit == "max" else "mse" if fit == "mse" else None)
