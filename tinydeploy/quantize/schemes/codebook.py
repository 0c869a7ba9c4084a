"""Shared weights: each is one of at most 2^N values of its layer, under a scale of its output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydeploy.ir.forms import Codebook
from tinydeploy.quantize.schemes.base import Lowered, Rows, Scales, least_squares, per_output

_TABLE_MAX = 127
_ROUNDS = 40
_TURNS = 3

Values = npt.NDArray[np.float64]
"""A list of numbers."""


def k_means(values: Values, count: int) -> Values:
    """At most `count` centroids (ascending) of numbers; deterministic.

    Lloyd's algorithm on sorted numbers, where a cluster is a stretch and its mean a difference of two
    running sums. It starts from quantiles, which for these tables ends nearer than the equal distances of
    Han et al., "Deep Compression", 2016, section 3.2. A centroid that no number is nearest to is dropped.
    """
    ordered = np.sort(values)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centroids: Values = np.unique(_quantiles(ordered, count))
    if len(centroids) < count:
        # Most numbers are one and the same: the others must not be lost among them.
        centroids = np.unique(_quantiles(np.unique(ordered), count))
    for _ in range(_ROUNDS):
        borders = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        edges = np.concatenate([[0], borders, [len(ordered)]])
        sizes = np.diff(edges)
        used = sizes > 0
        moved = np.diff(sums[edges])[used] / sizes[used]
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids


def _quantiles(ordered: Values, count: int) -> Values:
    found: Values = ordered[(2 * np.arange(count) + 1) * len(ordered) // (2 * count)]
    return found


def nearest(table: npt.NDArray[Any], x: Rows) -> npt.NDArray[np.intp]:
    """The place in an ascending table of what is nearest to each number, the lower one at half way."""
    borders = (table[1:].astype(np.float64) + table[:-1].astype(np.float64)) / 2
    places: npt.NDArray[np.intp] = np.searchsorted(borders, x, side="left")
    return places


@dataclass(frozen=True)
class KMeans:
    """A codebook by k-means of the weights, each output under a scale of its own.

    One table of int8 serves the layer, so that its 2^N entries are paid once; the outputs differ by their
    scale, which costs nothing since requantization has one multiplier an output anyway. Table and scales
    are improved in turns, each the best for the other in the mean square.

    Attributes:
        bits: of an index, 1 to 7.
    """

    bits: int = 4

    per_tensor = False

    @property
    def name(self) -> str:
        return f"codebook:{self.bits}"

    def fit(self, rows: Rows) -> FittedCodebook:
        scales = np.abs(rows).max(axis=1)
        used = scales > 0
        if not used.any():
            return FittedCodebook(self.bits, rows, (0,), scales)
        centroids = k_means((rows / per_output(scales))[used].ravel(), 1 << self.bits)
        for _ in range(_TURNS):
            scales = least_squares(rows, centroids[nearest(centroids, rows / per_output(scales))], scales)
            centroids = k_means((rows / per_output(scales))[used].ravel(), 1 << self.bits)
        if not used.all():
            # An output of zeros must stay one.
            if len(centroids) == 1 << self.bits:
                centroids = np.delete(centroids, np.abs(centroids).argmin())
            centroids = np.union1d(centroids, [0.0])
        reach = float(np.abs(centroids).max()) or 1.0
        table = np.unique(np.rint(centroids / reach * _TABLE_MAX)).astype(np.int64)
        return FittedCodebook(self.bits, rows, tuple(int(t) for t in table), scales * reach / _TABLE_MAX)


@dataclass(frozen=True)
class FittedCodebook:
    """See `Fitted`.

    Attributes:
        table: ascending int8.
    """

    bits: int
    rows: Rows
    table: tuple[int, ...]
    scales: Scales

    def lower(self, scales: Scales) -> Lowered:
        table = np.array(self.table, np.int32)
        q = table[nearest(table, self.rows / per_output(scales))]
        return Lowered(q, Codebook(self.bits, self.table))
