"""Schemes whose numbers training found, and layers that batch normalization multiplies afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.quantize.scales import MIN_SCALE
from tinydeploy.quantize.schemes.base import Fitted, Lowered, Rows, Scales, Scheme
from tinydeploy.quantize.schemes.codebook import FittedCodebook
from tinydeploy.quantize.schemes.linear import FittedLinear, Linear


@dataclass(frozen=True)
class Stepped:
    """Linear integers under scales that are given.

    Attributes:
        steps: one an output, or one for all.
    """

    linear: Linear
    steps: tuple[float, ...]

    @property
    def name(self) -> str:
        return self.linear.name

    @property
    def per_tensor(self) -> bool:
        return self.linear.per_tensor

    def fit(self, rows: Rows) -> FittedLinear:
        return FittedLinear(self.linear, rows, np.broadcast_to(np.array(self.steps), (len(rows),)))


@dataclass(frozen=True, eq=False)
class Shared:
    """A codebook that is given, with the entry of each weight.

    Attributes:
        bits: of an index.
        integers: (outputs, products), from the table of int8.
        steps: one an output, 0 or above.
    """

    bits: int
    integers: Rows
    steps: Scales

    per_tensor = False

    @property
    def name(self) -> str:
        return f"codebook:{self.bits}"

    def fit(self, rows: Rows) -> FittedCodebook:
        table = tuple(int(t) for t in np.unique(self.integers))
        # A table without a zero has a scale next to it for an output that is zero throughout.
        least = 0.0 if 0 in table else MIN_SCALE
        steps = np.where(rows.any(axis=1), np.maximum(self.steps, least), least)
        return FittedCodebook(self.bits, self.integers * steps[:, None], table, steps)


@dataclass(frozen=True)
class Scaled:
    """A scheme for the weights as they were before each output was multiplied by a factor.

    Training quantizes the weights and then normalizes; folded, the factors go into the scales and the
    integers are those that training had.

    Attributes:
        factors: one an output, 0 or above.
    """

    scheme: Scheme
    factors: tuple[float, ...]

    per_tensor = False

    @property
    def name(self) -> str:
        return self.scheme.name

    def fit(self, rows: Rows) -> FittedScaled:
        factors = np.array(self.factors)
        factors = np.where(factors > 0, factors, 1.0)
        return FittedScaled(self.scheme.fit(rows / factors[:, None]), factors)


@dataclass(frozen=True)
class FittedScaled:
    """See `Fitted`."""

    inner: Fitted
    factors: Scales

    @property
    def scales(self) -> Scales:
        result: Scales = self.inner.scales * self.factors
        return result

    def lower(self, scales: Scales) -> Lowered:
        return self.inner.lower(scales / self.factors)
