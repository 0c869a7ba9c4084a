"""The stored forms of an ONNX file's constants, read without trust; `backends.onnx_forms` has the format."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydeploy.errors import DeployError
from tinydeploy.frontends.onnx_check import narrow_tensor, tensor
from tinydeploy.frontends.onnx_tensor import Known
from tinydeploy.ir.forms import COEFFICIENT_MAX, Codebook, Packed, Planes
from tinydeploy.ir.types import Array, Quantization

FORMS_KEY = "tinydeploy.forms"

_MAX_PLANES = 8
_HINT = "the file was changed after tinydeploy wrote it; compress the float model again"

Note = dict[str, Any]


def read_notes(model: Any) -> Mapping[str, Note]:
    """What the metadata says of initialisers, by name; empty where it says nothing.

    Raises:
        DeployError: the text is no JSON object of objects.
    """
    found = [p.value for p in model.metadata_props if p.key == FORMS_KEY]
    if not found:
        return {}
    try:
        notes = json.loads(found[0])
    except (ValueError, RecursionError):
        raise DeployError(f"the metadata {FORMS_KEY!r} is no JSON", hint=_HINT) from None
    if len(found) > 1 or not isinstance(notes, dict) or not all(isinstance(n, dict) for n in notes.values()):
        raise DeployError(f"the metadata {FORMS_KEY!r} is no object of objects", hint=_HINT)
    return notes


def initializer(proto: Any, notes: Mapping[str, Note]) -> Known:
    """An initialiser with its stored form.

    Raises:
        DeployError: the tensor is damaged, or is not what its note says.
    """
    narrow = narrow_tensor(proto)
    if narrow is not None:
        name, data, bits = narrow
        return Known(name, data, form=Packed(bits))
    name, data = tensor(proto)
    note = notes.get(name)
    if note is None:
        return Known(name, data)
    try:
        return _Noted(name, data, note).known()
    except DeployError as error:
        where = f"the constant {name!r} has a damaged stored form: {error.fact}"
        raise DeployError(where, hint=_HINT) from None


@dataclass(frozen=True)
class _Noted:
    """One initialiser and its note, which may say anything."""

    name: str
    data: Array
    note: Note

    def known(self) -> Known:
        kind = self.note.get("form")
        if kind == "planes":
            return self._planes()
        if self.data.dtype != np.int8:
            raise DeployError(f"is {self.data.dtype}, not int8")
        bits = self._integer("bits", 1, 8)
        if kind == "packed":
            return Known(self.name, self.data, form=Packed(bits))
        if kind == "codebook":
            table = self._list("table", 1 << bits)
            return Known(self.name, self.data, form=Codebook(bits, tuple(_int(v, 128) for v in table)))
        raise DeployError("is of no kind that this version knows")

    def _planes(self) -> Known:
        """Integers from the planes; the float numbers in the file must be what they stand for."""
        axis = self._integer("axis", 0, max(self.data.ndim - 1, 0))
        if self.data.dtype != np.float32 or self.data.size == 0:
            raise DeployError(f"is {self.data.dtype} of shape {self.data.shape}, not float32")
        outputs = self.data.shape[axis]
        coefficients = self._coefficients(outputs)
        form = Planes(self._signs(len(coefficients)), coefficients, axis)
        scales = tuple(_positive(s) for s in self._list("scales", outputs))
        if len(scales) not in (1, outputs):
            raise DeployError(f"{len(scales)} scales for {outputs} outputs")
        integers = form.weights()
        shape = [1] * self.data.ndim
        shape[axis] = -1
        real = (integers.astype(np.float64) * np.array(scales).reshape(shape)).astype(np.float32)
        if not np.array_equal(real, self.data):
            raise DeployError("its planes are not its weights")
        q = Quantization(scales, (0,) * len(scales), axis if len(scales) > 1 else None)
        return Known(self.name, integers, q, form)

    def _coefficients(self, outputs: int) -> npt.NDArray[np.int16]:
        rows = self._list("coefficients", _MAX_PLANES)
        if not rows or not all(isinstance(row, list) and len(row) == outputs for row in rows):
            raise DeployError(f"the coefficients are not one number for each of {outputs} outputs")
        return np.array([[_int(v, COEFFICIENT_MAX) for v in row] for row in rows], np.int16)

    def _signs(self, planes: int) -> npt.NDArray[np.int8]:
        text, ternary = self.note.get("signs"), self.note.get("ternary")
        count = planes * self.data.size
        size = -(-count // 8)
        if not isinstance(text, str) or not isinstance(ternary, bool) or len(text) > 4 * size + 8:
            raise DeployError("its signs are no text of the right length")
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise DeployError("its signs are not base64") from None
        if len(raw) != size * (2 if ternary else 1):
            raise DeployError(f"{len(raw)} bytes of signs for {count} elements")
        bits = np.frombuffer(raw, np.uint8).reshape(-1, size)
        negative, *present = np.unpackbits(bits, axis=1)[:, :count].astype(np.int8)
        signs = 1 - 2 * negative
        if present:
            signs = signs * present[0]
        return np.ascontiguousarray(signs.reshape(planes, *self.data.shape))

    def _integer(self, key: str, low: int, high: int) -> int:
        value = self.note.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise DeployError(f"{key} is not an integer from {low} to {high}")
        return value

    def _list(self, key: str, most: int) -> list[Any]:
        value = self.note.get(key)
        if not isinstance(value, list) or len(value) > most:
            raise DeployError(f"{key} is no list of at most {most}")
        return value


def _int(value: object, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > most:
        raise DeployError(f"a number is no integer of at most {most}")
    return value


def _positive(value: object) -> float:
    if not isinstance(value, float) or not (math.isfinite(value) and value > 0.0):
        raise DeployError("a scale is no positive number")
    return value


__all__ = ["FORMS_KEY", "initializer", "read_notes"]
