"""The stored forms in a TFLite file: int4 weights, and a refusal for what TFLite has no type for."""

from __future__ import annotations

from tinydeploy.backends.onnx_forms import packed_bytes
from tinydeploy.ir.forms import Packed
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.show import form_text
from tinydeploy.ir.types import Array, Value
from tinydeploy.ops import Staircase

INT4 = 4


def unwritable(graph: Graph) -> str | None:
    """The first tensor that TFLite cannot hold or make, as text; None where there is none."""
    for node in graph.nodes:
        if isinstance(node.op, Staircase):
            return f"TFLite has no operator for the {len(node.op.levels)} levels of {node.outputs[0]!r}"
    for value in graph.values.values():
        if value.form is None or is_int4(value) or value.form == Packed(8):
            continue
        kind = "weights" if value.is_constant else "the activation"
        return f"TFLite has no type for {kind} {value.name!r} ({form_text(value.form)})"
    return None


def is_int4(value: Value | None) -> bool:
    """Whether a value becomes a tensor of type INT4."""
    return value is not None and value.is_constant and value.form == Packed(INT4)


def int4_bytes(data: Array) -> bytes:
    """Two elements a byte, the first in the low half."""
    return packed_bytes(data, INT4)
