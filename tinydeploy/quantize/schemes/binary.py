"""Binary weights with one scale an output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.quantize.schemes.base import Rows
from tinydeploy.quantize.schemes.planes import FittedPlanes, signs_of


@dataclass(frozen=True)
class Binary:
    """`W = alpha * sign(W)` with alpha the mean of |W| of an output, which is nearest in the mean square.

    Source: Rastegari et al., "XNOR-Net", 2016, section 3.1.

    Attributes:
        bound: weights count with this magnitude at most, as training had them; None leaves them.
    """

    bound: float | None = None

    name = "binary"
    per_tensor = False

    def fit(self, rows: Rows) -> FittedPlanes:
        sizes = np.abs(rows) if self.bound is None else np.abs(rows).clip(max=self.bound)
        return FittedPlanes(signs_of(rows)[None], sizes.mean(axis=1)[None])
