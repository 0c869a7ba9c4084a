"""The lowered model: every layer with its function, arguments and constants, ready to be written."""

from __future__ import annotations

from dataclasses import dataclass

from tinydeploy.backends.c.layer import Constant, Context, LayerCode
from tinydeploy.backends.c.lower import lower
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Border, Graph, Node
from tinydeploy.ir.types import DType, Value
from tinydeploy.ir.verify import site_of
from tinydeploy.plan import KernelChoice, Kernels, Plan


@dataclass(frozen=True)
class Layer:
    """One layer function.

    Attributes:
        index: position among the layers that do something; views have none.
        function: C name, `NAME_03_conv_2d`.
        inputs: activation inputs by position among the node's inputs.
        choice: the kernel.
        macs: multiply-accumulates.
    """

    index: int
    function: str
    node: Node
    code: LayerCode
    inputs: tuple[tuple[int, Value], ...]
    output: Value
    choice: KernelChoice
    macs: int

    @property
    def scratch(self) -> bool:
        return self.choice.scratch_bytes > 0

    @property
    def weights_bytes(self) -> int:
        """Bytes of its constants."""
        return sum(c.bytes for c in self.code.constants)

    def owns(self, symbol: str) -> bool:
        """Whether a symbol of the linked code is this layer's function or a part split off from it."""
        # A compiler may append `.constprop.0` and the like to a static function's name.
        return symbol == self.function or symbol.startswith(f"{self.function}.")

    def member(self, constant: Constant) -> str:
        """Name of a constant in the weights structure."""
        return f"{constant.role}_{self.index:02d}"


@dataclass(frozen=True)
class Port:
    """An input or output of the generated model: `input` or `output_1`, its value and its border."""

    label: str
    value: Value
    border: Border

    @property
    def ctype(self) -> str:
        return "uint8_t" if self.value.dtype is DType.UINT8 else "int8_t"


@dataclass(frozen=True)
class Model:
    """A graph and its plan, lowered to C."""

    name: str
    graph: Graph
    plan: Plan
    layers: tuple[Layer, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def upper(self) -> str:
        return self.name.upper()

    @property
    def single(self) -> bool:
        """One input and one output, which go to NAME_run as two pointers."""
        return len(self.inputs) == len(self.outputs) == 1

    def place(self, value: str) -> str:
        """The C expression of a value inside NAME_run: a pointer of the caller, or a place in the arena."""
        views = self.plan.storage.view_of
        seen = views.get(value, value)
        same = [seen, *(n for n, v in views.items() if v == seen)]
        for port in self.outputs:
            if port.value.name in same:
                return port.label if self.single else f"io->{port.label}"
        for port in self.inputs:
            if port.value.name in same:
                return port.label if self.single else f"io->{port.label}"
        return f"arena + {self.plan.offset_of(value)}"


def lower_model(graph: Graph, plan: Plan, kernels: Kernels, name: str) -> Model:
    """Lowers every node; raises DeployError for a float graph or an op without a kernel."""
    _require_integer(graph)
    layers: list[Layer] = []
    for node in graph.nodes:
        if node.outputs[0] in plan.storage.view_of:
            continue
        at = Context(node, site_of(graph, node), kernels[node.name], node.name in plan.storage.in_place)
        index = len(layers)
        layers.append(
            Layer(
                index,
                f"{name}_{index:02d}_{node.op.kind.lower()}",
                node,
                lower(at),
                tuple((i, v) for i, v in enumerate(at.site.inputs) if v is not None and not v.is_constant),
                at.site.output,
                at.choice,
                node.op.macs(at.site),
            )
        )
    return Model(
        name,
        graph,
        plan,
        tuple(layers),
        _ports("input", graph, graph.inputs, graph.input_borders),
        _ports("output", graph, graph.outputs, graph.output_borders),
    )


def _ports(stem: str, graph: Graph, names: tuple[str, ...], borders: tuple[Border, ...]) -> tuple[Port, ...]:
    # With one input and one output the labels carry no number; otherwise every one does.
    numbered = len(graph.inputs) > 1 or len(graph.outputs) > 1
    return tuple(
        Port(f"{stem}_{i}" if numbered else stem, graph.value(n), border)
        for i, (n, border) in enumerate(zip(names, borders, strict=True))
    )


def _require_integer(graph: Graph) -> None:
    floats = [v.name for v in graph.values.values() if v.dtype.is_float]
    if floats:
        shown = ", ".join(repr(n) for n in floats[:3])
        raise DeployError(
            f"the model is float ({len(floats)} float tensors, such as {shown})",
            where=graph.source or graph.name,
            hint="generated C is integer only; quantize the model to int8 first",
        )
