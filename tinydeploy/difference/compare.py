"""Two networks run on the same data, and how far each layer of one is from its counterpart in the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinydeploy.data import Samples
from tinydeploy.difference.match import Pair, match_units
from tinydeploy.difference.units import Unit, Units, units_of
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array, Value
from tinydeploy.ops.quantize import dequantize_array
from tinydeploy.quantize.calibrate import group_size, run_groups
from tinydeploy.quantize.error import BAD_SQNR_DB, decibels
from tinydeploy.quantize.rules import Ends
from tinydeploy.quantize.ties import clamps_behind

FLOAT_SQNR_DB = 60.0
"""Two float forms of one network differ by rounding, which is over 100 dB below the signal."""


@dataclass(frozen=True)
class Side:
    """One of the two models, with the data in its own types and layout."""

    path: str
    graph: Graph
    samples: Samples


@dataclass(frozen=True)
class LayerDifference:
    """One layer in both models, with all that the layers before it add.

    Attributes:
        name, op: in the first model; `counterpart` is the name in the second.
        elements: of one sample.
        sqnr_db: `10 log10(sum a^2 / sum (a - b)^2)` in real units over all samples; infinite where both
            agree, minus infinity where a signal of zero became another.
        max_abs_difference: in real units.
        differing: integer elements that differ over all samples; None where one is float, or their scales
            are not the same.
        differs: `differing` is not zero, or where that is None, `sqnr_db` is below the threshold.
    """

    name: str
    op: str
    counterpart: str
    elements: int
    sqnr_db: float
    max_abs_difference: float
    differing: int | None
    differs: bool

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "op": self.op,
            "counterpart": self.counterpart,
            "elements": self.elements,
            # JSON has no infinity.
            "sqnr_db": self.sqnr_db if math.isfinite(self.sqnr_db) else None,
            "max_abs_difference": self.max_abs_difference,
            "differing": self.differing,
            "differs": self.differs,
        }


@dataclass(frozen=True)
class Difference:
    """What `diff` found.

    Attributes:
        threshold_db: below it a layer differs, where its integers cannot be compared.
        layers: those that both have, in the execution order of the first model.
        only_a, only_b: names of layers without a counterpart.
    """

    model_a: str
    model_b: str
    samples: int
    threshold_db: float
    layers: tuple[LayerDifference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    @property
    def first(self) -> LayerDifference | None:
        """The first layer that differs: where a search for the cause begins."""
        return next((layer for layer in self.layers if layer.differs), None)

    @property
    def same(self) -> bool:
        return self.first is None

    def to_json(self) -> dict[str, object]:
        return {
            "model_a": self.model_a,
            "model_b": self.model_b,
            "samples": self.samples,
            "threshold_db": self.threshold_db,
            "same": self.same,
            "first": None if self.first is None else self.first.name,
            "layers": [layer.to_json() for layer in self.layers],
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
        }


def diff(a: Side, b: Side, threshold_db: float | None = None) -> Difference:
    """Runs both models on the same data and compares the layers that they have in common.

    Args:
        threshold_db: BAD_SQNR_DB by default, or FLOAT_SQNR_DB for two float models.

    Raises:
        DeployError: the models have no layer in common, or not as many samples.
    """
    first, second = units_of(a.graph), units_of(b.graph)
    pairs = match_units(first, second)
    if not pairs:
        raise DeployError(
            f"has no layer in common with {b.path}: {_shape(a.graph)}, {len(first.units)} layers, against"
            f" {_shape(b.graph)}, {len(second.units)} layers",
            where=a.path,
            hint="diff compares two forms of one network, such as a float model and the int8 one made of it",
        )
    if len(a.samples) != len(b.samples):
        raise DeployError(f"{len(a.samples)} samples for one model and {len(b.samples)} for the other")
    if threshold_db is None:
        is_float = not (a.graph.is_integer or b.graph.is_integer)
        threshold_db = FLOAT_SQNR_DB if is_float else BAD_SQNR_DB
    known = {p.a.value for p in pairs}, {p.b.value for p in pairs}
    return Difference(
        a.path,
        b.path,
        len(a.samples),
        threshold_db,
        _measured(a, b, (first, second), pairs, threshold_db),
        tuple(u.node.name for u in first.units.values() if u.value not in known[0]),
        tuple(u.node.name for u in second.units.values() if u.value not in known[1]),
    )


def _shape(graph: Graph) -> str:
    ends = [(graph.inputs, graph.input_borders), (graph.outputs, graph.output_borders)]
    shown = [
        ", ".join(
            str(list(graph.value(n).shape if border.layout is None else border.layout.shape))
            for n, border in zip(names, borders, strict=True)
        )
        for names, borders in ends
    ]
    return f"{shown[0]} to {shown[1]}"


@dataclass
class _Sum:
    """One pair of layers while the samples go by."""

    signal: float = 0.0
    noise: float = 0.0
    largest: float = 0.0
    differing: int = 0


def _measured(
    a: Side, b: Side, units: tuple[Units, Units], pairs: tuple[Pair, ...], threshold_db: float
) -> tuple[LayerDifference, ...]:
    sums = [_Sum() for _ in pairs]
    clamps = _clamps(a.graph, b.graph, pairs)
    size = min(group_size(a.graph), group_size(b.graph))
    runs = run_groups(a.graph, a.samples.inputs, size), run_groups(b.graph, b.samples.inputs, size)
    for left, right in zip(*runs, strict=True):
        for pair, clamp, total in zip(pairs, clamps, sums, strict=True):
            _add(total, _seen(units[0], pair.a, left), _seen(units[1], pair.b, right), clamp)
    return tuple(_layer(a.graph, b.graph, p, s, threshold_db) for p, s in zip(pairs, sums, strict=True))


def _clamps(a: Graph, b: Graph, pairs: tuple[Pair, ...]) -> list[Ends]:
    """What lies outside these ends the next layer cuts off, so that quantization leaves it out."""
    open_ends: Ends = (None, None)
    if a.is_integer == b.is_integer:
        return [open_ends for _ in pairs]
    behind = clamps_behind(b if a.is_integer else a)
    return [behind.get((p.b if a.is_integer else p.a).value, open_ends) for p in pairs]


@dataclass(frozen=True)
class _Seen:
    """A layer's result for some samples: (samples, elements)."""

    value: Value
    array: Array

    @property
    def real(self) -> Array:
        x = self.array if self.value.quantization is None else dequantize_array(self.array, self.value.quant)
        return x.astype(np.float64)


