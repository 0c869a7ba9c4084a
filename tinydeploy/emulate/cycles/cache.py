"""A cache that holds any line anywhere and gives up the least recently used one."""

from __future__ import annotations


class Cache:
    """One cache of ``lines`` lines; with none, every line is missed."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._held: dict[int, None] = {}  # a dict keeps the order of insertion: the first is the oldest

    def clear(self) -> None:
        """Empties the cache."""
        self._held.clear()

    def misses(self, line: int) -> bool:
        """Whether a line has to be fetched; it is the newest then."""
        if line in self._held:
            del self._held[line]
            self._held[line] = None
            return False
        if self._lines == 0:
            return True
        if len(self._held) == self._lines:
            del self._held[next(iter(self._held))]
        self._held[line] = None
        return True
