"""What one node of the graph becomes in C."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinydeploy.backends.c.syntax import Struct, struct
from tinydeploy.ir.graph import Node
from tinydeploy.ir.op import Site
from tinydeploy.ir.types import Array, Value
from tinydeploy.ops.requantize import Requantization
from tinydeploy.plan import KernelChoice

_BYTES = {"int8_t": 1, "uint8_t": 1, "int16_t": 2, "int32_t": 4}


@dataclass(frozen=True)
class Indices:
    """Codebook indices that a constant holds.

    Attributes:
        bits: of each, 1 to 7.
        fields: uint8, in the order in which td_kernels_huffman.h writes them.
        coded: uint8, where flash holds a Huffman code of them and RAM the constant; None where flash has it.
    """

    bits: int
    fields: Array
    coded: Array | None = None


@dataclass(frozen=True)
class Constant:
    """An integer array of a layer; `role` names it together with the layer's number."""

    role: str
    ctype: str
    data: Array
    indices: Indices | None = None

    @property
    def coded(self) -> Array | None:
        """What flash holds in place of `data`, which then is in RAM from start-up on."""
        return None if self.indices is None else self.indices.coded

    @property
    def bytes(self) -> int:
        """In flash."""
        return self.data_bytes if self.coded is None else int(self.coded.size)

    @property
    def data_bytes(self) -> int:
        """As the kernel reads it."""
        return int(self.data.size) * _BYTES[self.ctype]

    @property
    def ram_bytes(self) -> int:
        """In RAM, whole words."""
        return 0 if self.coded is None else -(-self.data_bytes // 4) * 4


@dataclass(frozen=True)
class Shape:
    """A constant structure inside the layer's function: the shape that the kernel is specialised to."""

    ctype: str
    value: Struct
    name: str = "shape"


@dataclass(frozen=True)
class LayerCode:
    """The body of a layer's function.

    Attributes:
        header: the kernel file that declares what is called.
        shapes: constant structures, in order.
        calls: statements; `x0`, `x1`, ... are the activation inputs, `y` the output, `scratch` the
            scratch, `{scratch}` the scratch or NULL, and `{role}` stands for a constant of the layer.
        constants: integer arrays.
    """

    header: str
    kernel: str
    shapes: tuple[Shape, ...]
    calls: tuple[str, ...]
    constants: tuple[Constant, ...] = ()


@dataclass(frozen=True)
class Context:
    """Where a layer is written: node, values around it, kernel, and whether it overwrites an input."""

    node: Node
    site: Site
    choice: KernelChoice
    in_place: bool

    def operand(self, index: int) -> str:
        """The C expression of input `index`: a parameter, or a constant of the layer."""
        if self.site.input(index).is_constant:
            return f"{{operand{index}}}"
        return f"x{index}"

    def operand_constants(self) -> tuple[Constant, ...]:
        """Constant activations, such as the second operand of an ADD."""
        return tuple(
            Constant(f"operand{i}", f"{v.dtype.value}_t", v.array)
            for i, v in enumerate(self.site.inputs)
            if v is not None and v.is_constant
        )


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
        """Bytes of its constants in flash."""
        return sum(c.bytes for c in self.code.constants)

    @property
    def decoded_bytes(self) -> int:
        """Bytes of RAM for what is decoded at start-up."""
        return sum(c.ram_bytes for c in self.code.constants)

    def owns(self, symbol: str) -> bool:
        """Whether a symbol of the linked code is this layer's function or a part split off from it."""
        # A compiler may append `.constprop.0` and the like to a static function's name.
        return symbol == self.function or symbol.startswith(f"{self.function}.")

    def member(self, constant: Constant) -> str:
        """Name of a constant in the weights structure."""
        return f"{'coded_' if constant.coded is not None else ''}{constant.role}_{self.index:02d}"

    def expression(self, name: str, constant: Constant) -> str:
        """The C expression of a constant as the kernel reads it, in the model `name`."""
        if constant.coded is None:
            return f"{name}_weights.{self.member(constant)}"
        return f"{name}_{constant.role}_{self.index:02d}"


def output_struct(r: Requantization) -> Struct:
    """The td_output of a layer."""
    return struct(
        zero_point=r.zero_point,
        low=r.low,
        high=r.high,
        right_only=int(r.right_shifts_only),
    )


def call(function: str, arguments: Sequence[str]) -> str:
    """`function(a, b);`"""
    return f"{function}({', '.join(arguments)});"
