"""STAIRCASE: an activation of a few levels at any distances, for quantizers whose steps are not even."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tinydeploy.ir.op import Op, Shape, Site
from tinydeploy.ir.types import Array
from tinydeploy.ops.requantize import check_activations, quantize_real, require, require_activation

MAX_STEPS = 15
"""Sixteen levels: at four bits and more, even steps are as good."""


@dataclass(frozen=True)
class Staircase(Op):
    """One level between each two neighbouring thresholds; a threshold belongs to the level above it.

    Attributes:
        thresholds: 1 to MAX_STEPS, ascending; in real units in the float part of a graph, else elements of
            the input, -128 to 128: at or below -128 one is always passed, and 128 never.
        levels: one more than thresholds, in any order; real, or elements of the output.

    Integer rule: `y = levels[i]` with i the number of thresholds that are at most x. What is between the
    levels is lost, so any quantizer of one number at a time is this op with int8 on both sides.
    """

    thresholds: tuple[float, ...] = (0.0,)
    levels: tuple[float, ...] = (-1.0, 1.0)

    kind = "STAIRCASE"
    in_place = True

    def output_shape(self, site: Site) -> Shape:
        return site.input(0).shape

    def check(self, site: Site) -> None:
        def integer(at: Site) -> None:
            require_activation(at.input(0))
            require_activation(at.output)
            low, high = at.output.limits
            whole = all(float(v).is_integer() for v in (*self.thresholds, *self.levels))
            require(
                whole
                and all(-128 <= t <= 128 for t in self.thresholds)
                and all(low <= v <= high for v in self.levels),
                f"the thresholds {self.thresholds} and levels {self.levels} are not elements of"
                f" {at.input(0).name!r} and {at.output.name!r}",
                "the file is damaged, or its numbers were changed by hand",
            )

        count = len(self.thresholds)
        require(
            1 <= count <= MAX_STEPS and len(self.levels) == count + 1,
            f"{len(self.levels)} levels with {count} thresholds; possible are 1 to {MAX_STEPS} of these, and"
            " one level more",
        )
        require(
            all(map(math.isfinite, (*self.thresholds, *self.levels)))
            and list(self.thresholds) == sorted(self.thresholds),
            f"the thresholds {self.thresholds} do not ascend, or a level is not finite",
        )
        check_activations(site, integer)

    def lowered(self, site: Site) -> Staircase:
        """The same in elements of an input and an output that have their quantization.

        Raises:
            DeployError: a level is not representable at the output's scale.
        """
        x, y = site.input(0).quant, site.output
        thresholds = (t / x.scale + x.zero_point for t in self.thresholds)
        low, high = y.limits
        return Staircase(
            tuple(math.ceil(min(max(t, -128.0), 128.0)) for t in thresholds),
            tuple(min(max(quantize_real(v, y.quant), low), high) for v in self.levels),
        )

    def real(self, site: Site) -> Staircase:
        """What the integers stand for; thresholds half way below their element, so that rounding is safe."""
        x, y = site.input(0).quant, site.output.quant
        return Staircase(
            tuple(x.scale * (t - 0.5 - x.zero_point) for t in self.thresholds),
            tuple(y.scale * (v - y.zero_point) for v in self.levels),
        )

    def table(self) -> npt.NDArray[np.int8]:
        """int8 outputs for the inputs -128 .. 127, in this order."""
        return _table(self.thresholds, self.levels)

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        assert arrays[0] is not None
        y: Array = self.table()[arrays[0].astype(np.int64) + 128]
        return y

    def run_float(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        assert arrays[0] is not None
        passed = np.searchsorted(np.array(self.thresholds, np.float32), arrays[0], side="right")
        y: Array = np.array(self.levels, np.float32)[passed]
        return y


@lru_cache(maxsize=64)
def _table(thresholds: tuple[float, ...], levels: tuple[float, ...]) -> npt.NDArray[np.int8]:
    passed = np.searchsorted(np.array(thresholds), np.arange(-128, 128), side="right")
    table = np.array(levels).astype(np.int8)[passed]
    table.setflags(write=False)
    return table
