"""Identity of channels: which channels of which tensors are one and must go together.

The channels of a value are those of its last axis (NHWC). Each has a number; ops create numbers, pass them
on, tie them together (a residual add) or freeze them (an output).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

ChannelIds = npt.NDArray[np.int64]
"""One number per index of a value's last axis."""

Kept = npt.NDArray[np.int64]
"""Indices of a value's last axis that stay, ascending."""


class ChannelCoupler:
    """Union-find over channel numbers, in which some sets are frozen: nothing in them may be removed."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._frozen: list[bool] = []

    def fresh(self, count: int) -> ChannelIds:
        """Numbers of `count` new channels."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        self._frozen.extend([False] * count)
        return np.arange(start, start + count, dtype=np.int64)

    def frozen(self, count: int) -> ChannelIds:
        """Numbers of `count` new channels that stay."""
        ids = self.fresh(count)
        self.freeze(ids)
        return ids

    def root(self, channel: int) -> int:
        """The number that stands for all channels tied to this one."""
        while self._parent[channel] != channel:
            self._parent[channel] = self._parent[self._parent[channel]]
            channel = self._parent[channel]
        return channel

    def roots(self, ids: ChannelIds) -> ChannelIds:
        return np.array([self.root(int(i)) for i in ids], dtype=np.int64)

    def tie(self, a: ChannelIds, b: ChannelIds) -> None:
        """Ties channels pairwise; both have the same length."""
        for x, y in zip(a, b, strict=True):
            first, second = self.root(int(x)), self.root(int(y))
            if first != second:
                self._parent[second] = first
                self._frozen[first] = self._frozen[first] or self._frozen[second]

    def freeze(self, *arrays: ChannelIds | None) -> None:
        for ids in arrays:
            for i in () if ids is None else ids:
                self._frozen[self.root(int(i))] = True

    def is_frozen(self, channel: int) -> bool:
        return self._frozen[self.root(channel)]


def required(ids: Sequence[ChannelIds | None], index: int = 0) -> ChannelIds:
    """The numbers of an activation input."""
    found = ids[index]
    assert found is not None, "a constant has no channel numbers"
    return found
