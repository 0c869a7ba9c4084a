"""Fine-tuned centroids: the values that the weights of a layer share are learned.

    y = s c_k, with k the cluster of the weight and s the scale of its output
    dc_k = sum of s dy over the weights of cluster k

Source: S. Han, H. Mao, W. Dally, "Deep Compression" (ICLR 2016), section 3 and equation 3. Differences: an
output has a scale, which stays as it was fitted; and the c are rounded as the table of int8 holds them, the
largest magnitude being 127.

In the paper a weight stays in the cluster that k-means put it in. Where centroids move through the weights
instead, each weight learns too, as if it were not rounded (straight through), and belongs to the centroid
that is nearest at the time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tinydeploy.quantize.methods.base import WeightMethod, along, straight, to_nearest
from tinydeploy.quantize.scales import MIN_SCALE
from tinydeploy.quantize.schemes import KMeans, Scheme, folded
from tinydeploy.quantize.schemes.base import unfolded
from tinydeploy.quantize.schemes.learned import Shared

_TABLE_MAX = 127
_BITS_MAX = 7


def shared(centroids: Tensor, clusters: Tensor) -> Tensor:
    """The centroid of each weight, of the shape of `clusters`; its gradient is the sum of its weights'.

    Args:
        centroids: (clusters,).
        clusters: the number of each weight's cluster.
    """
    # The sums of indexing may depend on the order in which threads end.
    return functional.embedding(clusters, centroids[:, None]).squeeze(-1)


def table_of(centroids: Tensor) -> tuple[Tensor, Tensor]:
    """The entries of the stored table, whole numbers in [-127, 127], and what one unit of them stands for."""
    unit = centroids.abs().max().clamp_min(MIN_SCALE) / _TABLE_MAX
    return to_nearest(centroids / unit).clamp(-_TABLE_MAX, _TABLE_MAX), unit


class CentroidWeights(WeightMethod):
    """Weights of a codebook whose values learn; they start at the fit of the scheme.

    Where training starts with more bits, each step down runs k-means on what was learned so far.

    Args:
        weights: where they start.
        axis: that of outputs.
        bits_from: see `QatOptions`.
        moving: whether weights change their cluster.

    Attributes:
        centroids: in parts of the largest at the start; those in use come first.
        clusters: of the weights' shape.
        scales: (outputs,).
        bits, used: of now: those of an index, and how many centroids there are.
    """

    clusters: Tensor
    scales: Tensor
    bits: Tensor
    used: Tensor

    def __init__(
        self, scheme: KMeans, weights: Tensor, axis: int, bits_from: int | None, *, moving: bool
    ) -> None:
        super().__init__()
        self._scheme, self._axis, self._moving = scheme, axis, moving
        # K-means of few values would find these few again, so it begins with the most.
        self._wanted = max(scheme.bits, min(bits_from or 0, _BITS_MAX))
        self.centroids = nn.Parameter(torch.zeros(1 << self._wanted))
        self.register_buffer("clusters", torch.zeros(weights.shape, dtype=torch.int64))
        self.register_buffer("scales", torch.zeros(weights.shape[axis]))
        self.register_buffer("bits", torch.zeros((), dtype=torch.int64))
        self.register_buffer("used", torch.zeros((), dtype=torch.int64))
        self._fit(weights, self._wanted)

    def forward(self, weights: Tensor) -> Tensor:
        if int(self.bits) != self._wanted:
            self._fit(weights if self._moving else self._values(), self._wanted)
        if not self._moving:
            return self._values()
        self._move(weights)
        return self._values() + (weights - weights.detach())

    def scheme(self) -> Scheme:
        if int(self.bits) > self._scheme.bits:
            # The steps down are not over: as the last one would share what there is.
            fitted = self._scheme.fit(folded(self._values().detach().cpu().numpy(), self._axis))
            integers = fitted.lower(fitted.scales).rows.astype(np.float64)
            return Shared(self._scheme.bits, integers, fitted.scales)
        table, unit = table_of(self._in_use().detach())
        integers = folded(table[self.clusters].cpu().numpy(), self._axis)
        return Shared(self._scheme.bits, integers, self.scales.cpu().double().numpy() * float(unit))

    def set_bits(self, of: Callable[[int], int]) -> None:
        self._wanted = min(of(self._scheme.bits), _BITS_MAX)

    def _in_use(self) -> Tensor:
        return self.centroids[: int(self.used)]

    def _values(self) -> Tensor:
        centroids = self._in_use()
        table, unit = table_of(centroids.detach())
        return shared(straight(table * unit, centroids), self.clusters) * self._outputs()

    def _outputs(self) -> Tensor:
        return along(self.scales, self.clusters, self._axis)

    @torch.no_grad()
    def _move(self, weights: Tensor) -> None:
        """Each weight to the centroid that is nearest now."""
        ordered, places = self._in_use().sort()
        relative = weights / self._outputs().clamp_min(MIN_SCALE)
        self.clusters.copy_(places[torch.bucketize(relative, (ordered[1:] + ordered[:-1]) / 2)])

    @torch.no_grad()
    def _fit(self, weights: Tensor, bits: int) -> None:
        """Scales, centroids and clusters by k-means."""
        fitted = KMeans(bits).fit(folded(weights.detach().cpu().numpy(), self._axis))
        table = np.array(fitted.table)
        places = np.searchsorted(table, fitted.lower(fitted.scales).rows)
        self.clusters.copy_(torch.from_numpy(unfolded(places, self.clusters.shape, self._axis)))
        self.scales.copy_(torch.from_numpy(fitted.scales * _TABLE_MAX))
        self.centroids.zero_()
        self.centroids[: len(table)] = torch.from_numpy(table / _TABLE_MAX).float()
        self.bits.fill_(bits)
        self.used.fill_(len(table))