def _seen(units: Units, unit: Unit, arrays: dict[str, Array]) -> _Seen:
    array = arrays[unit.value]
    for name, border in zip(units.graph.outputs, units.graph.output_borders, strict=True):
        # Models may hold an output in different orders; the source's is the same for both.
        if name == unit.value and border.layout is not None:
            array = border.layout.to_source(array)
    return _Seen(units.graph.value(unit.value), array.reshape(len(array), -1))


def _add(total: _Sum, a: _Seen, b: _Seen, clamp: Ends) -> None:
    x, y = a.real, b.real
    if clamp != (None, None):
        x, y = np.clip(x, *clamp), np.clip(y, *clamp)
    error = np.abs(x - y)
    total.signal += float(np.sum(x**2))
    total.noise += float(np.sum(error**2))
    total.largest = max(total.largest, float(error.max(initial=0.0)))
    total.differing += int(np.count_nonzero(a.array != b.array))


def _layer(a: Graph, b: Graph, pair: Pair, total: _Sum, threshold_db: float) -> LayerDifference:
    left, right = a.value(pair.a.value), b.value(pair.b.value)
    comparable = (
        left.quantization is not None
        and left.dtype is right.dtype
        and left.quantization == right.quantization
    )
    sqnr = decibels(total.signal, total.noise)
    differing = total.differing if comparable else None
    return LayerDifference(
        name=pair.a.node.name,
        op=pair.a.node.op.kind,
        counterpart=pair.b.node.name,
        elements=pair.a.elements,
        sqnr_db=sqnr,
        max_abs_difference=total.largest,
        differing=differing,
        differs=sqnr < threshold_db if differing is None else differing > 0,
    )
