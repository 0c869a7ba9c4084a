"""TRANSPOSE at a graph's inputs and outputs becomes a property of the border."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph, Layout, Node
from tinydeploy.ir.op import Op, Shape, Site
from tinydeploy.ir.types import Array, DType
from tinydeploy.ops import Reshape
from tinydeploy.ops.requantize import (
    check_activations,
    require,
    require_activation,
    require_same_quantization,
)
from tinydeploy.passes.rewrite import with_nodes


@dataclass(frozen=True)
class Transpose(Op):
    """The axes in another order. Stands in a graph between a frontend and `fold_layouts` only.

    Attributes:
        permutation: axis `permutation[i]` of the input becomes axis i.
    """

    permutation: tuple[int, ...] = ()

    kind = "TRANSPOSE"

    def output_shape(self, site: Site) -> Shape:
        shape = site.input(0).shape
        require(
            sorted(self.permutation) == list(range(len(shape))),
            f"the permutation {self.permutation} does not fit {len(shape)} axes",
        )
        return tuple(shape[a] for a in self.permutation)

    def check(self, site: Site) -> None:
        def integer(at: Site) -> None:
            require_activation(at.input(0), DType.INT8, DType.UINT8)
            require_activation(at.output, at.input(0).dtype)
            require_same_quantization(at.input(0), at.output)

        check_activations(site, integer)

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        del site
        assert arrays[0] is not None
        return arrays[0].transpose(0, *(a + 1 for a in self.permutation))

    run_float = run_integer


def has_transposes(graph: Graph) -> bool:
    return any(isinstance(node.op, Transpose) for node in graph.nodes)


def fold_layouts(graph: Graph) -> Graph:
    """Leaves inputs and outputs as the layers hold them where the source model transposes at its borders.

    `Border.layout` keeps the source's shape and order. Folded are transpositions that alone read an input,
    or that alone lead to an output, with the reshapes around them.

    Requires: a verified graph whose float borders were stripped (see `passes.borders`).
    Ensures: the same arithmetic, and no TRANSPOSE.

    Raises:
        DeployError: a TRANSPOSE stands between layers.
    """
    folded = _fold_outputs(_fold_inputs(graph))
    for node in folded.nodes:
        if isinstance(node.op, Transpose):
            raise DeployError(
                f"stands between layers, with the permutation {node.op.permutation}",
                where=f"{graph.source or graph.name}: TRANSPOSE {node.name!r}",
                hint="transpositions are supported at inputs and outputs; build the network channels last",
            )
    return folded


@dataclass(frozen=True)
class _Moves:
    """Reshapes and transpositions in a row that are one Layout, from the source's side to the held one."""

    nodes: tuple[Node, ...]
    layout: Layout
    held: str


def _fold_inputs(graph: Graph) -> Graph:
    readers: dict[str | None, list[Node]] = {}
    for node in graph.nodes:
        for read in node.inputs:
            readers.setdefault(read, []).append(node)

    def after(name: str) -> Node | None:
        nodes = readers.get(name, [])
        # What leaves the graph at once stays: it is all that the model does.
        if len(nodes) != 1 or name in outputs or nodes[0].outputs[0] in outputs:
            return None
        return nodes[0]

    outputs = set(graph.outputs)
    found: dict[int, _Moves] = {}
    for i, name in enumerate(graph.inputs):
        moves = _moves(graph, name, _chain(name, after, lambda node: node.outputs[0]), inwards=True)
        if moves is not None:
            found[i] = moves
    return _fold(graph, "input", found)


