"""A histogram that grows with its data, exactly, and calibrators that choose a range by one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from tinydeploy.ir.types import Array
from tinydeploy.quantize.scales import Range

BINS = 8192


class Histogram:
    """Counts of real numbers in at most BINS bins of equal width, the same in whatever batches they come.

    The width is a power of two and bin k covers [k * width, (k + 1) * width), so that a wider range merges
    whole pairs of bins and zero is always an edge. Nothing is interpolated.

    Attributes:
        low, high: the smallest and the largest number seen, and 0.
    """

    def __init__(self) -> None:
        self.low = 0.0
        self.high = 0.0
        self._exponent: int | None = None
        self._first = 0
        self._counts: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._zeros = 0

    def add(self, x: Array) -> None:
        """Counts every element of `x`, which is finite."""
        values = x.astype(np.float64).ravel()
        if values.size == 0:
            return
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        if self.low == self.high:
            self._zeros += values.size
            return
        self._grow()
        assert self._exponent is not None
        index = np.floor(np.ldexp(values, -self._exponent)).astype(np.int64) - self._first
        self._counts += np.bincount(index, minlength=len(self._counts))

    @property
    def width(self) -> float:
        """Of one bin; 0 where only zeros were seen."""
        return 0.0 if self._exponent is None else math.ldexp(1.0, self._exponent)

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Real numbers, one more than there are bins."""
        return (self._first + np.arange(len(self._counts) + 1)) * self.width

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """One number a bin; none where only zeros were seen."""
        return self._counts

    def magnitudes(self) -> npt.NDArray[np.int64]:
        """Counts by absolute value, from 0 upwards; a bin of negative numbers joins its mirror image."""
        positive = self._counts[-self._first :]
        negative = self._counts[: -self._first][::-1]
        result = np.zeros(max(len(positive), len(negative)), np.int64)
        result[: len(positive)] += positive
        result[: len(negative)] += negative
        return result

    def _grow(self) -> None:
        """Brings the bins to the least width at which they span [low, high]."""
        exponent = math.frexp((self.high - self.low) / BINS)[1] - 1
        while self._bins(exponent)[1] > BINS:
            exponent += 1
        first, count = self._bins(exponent)
        counts = np.zeros(count, np.int64)
        if self._exponent is None:
            counts[-first] = self._zeros
        else:
            moved = (self._first + np.arange(len(self._counts))) >> (exponent - self._exponent)
            np.add.at(counts, moved - first, self._counts)
        self._exponent, self._first, self._counts = exponent, first, counts

    def _bins(self, exponent: int) -> tuple[int, int]:
        """Number of the first bin, and how many there are; zero's bin is always one of them."""
        first = math.floor(math.ldexp(self.low, -exponent))
        return first, math.floor(math.ldexp(self.high, -exponent)) - first + 1


class ByHistogram(ABC):
    """A calibrator that counts what it sees and chooses the range by the counts."""

    def __init__(self) -> None:
        self._histogram = Histogram()

    def observe(self, x: Array) -> None:
        self._histogram.add(x)

    def range(self) -> Range:
        """Of zeros alone, or of nothing, the range of zero."""
        h = self._histogram
        return Range(0.0, 0.0) if h.width == 0.0 else self._choose(h)

    @abstractmethod
    def _choose(self, h: Histogram) -> Range:
        """The range for numbers that are not all zero."""
