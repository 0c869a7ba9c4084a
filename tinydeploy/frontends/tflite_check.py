"""Proves every offset of a .tflite file before a generated accessor follows it.

The accessors of the flatbuffers package trust the file: one wrong offset reads a neighbour or raises
from deep inside. `TABLES` states which fields the reader touches; the walk below checks exactly those,
and a field that is not listed here must not be read.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from tinydeploy.errors import DeployError

MAX_TABLES = 1 << 18
"""Tables that one walk visits; a shared table counts each time it is reached."""

_HINT = "the file is damaged or is no TFLite model; export it again"


@dataclass(frozen=True)
class Scalar:
    """A number inside the table."""

    bytes: int


@dataclass(frozen=True)
class Numbers:
    """A vector of numbers."""

    bytes: int


@dataclass(frozen=True)
class Text:
    """A UTF-8 string."""


@dataclass(frozen=True)
class Table:
    """One table of the named kind."""

    kind: str


@dataclass(frozen=True)
class Tables:
    """A vector of tables of the named kind."""

    kind: str


@dataclass(frozen=True)
class Union:
    """A table whose kind a byte in the field with id `selector` chooses; other choices are not read."""

    selector: int
    kinds: Mapping[int, str]


FieldType = Scalar | Numbers | Text | Table | Tables | Union


@dataclass(frozen=True)
class Field:
    """A field by its id in the schema."""

    id: int
    type: FieldType
    required: bool = False


_BYTE, _INT, _LONG = Scalar(1), Scalar(4), Scalar(8)


def _scalars(**types: Scalar) -> dict[str, Field]:
    """A table of scalars whose ids count up from 0."""
    return {name: Field(i, scalar) for i, (name, scalar) in enumerate(types.items())}


OPTIONS = {
    1: "Conv2DOptions",
    2: "DepthwiseConv2DOptions",
    5: "Pool2DOptions",
    8: "FullyConnectedOptions",
    9: "SoftmaxOptions",
    10: "ConcatenationOptions",
    11: "AddOptions",
    21: "MulOptions",
    27: "ReducerOptions",
}
"""The builtin options that the reader touches, by their number in the union."""

TABLES: dict[str, dict[str, Field]] = {
    "Model": {
        "version": Field(0, _INT),
        "operator_codes": Field(1, Tables("OperatorCode")),
        "subgraphs": Field(2, Tables("SubGraph"), required=True),
        "buffers": Field(4, Tables("Buffer"), required=True),
    },
    "OperatorCode": {
        "deprecated_builtin_code": Field(0, _BYTE),
        "custom_code": Field(1, Text()),
        "builtin_code": Field(3, _INT),
    },
    "SubGraph": {
        "tensors": Field(0, Tables("Tensor"), required=True),
        "inputs": Field(1, Numbers(4), required=True),
        "outputs": Field(2, Numbers(4), required=True),
        "operators": Field(3, Tables("Operator")),
        "name": Field(4, Text()),
    },
    "Tensor": {
        "shape": Field(0, Numbers(4)),
        "type": Field(1, _BYTE),
        "buffer": Field(2, _INT),
        "name": Field(3, Text()),
        "quantization": Field(4, Table("QuantizationParameters")),
        "is_variable": Field(5, _BYTE),
        "sparsity": Field(6, Table("SparsityParameters")),
        "external_buffer": Field(10, _INT),
    },
    "QuantizationParameters": {
        "scale": Field(2, Numbers(4)),
        "zero_point": Field(3, Numbers(8)),
        "details_type": Field(4, _BYTE),
        "quantized_dimension": Field(6, _INT),
    },
    "SparsityParameters": {},
    "Operator": {
        "opcode_index": Field(0, _INT),
        "inputs": Field(1, Numbers(4)),
        "outputs": Field(2, Numbers(4)),
        "builtin_options_type": Field(3, _BYTE),
        "builtin_options": Field(4, Union(3, OPTIONS)),
    },
    "Buffer": {"data": Field(0, Numbers(1)), "offset": Field(1, _LONG), "size": Field(2, _LONG)},
    "Conv2DOptions": _scalars(
        padding=_BYTE,
        stride_w=_INT,
        stride_h=_INT,
        fused_activation_function=_BYTE,
        dilation_w_factor=_INT,
        dilation_h_factor=_INT,
    ),
    "DepthwiseConv2DOptions": _scalars(
        padding=_BYTE,
        stride_w=_INT,
        stride_h=_INT,
        depth_multiplier=_INT,
        fused_activation_function=_BYTE,
        dilation_w_factor=_INT,
        dilation_h_factor=_INT,
    ),
    "Pool2DOptions": _scalars(
        padding=_BYTE,
        stride_w=_INT,
        stride_h=_INT,
        filter_width=_INT,
        filter_height=_INT,
        fused_activation_function=_BYTE,
    ),
    "FullyConnectedOptions": _scalars(
        fused_activation_function=_BYTE, weights_format=_BYTE, keep_num_dims=_BYTE
    ),
    "SoftmaxOptions": _scalars(beta=_INT),
    "ConcatenationOptions": _scalars(axis=_INT, fused_activation_function=_BYTE),
    "AddOptions": _scalars(fused_activation_function=_BYTE),
    "MulOptions": _scalars(fused_activation_function=_BYTE),
    "ReducerOptions": _scalars(keep_dims=_BYTE),
}
"""Every table and field that the reader touches, by the names and ids of the TFLite schema."""

_U16 = struct.Struct("<H").unpack_from
_U32 = struct.Struct("<I").unpack_from
_I32 = struct.Struct("<i").unpack_from


def check_tflite(data: bytes, where: str) -> None:
    """Checks the identifier and everything of `TABLES` that can be reached from the root.

    The time is bounded: tables are counted against `MAX_TABLES`, and vectors and strings may together
    hold four times the bytes of the file, which leaves room for honest sharing and none for a bomb.

    Raises:
        DeployError: an offset, size or string that no flatbuffer writer produces.
    """
    if len(data) < 8:
        raise DeployError(f"{len(data)} bytes are too short for a TFLite model", where=where, hint=_HINT)
    if data[4:8] != b"TFL3":
        raise DeployError(
            f"the identifier at byte 4 is {data[4:8]!r}, not b'TFL3'",
            where=where,
            hint="this is no TFLite model (version 3)",
        )
    walk = _Walk(data, where)
    walk.table(walk.target(0, "root"), "Model", "root")


class _Walk:
    """One pass from the root; the schema has no recursive table, so the depth is that of the schema."""

    def __init__(self, data: bytes, where: str) -> None:
        self._data = data
        self._where = where
        self._tables_left = MAX_TABLES
        self._bytes_left = 4 * len(data) + 1024

    def _fail(self, path: str, fact: str) -> DeployError:
        return DeployError(f"{path}: {fact}", where=self._where, hint=_HINT)

    def target(self, at: int, path: str) -> int:
        """Follows the unsigned offset that stands at `at`, four bytes inside the file."""
        position: int = at + _U32(self._data, at)[0]
        if position + 4 > len(self._data):
            raise self._fail(path, f"the offset at byte {at} leads to byte {position}, outside the file")
        return position

    def table(self, position: int, kind: str, path: str) -> None:
        """Checks a table at `position`, which has at least four bytes there."""
        self._tables_left -= 1
        if self._tables_left < 0:
            raise self._fail(path, f"more than {MAX_TABLES} tables")
        offsets, size = self._vtable(position, path)
        for name, field in TABLES[kind].items():
            offset = offsets[field.id] if field.id < len(offsets) else 0
            if offset == 0:
                if field.required:
                    raise self._fail(path, f"the field {name} is missing")
                continue
            width = field.type.bytes if isinstance(field.type, Scalar) else 4
            if offset < 4 or offset + width > size:
                raise self._fail(path, f"the field {name} lies outside its table")
            if isinstance(field.type, Union):
                selector = offsets[field.type.selector]
                chosen = field.type.kinds.get(self._data[position + selector]) if selector else None
                if chosen is not None:
                    self._field(position + offset, Table(chosen), f"{path}.{name}")
            elif not isinstance(field.type, Scalar):
                self._field(position + offset, field.type, f"{path}.{name}")

    def _vtable(self, position: int, path: str) -> tuple[tuple[int, ...], int]:
        """The field offsets, and the size of the table."""
        data = self._data
        start = position - _I32(data, position)[0]
        if not 0 <= start <= len(data) - 4:
            raise self._fail(path, f"the vtable at byte {start} lies outside the file")
        length, size = _U16(data, start)[0], _U16(data, start + 2)[0]
        if length < 4 or length % 2 or start + length > len(data):
            raise self._fail(path, f"the vtable at byte {start} has an impossible length of {length} bytes")
        if size < 4 or position + size > len(data):
            raise self._fail(path, f"the table at byte {position} with {size} bytes lies outside the file")
        return struct.unpack_from(f"<{length // 2 - 2}H", data, start + 4), size

    def _field(self, at: int, kind: FieldType, path: str) -> None:
        position = self.target(at, path)
        if isinstance(kind, Table):
            self.table(position, kind.kind, path)
        elif isinstance(kind, Tables):
            first, count = self._vector(position, 4, path)
            if count > self._tables_left:
                raise self._fail(path, f"more than {MAX_TABLES} tables")
            for i in range(count):
                element = f"{path}[{i}]"
                self.table(self.target(first + 4 * i, element), kind.kind, element)
        elif isinstance(kind, Text):
            first, count = self._vector(position, 1, path)
            try:
                self._data[first : first + count].decode()
            except UnicodeDecodeError:
                raise self._fail(path, "the string is not UTF-8") from None
        elif isinstance(kind, Numbers):
            self._vector(position, kind.bytes, path)

    def _vector(self, position: int, width: int, path: str) -> tuple[int, int]:
        """The first element's byte and the number of elements."""
        count: int = _U32(self._data, position)[0]
        if position + 4 + count * width > len(self._data):
            raise self._fail(path, f"the vector of {count} elements does not fit the file")
        self._bytes_left -= count * width
        if self._bytes_left < 0:
            raise self._fail(path, "the vectors share more bytes than an honest file does")
        return position + 4, count
