"""An ONNX file read without trust: protobuf, limits, names, tensors and attributes.

Nothing here follows a path inside the file, and no size is believed before the data is counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.errors import DeployError
from tinydeploy.ir import limits
from tinydeploy.ir.types import Array

OPSETS = range(11, 26)
"""Versions of the default operator set that are read."""

DOMAINS = ("", "ai.onnx", "com.microsoft")

_MAX_NAME = 1 << 14
_MAX_LIST = 1 << 16
_DAMAGED = "the file is damaged or is no ONNX model; export it again"

_TYPES: Mapping[int, tuple[str, str, str]] = {
    1: ("float32", "float_data", "<f4"),
    2: ("uint8", "int32_data", "<u1"),
    3: ("int8", "int32_data", "<i1"),
    4: ("uint16", "int32_data", "<u2"),
    5: ("int16", "int32_data", "<i2"),
    6: ("int32", "int32_data", "<i4"),
    7: ("int64", "int64_data", "<i8"),
    9: ("bool", "int32_data", "|b1"),
    10: ("float16", "int32_data", "<f2"),
    11: ("float64", "double_data", "<f8"),
}
"""TensorProto.DataType: numpy's name, the typed field, and the form in raw_data."""

TYPE_NUMBERS = {name: number for number, (name, _, _) in _TYPES.items()}


_NARROW = {21: (4, 8), 22: (4, 0), 25: (2, 2), 26: (2, 0)}
"""UINT4, INT4, UINT2 and INT2: bits, and how much lower than its zero an unsigned one is held."""


def type_name(number: int) -> str:
    """numpy's name of an element type; raises DeployError for one that is not read."""
    if number not in _TYPES:
        raise DeployError(
            f"the element type number {number} is not supported",
            hint=f"supported are {', '.join(TYPE_NUMBERS)}",
        )
    return _TYPES[number][0]