def _fold_outputs(graph: Graph) -> Graph:
    makers = {node.outputs[0]: node for node in graph.nodes}
    reads = Counter(read for node in graph.nodes for read in node.inputs)
    borders = {*graph.inputs, *graph.outputs}

    def before(name: str) -> Node | None:
        node = makers.get(name)
        if node is None or reads[name] != (name not in borders):
            return None
        source = node.inputs[0]
        # An input, a constant or another output has no place of its own.
        return None if source is None or source in borders or graph.value(source).is_constant else node

    found: dict[int, _Moves] = {}
    for i, name in enumerate(graph.outputs):
        moves = _moves(graph, name, _chain(name, before, _source), inwards=False)
        if moves is not None and moves.held not in {m.held for m in found.values()}:
            found[i] = moves
    return _fold(graph, "output", found)


def _source(node: Node) -> str:
    """What a reshape or transposition moves."""
    name = node.inputs[0]
    assert name is not None
    return name


def _chain(name: str, step: Callable[[str], Node | None], on: Callable[[Node], str]) -> list[Node]:
    """The reshapes and transpositions in a row, from a border inwards."""
    chain: list[Node] = []
    node = step(name)
    while node is not None and isinstance(node.op, Reshape | Transpose):
        chain.append(node)
        node = step(on(node))
    return chain


def _moves(graph: Graph, name: str, chain: Sequence[Node], *, inwards: bool) -> _Moves | None:
    """The longest beginning of a chain that is a Layout; None where it holds no transposition."""
    ends = [name, *(n.outputs[0] if inwards else _source(n) for n in chain)]
    shapes = [graph.value(n).shape for n in ends]
    kinds = [isinstance(n.op, Transpose) for n in chain]
    if True not in kinds:
        return None
    first = kinds.index(True)
    last = first
    permutation = tuple(range(len(shapes[first])))
    while last < len(chain) and kinds[last]:
        step = _permutation(chain[last], inwards)
        permutation = tuple(permutation[a] for a in step)
        last += 1
    # Axes of size 1 that come or go are part of the layout; a flattening is the network's own.
    while last < len(chain) and not kinds[last] and _long(shapes[last]) == _long(shapes[last + 1]):
        last += 1
    return _Moves(tuple(chain[:last]), Layout(shapes[0], shapes[first], permutation), ends[last])


def _permutation(node: Node, inwards: bool) -> tuple[int, ...]:
    """From the source's side to the held one, whichever way the data goes."""
    assert isinstance(node.op, Transpose)
    permutation = node.op.permutation
    return permutation if inwards else tuple(sorted(range(len(permutation)), key=permutation.__getitem__))


def _long(shape: Shape) -> Shape:
    return tuple(n for n in shape if n > 1)


def _fold(graph: Graph, end: str, found: Mapping[int, _Moves]) -> Graph:
    """The graph without these moves, by the index of their border; `end` is input or output."""
    inwards = end == "input"
    names = list(graph.inputs if inwards else graph.outputs)
    borders = list(graph.input_borders if inwards else graph.output_borders)
    gone = {node.name for moves in found.values() for node in moves.nodes}
    renamed: dict[str, str] = {}
    for i, moves in found.items():
        # An integer border is known by its own name; behind a float one the held value has another.
        if not borders[i].is_float:
            renamed[moves.held] = names[i]
        borders[i] = replace(borders[i], layout=moves.layout)
        names[i] = moves.held
    if inwards:
        moved = replace(graph, inputs=tuple(names), input_borders=tuple(borders))
    else:
        moved = replace(graph, outputs=tuple(names), output_borders=tuple(borders))
    return _renamed(with_nodes(moved, (n for n in graph.nodes if n.name not in gone)), renamed)


def _renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    """The graph with some values under other, free names."""

    def new(name: str) -> str:
        return names.get(name, name)

    return replace(
        graph,
        values={new(k): replace(v, name=new(k)) for k, v in graph.values.items()},
        nodes=tuple(
            replace(
                n,
                inputs=tuple(None if x is None else new(x) for x in n.inputs),
                outputs=tuple(new(y) for y in n.outputs),
            )
            for n in graph.nodes
        ),
        inputs=tuple(new(n) for n in graph.inputs),
        outputs=tuple(new(n) for n in graph.outputs),
    )
