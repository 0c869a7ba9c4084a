"""Ternary weights with a positive and a negative value of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydeploy.quantize.schemes.base import Rows
from tinydeploy.quantize.schemes.planes import FittedPlanes

Values = npt.NDArray[np.float64]
"""One number an output, 0 or above."""


def means(rows: Rows, threshold: float) -> tuple[Values, Values]:
    """The mean of the weights of each output above its threshold, and of their magnitude below minus that.

    Where one side has no weight it takes the other's.
    """
    above, below = parts(rows, threshold)
    found = []
    for kept in (above, below):
        counts = kept.sum(axis=1)
        total = (np.abs(rows) * kept).sum(axis=1)
        found.append(np.where(counts > 0, total / np.maximum(counts, 1), 0.0))
    positive, negative = found
    return np.where(positive > 0, positive, negative), np.where(negative > 0, negative, positive)


def parts(rows: Rows, threshold: float) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which weights of each output are above its threshold, and which below minus that."""
    limit = threshold * np.abs(rows).max(axis=1, keepdims=True)
    return rows > limit, rows < -limit


@dataclass(frozen=True)
class TrainedTernary:
    """`W_p` above the threshold of an output, `-W_n` below minus that, else 0.

    Two planes hold it: one has 1 where the weight is `W_p` and 0 elsewhere, the other -1 where it is `-W_n`,
    so that each value is the integer coefficient of its plane and nothing is rounded twice.

    Source: C. Zhu et al., "Trained Ternary Quantization" (ICLR 2017), section 4; without values that were
    trained, the means of what they stand for.

    Attributes:
        threshold: in parts of the largest magnitude.
        values: `W_p` and `W_n` by output, or None.
    """

    threshold: float = 0.05
    values: tuple[tuple[float, ...], ...] | None = None

    name = "ttq"
    per_tensor = False

    def fit(self, rows: Rows) -> FittedPlanes:
        positive, negative = (
            means(rows, self.threshold) if self.values is None else map(np.array, self.values)
        )
        above, below = parts(rows, self.threshold)
        signs = np.stack([above.astype(np.int8), -below.astype(np.int8)])
        return FittedPlanes(signs, np.stack([positive, negative]))
