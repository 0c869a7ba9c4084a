"""The network as a column of layers, with a lane for every connection that skips some of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tinydeploy.backends.c.model import Model
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.show import shape_text
from tinydeploy.ir.types import Value
from tinydeploy.ir.verify import node_macs
from tinydeploy.report.page.view import short_name

ROW = 44
"""Pixels of a row."""

_LANE = 14
_LEFT = 14
_MOST_LANES = 10
_CURVE = 8


@dataclass(frozen=True)
class GraphRow:
    """An input, a layer or an output; `number` is that of the tables, "" for what is no layer."""

    number: str
    op: str
    name: str
    shape: str
    macs: int
    y: float


@dataclass(frozen=True)
class GraphPicture:
    """Rows and the paths between them, in pixels; `left_out` layers of a long network are not in it."""

    rows: tuple[GraphRow, ...]
    paths: tuple[str, ...]
    width: int
    left_out: int

    @property
    def height(self) -> int:
        return ROW * len(self.rows)

    @property
    def x(self) -> int:
        """Where the dots of the rows are."""
        return _LEFT


def graph_picture(model: Model, most_rows: int) -> GraphPicture:
    """The network as it is exported.

    Args:
        most_rows: layers beyond are left out.
    """
    graph = model.graph
    numbers = {layer.node.name: str(layer.index) for layer in model.layers}
    kept = graph.nodes[:most_rows]
    rows = list(_rows(graph, kept, numbers))
    edges = sorted(_edges(graph, kept), key=lambda e: (e[1] - e[0], e))
    lanes = _lanes(edges)
    used = max(lanes.values(), default=0)
    return GraphPicture(
        tuple(rows),
        tuple(_path(edge, lanes.get(edge, 0)) for edge in edges),
        _LEFT + _LANE * used + 14,
        len(graph.nodes) - len(kept),
    )


def _rows(graph: Graph, kept: tuple[Node, ...], numbers: dict[str, str]) -> Iterator[GraphRow]:
    y = ROW / 2
    for name in graph.inputs:
        yield _border("input", graph.value(name), y)
        y += ROW
    for node in kept:
        value = graph.value(node.outputs[0])
        number = numbers.get(node.name, "")
        yield GraphRow(
            number, node.op.kind.lower(), short_name(node.name), _shape(value), node_macs(graph, node), y
        )
        y += ROW
    if len(kept) == len(graph.nodes):
        for name in graph.outputs:
            yield _border("output", graph.value(name), y)
            y += ROW


def _border(what: str, value: Value, y: float) -> GraphRow:
    return GraphRow("", what, short_name(value.name), f"{_shape(value)} {value.dtype.value}", 0, y)


def _shape(value: Value) -> str:
    return shape_text(value.shape).replace("x", "×")


def _edges(graph: Graph, kept: tuple[Node, ...]) -> set[tuple[int, int]]:
    """Pairs of rows, the second of which reads what the first one gives."""
    row = {name: i for i, name in enumerate(graph.inputs)}
    edges = set()
    for i, node in enumerate(kept, len(graph.inputs)):
        edges |= {(row[name], i) for name in node.inputs if name in row}
        row[node.outputs[0]] = i
    if len(kept) == len(graph.nodes):
        start = len(graph.inputs) + len(kept)
        edges |= {(row[name], i) for i, name in enumerate(graph.outputs, start) if name in row}
    return edges


def _lanes(edges: list[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """A lane for each edge that skips rows; no two share a stretch of one, but of the last."""
    taken: list[list[tuple[int, int]]] = [[] for _ in range(_MOST_LANES)]
    lanes = {}
    for start, end in edges:
        if end == start + 1:
            continue
        free = (i for i, lane in enumerate(taken) if all(end <= a or b <= start for a, b in lane))
        lane = next(free, _MOST_LANES - 1)
        taken[lane].append((start, end))
        lanes[start, end] = lane + 1
    return lanes


def _path(edge: tuple[int, int], lane: int) -> str:
    top, bottom = (ROW * (row + 0.5) for row in edge)
    if lane == 0:
        return f"M{_LEFT} {top:g}V{bottom:g}"
    x = _LEFT + _LANE * lane
    return (
        f"M{_LEFT} {top:g}H{x - _CURVE}Q{x} {top:g} {x} {top + _CURVE:g}"
        f"V{bottom - _CURVE:g}Q{x} {bottom:g} {x - _CURVE} {bottom:g}H{_LEFT}"
    )
