"""Ternary weights by a threshold, with one scale an output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.quantize.schemes.base import Rows
from tinydeploy.quantize.schemes.planes import FittedPlanes

_THRESHOLD = 0.7
"""In parts of the mean |W|: nearly the best one for normal and for evenly spread weights."""


@dataclass(frozen=True)
class Ternary:
    """-1, 0, +1: zero below 0.7 times the mean of |W| of an output; the scale is the mean of the rest.

    Source: Li and Liu, "Ternary Weight Networks", 2016, section 3.2.
    """

    name = "ternary"
    per_tensor = False

    def fit(self, rows: Rows) -> FittedPlanes:
        sizes = np.abs(rows)
        kept = sizes > _THRESHOLD * sizes.mean(axis=1, keepdims=True)
        signs = (np.sign(rows) * kept).astype(np.int8)
        counts = np.maximum(kept.sum(axis=1), 1)
        return FittedPlanes(signs[None], ((sizes * kept).sum(axis=1) / counts)[None])
