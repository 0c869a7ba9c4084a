"""Which layer of one network is which of another: by name, from the outputs back, from the inputs on."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tinydeploy.difference.units import Unit, Units

_COMMUTES = ("ADD", "MUL")


@dataclass(frozen=True)
class Pair:
    """A layer in both networks."""

    a: Unit
    b: Unit


def match_units(a: Units, b: Units) -> tuple[Pair, ...]:
    """Pairs of layers that do the same in two networks, in the execution order of the first.

    Layers pair up only where they are of one kind and have results of one size. Equal names come first;
    what is left is reached from paired outputs and layers backwards through their inputs, and then from
    paired inputs and layers forwards through their readers. Inputs and outputs pair by their position.
    """
    matching = _Matching(a, b)
    matching.by_name()
    matching.backwards()
    matching.forwards()
    return tuple(Pair(unit, b.units[matching.pairs[v]]) for v, unit in a.units.items() if v in matching.pairs)


@dataclass
class _Matching:
    a: Units
    b: Units
    pairs: dict[str, str] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)

    def by_name(self) -> None:
        values = {u.value: u for u in self.b.units.values()}
        nodes = {u.node.name: u for u in self.b.units.values()}
        for unit in self.a.units.values():
            for other in (values.get(unit.value), nodes.get(unit.node.name)):
                self._pair(unit, other)

    def backwards(self) -> None:
        ends = zip(self.a.graph.outputs, self.b.graph.outputs, strict=False)
        waiting = deque((self.a.behind(x), self.b.behind(y)) for x, y in ends)
        seen: set[tuple[str, str]] = set()
        while waiting:
            names = waiting.popleft()
            if names in seen:
                continue
            seen.add(names)
            x, y = self.a.units.get(names[0]), self.b.units.get(names[1])
            if x is not None and y is not None and (self._pair(x, y) or self.pairs.get(x.value) == y.value):
                waiting.extend(self._inputs(x, y))

    def forwards(self) -> None:
        waiting = deque(zip(self.a.graph.inputs, self.b.graph.inputs, strict=False))
        waiting.extend(self.pairs.items())
        while waiting:
            x, y = waiting.popleft()
            for unit in self.a.readers.get(x, []):
                for other in self.b.readers.get(y, []):
                    if self._pair(unit, other):
                        waiting.append((unit.value, other.value))

    def _pair(self, x: Unit, y: Unit | None) -> bool:
        """Pairs two layers where both are free and fit."""
        if y is None or x.value in self.pairs or y.value in self._taken or not _fit(x, y):
            return False
        self.pairs[x.value] = y.value
        self._taken.add(y.value)
        return True

    def _inputs(self, x: Unit, y: Unit) -> list[tuple[str, str]]:
        straight = list(zip(x.inputs, y.inputs, strict=False))
        if x.node.op.kind not in _COMMUTES or len(x.inputs) != 2 or len(y.inputs) != 2:
            return straight
        crossed = list(zip(x.inputs, y.inputs[::-1], strict=True))
        return crossed if self._likeness(crossed) > self._likeness(straight) else straight

    def _likeness(self, inputs: list[tuple[str, str]], depth: int = 3) -> int:
        """How many layers fit along both paths, a few layers back."""
        score = 0
        for m, n in inputs:
            x, y = self.a.units.get(m), self.b.units.get(n)
            if x is None or y is None:
                score += x is y
            elif self.pairs.get(x.value) == y.value or _fit(x, y):
                # The same operator counts more than one of its kin.
                score += 2 + (x.node.op.kind == y.node.op.kind)
                if depth:
                    score += self._likeness(list(zip(x.inputs, y.inputs, strict=False)), depth - 1)
        return score


def _fit(x: Unit, y: Unit) -> bool:
    return x.kind == y.kind and x.elements == y.elements
