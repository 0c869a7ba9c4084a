"""Which values share storage: reshapes are views, elementwise ops may write over a dying input."""

from __future__ import annotations

from dataclasses import dataclass

from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ops import Reshape
from tinydeploy.plan.kernels import Kernels


@dataclass(frozen=True)
class Buffer:
    """A stretch of memory that is live from node `first` to node `last`, both included.

    Attributes:
        name: the first value that lives in it, or `scratch of NODE`.
        members: every value that lives in it.
        first: -1 for a graph input, which the caller fills before the first node.
        last: the number of nodes for a graph output, which the caller reads afterwards.
        over: name of the buffer that this one may overlap, where it starts `lead` bytes before it or more:
            its layer reads the other one to the end while it fills this one.
    """

    name: str
    bytes: int
    first: int
    last: int
    members: tuple[str, ...]
    over: str | None = None
    lead: int = 0


@dataclass(frozen=True)
class Storage:
    """The buffers of a graph, the buffer of each value, and the views.

    Attributes:
        buffer_of: buffer name by activation name.
        view_of: for a value that is another one reshaped without a copy, the name of that value.
        scratch_of: buffer name by node name.
        in_place: the nodes whose output takes the place of an input.
    """

    buffers: tuple[Buffer, ...]
    buffer_of: dict[str, str]
    view_of: dict[str, str]
    scratch_of: dict[str, str]
    in_place: frozenset[str]


class _Sharing:
    """Union of values into buffers, in execution order."""

    def __init__(self, graph: Graph, kernels: Kernels) -> None:
        self.graph = graph
        self.kernels = kernels
        self.end = len(graph.nodes)
        self.root: dict[str, str] = {}
        self.members: dict[str, list[str]] = {}
        self.first: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.view_of: dict[str, str] = {}
        self.over: dict[str, tuple[str, int]] = {}
        self.last_read = self._last_reads()

    def _last_reads(self) -> dict[str, int]:
        last: dict[str, int] = {}
        for i, node in enumerate(self.graph.nodes):
            last.update({n: i for n in node.inputs if n is not None})
        last.update(dict.fromkeys(self.graph.outputs, self.end))
        return last

    def add(self, name: str, first: int) -> None:
        self.root[name] = name
        self.members[name] = [name]
        self.first[name] = first
        self.last[name] = max(first, self.last_read.get(name, first))

    def join(self, name: str, other: str, first: int) -> None:
        """Puts `name`, written at node `first`, into the buffer of `other`."""
        root = self.root[other]
        self.root[name] = root
        self.members[root].append(name)
        self.last[root] = max(self.last[root], first, self.last_read.get(name, first))

    def viewed(self, name: str) -> str:
        """The value whose elements `name` shows."""
        return self.view_of.get(name, name)

    def is_view(self, node: Node) -> bool:
        """Whether a reshape needs no copy: its two ends are not two different buffers of the caller."""
        source, target = node.inputs[0], node.outputs[0]
        if not isinstance(node.op, Reshape) or source is None or self.graph.value(source).is_constant:
            return False
        if target not in self.graph.outputs:
            return True
        ends = {*self.graph.inputs, *self.graph.outputs}
        seen = self.viewed(source)
        return not any(n in ends for n, v in self.view_of.items() if v == seen) and seen not in ends

    def reusable_input(self, index: int, node: Node) -> str | None:
        """An input that dies here and whose storage an elementwise op may take."""
        if not self.kernels[node.name].in_place:
            return None
        size = self.graph.value(node.outputs[0]).bytes
        for name in node.inputs:
            if name is None or self.graph.value(name).is_constant:
                continue
            if self.graph.value(name).bytes == size and self.last[self.root[name]] == index:
                return name
        return None

    def lay_over(self, index: int, node: Node) -> None:
        """Lets the output overlap a dying first input, as far as the kernel can write behind its reads."""
        source, lead = node.inputs[0], self.kernels[node.name].lead
        if lead is None or source is None or self.graph.value(source).is_constant:
            return
        if self.last[self.root[source]] == index:
            self.over[node.outputs[0]] = (self.root[source], lead)

    def buffer(self, root: str) -> Buffer:
        over, lead = self.over.get(root, (None, 0))
        members = tuple(self.members[root])
        size = self.graph.value(root).bytes
        return Buffer(root, size, self.first[root], self.last[root], members, over, lead)


def assign_storage(graph: Graph, kernels: Kernels) -> Storage:
    """Decides views and in-place writes, and gives the live range of every buffer."""
    sharing = _Sharing(graph, kernels)
    for name in graph.inputs:
        sharing.add(name, -1)
    scratch: list[Buffer] = []
    scratch_of: dict[str, str] = {}
    in_place: set[str] = set()
    for i, node in enumerate(graph.nodes):
        output = node.outputs[0]
        reused = sharing.reusable_input(i, node)
        if sharing.is_view(node):
            source = str(node.inputs[0])
            sharing.view_of[output] = sharing.viewed(source)
            sharing.join(output, source, i)
        elif reused is not None:
            sharing.join(output, reused, i)
            in_place.add(node.name)
        else:
            sharing.add(output, i)
            sharing.lay_over(i, node)
        size = kernels[node.name].scratch_bytes
        if size:
            scratch_of[node.name] = f"scratch of {node.name}"
            scratch.append(Buffer(scratch_of[node.name], size, i, i, ()))
    buffers = [sharing.buffer(root) for root in sharing.members]
    return Storage((*buffers, *scratch), sharing.root, sharing.view_of, scratch_of, frozenset(in_place))
