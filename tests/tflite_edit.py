"""Edits of .tflite bytes for tests: through the schema's objects, or offset by offset."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from tinydeploy.backends.tflite_model import ModelFile


def edit(data: bytes, change: Callable[[Any], None]) -> bytes:
    """`data` with `change` applied to its ModelT."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    change(model)
    builder = flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def new_file() -> ModelFile:
    """An empty model, to be filled with what no graph can hold."""
    return ModelFile(schema)


def root(data: bytes) -> int:
    return int(struct.unpack_from("<I", data)[0])


def field(data: bytes, table: int, number: int) -> int:
    """Where the field stands in its table."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    offset = struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0]
    assert offset, f"field {number} is absent"
    return int(table + offset)


def follow(data: bytes, at: int) -> int:
    """Where the offset at `at` leads."""
    return int(at + struct.unpack_from("<I", data, at)[0])


def element(data: bytes, vector: int, index: int) -> int:
    """The table that element `index` of a vector of tables leads to."""
    return follow(data, vector + 4 + 4 * index)


def patch(data: bytes, at: int, layout: str, number: int) -> bytes:
    """`data` with a number written over what stood at `at`."""
    copy = bytearray(data)
    struct.pack_into(layout, copy, at, number)
    return bytes(copy)
