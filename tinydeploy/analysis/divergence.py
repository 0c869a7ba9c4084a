"""The Kullback-Leibler divergence between distributions over the same bins."""

from __future__ import annotations

import numpy as np

from tinydeploy.ir.types import Array

PRIOR = 0.5
"""Counts added to each bin, so that an empty one of a finite sample is not impossible: Jeffreys' prior.

Source: R. E. Krichevsky, V. K. Trofimov, "The performance of universal encoding" (1981).
"""


def kl_divergence(p: Array, q: Array) -> float:
    """`sum p log(p / q)` in nats, of two distributions over the same bins, each normalized to 1 first.

    Infinite where q lacks what p has. Source: S. Kullback, R. A. Leibler, "On information and sufficiency"
    (1951).

    Args:
        p, q: non-negative numbers of one shape, neither all zero.
    """
    a, b = p.astype(np.float64).ravel() / p.sum(), q.astype(np.float64).ravel() / q.sum()
    used = a > 0
    if (b[used] == 0).any():
        return float("inf")
    return max(float(np.sum(a[used] * np.log(a[used] / b[used]))), 0.0)


def kl_of_counts(p: Array, q: Array) -> tuple[float, float]:
    """Forward and reverse divergence, KL(p || q) and KL(q || p), of two histograms of counts; finite."""
    a, b = p + PRIOR, q + PRIOR
    return kl_divergence(a, b), kl_divergence(b, a)
