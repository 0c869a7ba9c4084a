"""SIGN: an activation of two levels, for layers that multiply by XNOR."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinydeploy.ir.forms import Signs
from tinydeploy.ir.op import Op, Shape, Site
from tinydeploy.ir.types import Array, Quantization
from tinydeploy.ops.requantize import check_activations, require, require_activation


@dataclass(frozen=True)
class Sign(Op):
    """The nearer one of two levels, the higher one half way between them.

    Attributes:
        low, high: the levels in real units, in the float part of a graph. Integers are -1 and +1, and their
            scale and zero point say what these stand for.

    Integer rule: +1 where `S_x (x - Z_x) >= -S_y Z_y`, in double precision, else -1. With levels of equal
    size it is the sign of Rastegari et al., "XNOR-Net", 2016, section 3.2.
    """

    low: float = -1.0
    high: float = 1.0

    kind = "SIGN"
    in_place = True

    def output_shape(self, site: Site) -> Shape:
        return site.input(0).shape

    def check(self, site: Site) -> None:
        def integer(at: Site) -> None:
            require_activation(at.input(0))
            require_activation(at.output)
            require(
                isinstance(at.output.form, Signs),
                f"the output {at.output.name!r} is not stored as signs",
                "the file is damaged, or its bits were changed by hand",
            )

        require(
            math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high,
            f"the levels {self.low} and {self.high} are not two ascending numbers",
        )
        check_activations(site, integer)

    @property
    def quantization(self) -> Quantization:
        """Under which -1 and +1 stand for the two levels; exact where one of them is 0, or their sum is."""
        scale = float(np.float32((self.high - self.low) / 2))
        return Quantization((scale,), (round(-(self.high + self.low) / (self.high - self.low)),))

    def threshold(self, site: Site) -> int:
        """The least integer of the input that gives +1; within [-128, 128]."""
        x, y = site.input(0).quant, site.output.quant
        least = math.ceil(x.zero_point - y.zero_point * y.scale / x.scale)
        return min(max(least, -128), 128)

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        assert arrays[0] is not None
        return np.where(arrays[0] >= self.threshold(site), np.int8(1), np.int8(-1))

    def run_float(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        assert arrays[0] is not None
        middle = np.float32((self.low + self.high) / 2)
        return np.where(arrays[0] >= middle, np.float32(self.high), np.float32(self.low))
