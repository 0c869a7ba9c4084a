"""Quantization schemes of weights: one file each; all lower to the stored forms of `ir.forms`.

A further scheme is one class with `fit`, and one entry in SCHEMES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tinydeploy.errors import DeployError
from tinydeploy.quantize.schemes.abc_net import AbcNet
from tinydeploy.quantize.schemes.base import Fitted, Lowered, Scheme, folded
from tinydeploy.quantize.schemes.binary import Binary
from tinydeploy.quantize.schemes.codebook import KMeans
from tinydeploy.quantize.schemes.dynamic import MinMaxRange
from tinydeploy.quantize.schemes.linear import Linear
from tinydeploy.quantize.schemes.ternary import Ternary
from tinydeploy.quantize.schemes.ttq import TrainedTernary


@dataclass(frozen=True)
class Kind:
    """One name of `--scheme`.

    Attributes:
        make: the scheme for the number behind the colon.
        least, most: of that number; both 0 where there is none.
        usual: the number where none is given.
        ends: whether the first and the last layer, and depthwise ones, take part unless a recipe says so.
        depthwise_bits: of linear weights of depthwise layers where they take no part. Binary dense layers are
            so small that int8 would make these a fifth of all weights.
        signs: whether the inputs of its layers become signs.
    """

    make: Callable[[int], Scheme]
    least: int = 0
    most: int = 0
    usual: int = 0
    ends: bool = False
    depthwise_bits: int = 8
    signs: bool = False


SCHEMES: Mapping[str, Kind] = {
    "linear": Kind(Linear, 2, 8, 8, ends=True),
    "codebook": Kind(KMeans, 1, 7, 4, ends=True),
    "binary": Kind(lambda n: Binary(), depthwise_bits=4, signs=True),
    "ternary": Kind(lambda n: Ternary()),
    "abc": Kind(AbcNet, 1, 8, 3),
    "ttq": Kind(lambda n: TrainedTernary()),
    "dynamic": Kind(MinMaxRange, 2, 7, 4, ends=True),
}

INT8 = Linear()
"""Weights in [-127, 127], one scale an output."""


def parse_scheme(text: str, where: str = "--scheme") -> tuple[Scheme, Kind]:
    """The scheme that `NAME` or `NAME:N` names.

    Raises:
        DeployError: no such name, or a number out of range.
    """
    name, colon, number = text.partition(":")
    kind = SCHEMES.get(name)
    hint = f"one of {', '.join(_shown(n, k) for n, k in SCHEMES.items())}"
    if kind is None:
        raise DeployError(f"there is no scheme {text[:80]!r}", where=where, hint=hint)
    if not colon:
        return kind.make(kind.usual), kind
    # int() takes signs, underscores and thousands of digits, which nobody means.
    n = int(number) if number.isascii() and number.isdigit() and len(number) < 3 else -1
    if not kind.most or not kind.least <= n <= kind.most:
        raise DeployError(f"the scheme {text[:80]!r} does not exist", where=where, hint=hint)
    return kind.make(n), kind


def _shown(name: str, kind: Kind) -> str:
    return f"{name}:{kind.least}..{kind.most}" if kind.most else name


__all__ = [
    "INT8",
    "SCHEMES",
    "AbcNet",
    "Binary",
    "Fitted",
    "KMeans",
    "Kind",
    "Linear",
    "Lowered",
    "MinMaxRange",
    "Scheme",
    "Ternary",
    "TrainedTernary",
    "folded",
    "parse_scheme",
]
