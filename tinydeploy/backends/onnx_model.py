"""An ONNX file under construction: nodes, initialisers, names, and the bytes of them all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinydeploy.backends.onnx_forms import FORMS_KEY, ONNX_BITS, packed_bytes
from tinydeploy.ir.types import Array, DType, Quantization

OPSET = 17
"""Operator set of what is written: the newest that IR version 8 holds, so that old runtimes load it."""

_IR_VERSIONS = {OPSET: 8, 21: 10, 25: 13}
_OPSET_OF_BITS = {4: 21, 2: 25}

_TYPE_NUMBERS = {
    DType.FLOAT32: 1,
    DType.UINT8: 2,
    DType.INT8: 3,
    DType.INT16: 5,
    DType.INT32: 6,
    DType.INT64: 7,
}


@dataclass
class ModelFile:
    """Collects the parts of a model in the order in which they are added.

    Attributes:
        opset: the operator set, at least OPSET; INT4 and INT2 need a newer one.
    """

    onnx: Any
    opset: int = OPSET
    _nodes: list[Any] = field(default_factory=list)
    _inputs: list[Any] = field(default_factory=list)
    _outputs: list[Any] = field(default_factory=list)
    _initializers: dict[str, Array] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)
    _node_names: dict[str, int] = field(default_factory=dict)
    _bits: dict[str, int] = field(default_factory=dict)
    _forms: dict[str, dict[str, object]] = field(default_factory=dict)

    def reserve(self, name: str) -> str:
        """A tensor name that nothing else has: `name`, or with a number behind it."""
        return _free(name, self._names)

    def input(self, name: str, dtype: DType, shape: tuple[int, ...]) -> None:
        self._inputs.append(self._value_info(name, dtype, shape))

    def output(self, name: str, dtype: DType, shape: tuple[int, ...]) -> None:
        self._outputs.append(self._value_info(name, dtype, shape))

    def node(self, kind: str, inputs: list[str], output: str, *, name: str = "", **attributes: Any) -> str:
        """Appends an operator and returns the name of its output, which must have been reserved."""
        label = _free(name or output, self._node_names)
        made = self.onnx.helper.make_node(kind, inputs, [output], name=label)
        for key, value in attributes.items():
            made.attribute.append(self.onnx.helper.make_attribute(key, value))
        self._nodes.append(made)
        return output

    def constant(
        self, name: str, data: Array, bits: int | None = None, form: dict[str, object] | None = None
    ) -> str:
        """Adds an initialiser under a free name; equal ones of one name are held once.

        Args:
            bits: 4 or 2 for int8 data that becomes INT4 or INT2.
            form: what the metadata says of it.
        """
        known = self._initializers.get(name)
        if (
            known is not None
            and known.dtype == data.dtype
            and np.array_equal(known, data)
            and (self._bits.get(name), self._forms.get(name)) == (bits, form)
        ):
            return name
        free = self.reserve(name)
        self._initializers[free] = data
        if bits is not None:
            self._bits[free] = bits
        if form is not None:
            self._forms[free] = form
        return free

    def quantization(self, name: str, q: Quantization, dtype: DType, bits: int | None = None) -> list[str]:
        """The initialisers of a scale and a zero point, as the second and third input of Q and DQ."""
        scales: Array = np.array(q.scales, np.float32)
        points: Array = np.array(q.zero_points, dtype.numpy)
        if not q.per_channel:
            scales, points = scales.reshape(()), points.reshape(())
        return [self.constant(f"{name}/scale", scales), self.constant(f"{name}/zero_point", points, bits)]

    def rename(self, old: str, new: str) -> bool:
        """Gives a computed tensor another name; False where it is an input."""
        if not any(old in node.output for node in self._nodes):
            return False
        for node in self._nodes:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == old:
                        names[i] = new
        return True

    def serialize(self, name: str) -> bytes:
        """The finished file; equal contents give equal bytes."""
        helper = self.onnx.helper
        tensors = [self._tensor(k, v) for k, v in self._initializers.items()]
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, tensors)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=_IR_VERSIONS[self.opset], producer_name="tinydeploy"
        )
        if self._forms:
            text = json.dumps(self._forms, sort_keys=True, separators=(",", ":"))
            model.metadata_props.add(key=FORMS_KEY, value=text)
        return bytes(model.SerializeToString(deterministic=True))

    def _tensor(self, name: str, data: Array) -> Any:
        bits = self._bits.get(name)
        if bits is None:
            return self.onnx.numpy_helper.from_array(_little(data), name)
        # By its number, since older onnx packages have no helper for these types.
        return self.onnx.TensorProto(
            name=name, dims=data.shape, data_type=ONNX_BITS[bits], raw_data=packed_bytes(data, bits)
        )

    def _value_info(self, name: str, dtype: DType, shape: tuple[int, ...]) -> Any:
        return self.onnx.helper.make_tensor_value_info(name, _TYPE_NUMBERS[dtype], list(shape))


def opset_for(bits: Iterable[int | None]) -> int:
    """The least operator set for constants of these bits."""
    return max((_OPSET_OF_BITS[b] for b in bits if b is not None), default=OPSET)


def _little(data: Array) -> Array:
    return np.ascontiguousarray(data, data.dtype.newbyteorder("<")).reshape(data.shape)


def _free(name: str, taken: dict[str, int]) -> str:
    """`name`, or with a number behind it; `taken` holds how often each name was asked for."""
    candidate = name
    while candidate in taken:
        taken[name] += 1
        candidate = f"{name}_{taken[name] - 1}"
    taken[candidate] = 1
    return candidate