def parse_model(data: bytes, source: str) -> Any:
    """The ModelProto of a file whose size, operator sets and count of nodes are within limits.

    Raises:
        DeployError: no ONNX file, or one with functions, sparse tensors or too much of something.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: PLC0415
    from onnx import ModelProto  # noqa: PLC0415

    if len(data) > limits.MAX_FILE_BYTES:
        raise DeployError(f"{len(data)} bytes; the limit is {limits.MAX_FILE_BYTES}", where=source)
    try:
        model = ModelProto.FromString(data)
    except DecodeError:
        raise DeployError("is no protobuf message of ONNX", where=source, hint=_DAMAGED) from None
    if not model.HasField("graph") or not model.graph.node:
        raise DeployError("holds no graph with operators", where=source, hint=_DAMAGED)
    if len(model.graph.node) > limits.MAX_NODES:
        raise DeployError(f"{len(model.graph.node)} operators; the limit is {limits.MAX_NODES}", where=source)
    if model.functions:
        raise DeployError(
            f"holds {len(model.functions)} functions of its own",
            where=source,
            hint="inline them: onnx.inliner.inline_local_functions(model)",
        )
    if model.graph.sparse_initializer:
        raise DeployError("holds sparse initialisers", where=source, hint="export dense weights")
    return model


def opset_of(model: Any, source: str) -> int:
    """The version of the default operator set; raises DeployError where it is missing or not read."""
    versions = [o.version for o in model.opset_import if text(o.domain, "domain") in ("", "ai.onnx")]
    if len(versions) != 1 or versions[0] not in OPSETS:
        raise DeployError(
            f"operator set {versions or 'unknown'}, and {OPSETS[0]} to {OPSETS[-1]} are read",
            where=source,
            hint="onnx.version_converter.convert_version(model, 17) translates many models",
        )
    return int(versions[0])


def text(value: Any, what: str) -> str:
    """A string of the file; protobuf hands out bytes where it is no UTF-8."""
    if not isinstance(value, str):
        raise DeployError(f"a {what} is no UTF-8 text", hint=_DAMAGED)
    if len(value) > _MAX_NAME:
        raise DeployError(f"a {what} has {len(value)} characters", hint=_DAMAGED)
    return value


def tensor(proto: Any) -> tuple[str, Array]:
    """Name and read-only data of a TensorProto.

    Raises:
        DeployError: data outside the file, an unsupported type, or sizes that do not agree.
    """
    name = text(proto.name, "tensor's name")
    try:
        return name, _data(proto)
    except DeployError as error:
        raise DeployError(f"the constant {name!r}: {error.fact}", hint=error.hint) from None


def narrow_tensor(proto: Any) -> tuple[str, Array, int] | None:
    """Name, elements as int8, and bits of a TensorProto of 2 or 4 bits; None for other types.

    An unsigned type is held lower by half of its values, its zero points among them, so that it is signed.

    Raises:
        DeployError: as `tensor` does.
    """
    if proto.data_type not in _NARROW:
        return None
    name = text(proto.name, "tensor's name")
    bits, lower = _NARROW[proto.data_type]
    _refuse_elsewhere(proto)
    shape = _shape(proto.dims)
    count = math.prod(shape)
    each = 8 // bits
    size = -(-count // each)
    raw = proto.raw_data if proto.HasField("raw_data") else bytes(v & 255 for v in proto.int32_data)
    if len(raw) != size:
        raise DeployError(
            f"the constant {name!r}: {len(raw)} bytes for shape {shape} of {bits} bits", hint=_DAMAGED
        )
    fields = np.frombuffer(raw, np.uint8)[:, None] >> (np.arange(each, dtype=np.uint8) * bits)
    q = (fields & ((1 << bits) - 1)).ravel()[:count].astype(np.int8)
    sign = 1 << (bits - 1)
    data = (q - lower if lower else (q ^ sign) - sign).astype(np.int8).reshape(shape)
    data.setflags(write=False)
    return name, data, bits


def _refuse_elsewhere(proto: Any) -> None:
    if proto.data_location or proto.external_data:
        raise DeployError(
            "its data stands in another file, which is never opened",
            hint="save one file: onnx.save_model(onnx.load(FILE), OUT, save_as_external_data=False)",
        )
    if proto.HasField("segment"):
        raise DeployError("its data is split in segments", hint="save it whole")


def _data(proto: Any) -> Array:
    _refuse_elsewhere(proto)
    name, field, raw_type = _TYPES.get(proto.data_type, ("", "", ""))
    if not name:
        type_name(proto.data_type)
    shape = _shape(proto.dims)
    count = math.prod(shape)
    if proto.HasField("raw_data"):
        raw = proto.raw_data
        if len(raw) != count * np.dtype(raw_type).itemsize:
            raise DeployError(f"{len(raw)} bytes for shape {shape} of {name}", hint=_DAMAGED)
        data = np.frombuffer(raw, raw_type).astype(name)
    else:
        values = getattr(proto, field)
        if len(values) != count:
            raise DeployError(f"{len(values)} values for shape {shape}", hint=_DAMAGED)
        data = _typed(np.array(values), name)
    data = data.reshape(shape)
    data.setflags(write=False)
    return data


def _typed(values: Array, name: str) -> Array:
    """The typed fields are wider than the elements; float16 stands there as its bits."""
    if name == "float16":
        return values.astype(np.uint16).view(np.float16)
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(name)


def _shape(dims: Any) -> tuple[int, ...]:
    if len(dims) > limits.MAX_RANK:
        raise DeployError(f"{len(dims)} axes; at most {limits.MAX_RANK} are supported", hint=_DAMAGED)
    shape = tuple(int(d) for d in dims)
    if any(d < 0 for d in shape) or math.prod(shape) > limits.MAX_ELEMENTS:
        raise DeployError(f"the shape {shape} is out of range", hint=_DAMAGED)
    return shape


def input_type(value: Any) -> tuple[str, str, tuple[int, ...]]:
    """Name, element type and shape of a graph input, with a batch of unknown size taken as 1.

    Raises:
        DeployError: no tensor, an unsupported type, or a dimension that is not known.
    """
    name = text(value.name, "input's name")
    if value.type.WhichOneof("value") != "tensor_type" or not value.type.tensor_type.HasField("shape"):
        raise DeployError(f"the input {name!r} is no tensor with a shape", hint="fix the shape and export")
    dims = value.type.tensor_type.shape.dim
    if len(dims) > limits.MAX_RANK:
        raise DeployError(f"the input {name!r} has {len(dims)} axes; the limit is {limits.MAX_RANK}")
    shape = [d.dim_value if d.WhichOneof("value") == "dim_value" else -1 for d in dims]
    if shape and shape[0] < 1:
        # A batch of unknown size: inference on a microcontroller takes one sample at a time.
        shape[0] = 1
    if any(n < 1 for n in shape) or math.prod(shape) > limits.MAX_ELEMENTS:
        raise DeployError(
            f"the input {name!r} has the unknown or unusable shape {shape}",
            hint="only the batch may be dynamic; export the model with fixed sizes",
        )
    return name, type_name(value.type.tensor_type.elem_type), tuple(shape)


@dataclass(frozen=True)
class Attributes:
    """The attributes of one node, each read by the type that the operator defines."""

    protos: Mapping[str, Any]

    def __contains__(self, name: str) -> bool:
        return name in self.protos

    def _get(self, name: str, kind: int, kind_name: str) -> Any:
        proto = self.protos[name]
        if proto.type != kind or proto.ref_attr_name:
            raise DeployError(f"the attribute {name!r} is no {kind_name}", hint=_DAMAGED)
        return proto

    def integer(self, name: str, default: int) -> int:
        return int(self._get(name, 2, "integer").i) if name in self.protos else default

    def number(self, name: str, default: float) -> float:
        if name not in self.protos:
            return default
        value = float(self._get(name, 1, "number").f)
        if not math.isfinite(value):
            raise DeployError(f"the attribute {name!r} is {value}", hint=_DAMAGED)
        return value

    def string(self, name: str, default: str) -> str:
        if name not in self.protos:
            return default
        raw = self._get(name, 3, "text").s
        return text(raw.decode("ascii", "replace"), f"attribute {name!r}")

    def integers(self, name: str, count: int | None = None) -> tuple[int, ...] | None:
        """A list of integers, of `count` elements where that is given; None where it is absent."""
        if name not in self.protos:
            return None
        values = self._get(name, 7, "list of integers").ints
        if len(values) > _MAX_LIST or (count is not None and len(values) != count):
            raise DeployError(f"the attribute {name!r} has {len(values)} elements, not {count}")
        return tuple(int(v) for v in values)

    def constant(self) -> Array:
        """The value of a Constant node."""
        if len(self.protos) != 1:
            raise DeployError(f"a constant with the attributes {sorted(self.protos)}", hint=_DAMAGED)
        (name,) = self.protos
        match name:
            case "value":
                return tensor(self._get(name, 4, "tensor").t)[1]
            case "value_float":
                return np.array(self._get(name, 1, "number").f, np.float32)
            case "value_floats":
                return np.array(self._get(name, 6, "list of numbers").floats, np.float32)
            case "value_int":
                return np.array(self.integer(name, 0), np.int64)
            case "value_ints":
                return np.array(self.integers(name), np.int64)
        raise DeployError(f"a constant with the attribute {name!r} is not supported")


def attributes(node: Any) -> Attributes:
    """Raises DeployError where a name repeats or is no text."""
    protos: dict[str, Any] = {}
    for proto in node.attribute:
        name = text(proto.name, "attribute's name")
        if name in protos:
            raise DeployError(f"the attribute {name!r} stands twice", hint=_DAMAGED)
        protos[name] = proto
    return Attributes(protos)
