"""The tensors of a checked TFLite subgraph as values: names, types, shapes, quantization, data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinydeploy.errors import DeployError
from tinydeploy.ir.forms import Packed
from tinydeploy.ir.limits import MAX_ELEMENTS, MAX_RANK
from tinydeploy.ir.types import Array, DType, Quantization, Value

_TYPES = {
    "FLOAT32": DType.FLOAT32,
    "INT8": DType.INT8,
    "UINT8": DType.UINT8,
    "INT16": DType.INT16,
    "INT32": DType.INT32,
    "INT64": DType.INT64,
}

_MAX_NAME = 1 << 14


class Tensors:
    """Reads tensors of a checked file by index, each once and only where something asks for it.

    Every method raises DeployError, with the tensor's name in the fact, for what is out of range,
    damaged or unsupported.
    """

    def __init__(self, schema: Any, model: Any, subgraph: Any) -> None:
        self._model = model
        self._subgraph = subgraph
        self._type_names = {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
        self._names = _unique_names(subgraph)
        self._values: dict[int, Value] = {}
        self._arrays: dict[tuple[int, str], Array] = {}

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """The unique name of tensor `index`."""
        if not 0 <= index < len(self._names):
            raise DeployError(f"tensor {index} does not exist; there are {len(self._names)}")
        return self._names[index]

    def value(self, index: int) -> Value:
        """Tensor `index` as a value, with data where its buffer has some."""
        if index not in self._values:
            self._values[index] = self._read(index)
        return self._values[index]

    def replace(self, index: int, data: Array) -> None:
        """Makes tensor `index` the float constant `data`, computed while reading."""
        data.setflags(write=False)
        self._values[index] = Value(self.name(index), DType.FLOAT32, tuple(data.shape), None, data)

    def constant_as_float(self, index: int) -> Array | None:
        """What DEQUANTIZE makes of tensor `index` if it is a float16 or integer constant, else None."""
        name, tensor = self.name(index), self._subgraph.Tensors(index)
        if self._type_names.get(tensor.Type()) == "FLOAT16":
            self._refuse_special(tensor, name)
            half = self._data(tensor, name, _shape(tensor, name), np.dtype("<f2"))
            return None if half is None else np.asarray(half, np.float32)
        value = self.value(index)
        if value.data is None:
            return None
        quant = value.quantization
        if quant is None:
            raise DeployError(f"tensor {name!r} has no scale, so DEQUANTIZE has nothing to go by")
        broadcast = [1] * len(value.shape)
        if quant.axis is not None:
            broadcast[quant.axis] = -1
        scales = np.array(quant.scales, np.float64).reshape(broadcast)
        zero_points = np.array(quant.zero_points, np.float64).reshape(broadcast)
        return np.asarray((value.data.astype(np.float64) - zero_points) * scales, np.float32)

    def _read(self, index: int) -> Value:
        name, tensor = self.name(index), self._subgraph.Tensors(index)
        self._refuse_special(tensor, name)
        type_name = self._type_names.get(tensor.Type(), f"number {tensor.Type()}")
        if type_name == "INT4":
            return self._read_int4(tensor, name)
        dtype = _TYPES.get(type_name)
        if dtype is None:
            raise DeployError(
                f"tensor {name!r} has the element type {type_name}, which is not supported",
                hint=f"supported are {', '.join(_TYPES)}, and INT4 for weights",
            )
        shape = _shape(tensor, name)
        quantization = None if dtype.is_float else _quantization(tensor, name, shape, dtype)
        data = self._data(tensor, name, shape, dtype.numpy.newbyteorder("<"))
        if dtype.is_float and data is not None and not np.isfinite(data).all():
            raise DeployError(f"the constant {name!r} holds a NaN or an infinity", hint="export it again")
        return Value(name, dtype, shape, quantization, data)

    def _read_int4(self, tensor: Any, name: str) -> Value:
        """A constant of four bits: two elements a byte, the first in the low half."""
        shape = _shape(tensor, name)
        count = math.prod(shape)
        packed = self._data(tensor, name, (-(-count // 2),), np.dtype(np.uint8))
        if packed is None:
            raise DeployError(
                f"tensor {name!r} is INT4 and no constant",
                hint="weights may be INT4; keep activations INT8",
            )
        halves = np.stack([packed & 15, packed >> 4], axis=1).ravel()[:count]
        data = ((halves ^ 8).astype(np.int8) - 8).reshape(shape)
        data.setflags(write=False)
        quantization = _quantization(tensor, name, shape, DType.INT8)
        return Value(name, DType.INT8, shape, quantization, data, Packed(4))

    def _refuse_special(self, tensor: Any, name: str) -> None:
        if tensor.Sparsity() is not None:
            raise DeployError(
                f"tensor {name!r} is stored sparse", hint="export the model without sparse weights"
            )
        if tensor.IsVariable():
            raise DeployError(
                f"tensor {name!r} is a variable; models with state are not supported",
                hint="export the model with its state as inputs and outputs",
            )
        if tensor.ExternalBuffer():
            raise DeployError(f"tensor {name!r} has its data in an external buffer", hint="export one file")

    def _data(self, tensor: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
        """A read-only array, or None where the buffer is empty; tensors that share a buffer share it here."""
        number = tensor.Buffer()
        if number >= self._model.BuffersLength():
            raise DeployError(f"tensor {name!r} has buffer {number} of {self._model.BuffersLength()}")
        buffer = self._model.Buffers(number)
        if buffer.Offset() > 1 or buffer.Size() > 1:
            raise DeployError(
                f"the data of tensor {name!r} stands behind the flatbuffer",
                hint="models of over 2 GB are stored so; a microcontroller needs a smaller one",
            )
        length = buffer.DataLength()
        if length == 0:
            return None
        expected = math.prod(shape) * dtype.itemsize
        if length != expected:
            raise DeployError(
                f"the constant {name!r} has {length} bytes; shape {shape} of {dtype.name} needs {expected}",
                hint="the file is damaged; export it again",
            )
        key = (number, dtype.name)
        if key not in self._arrays:
            raw = np.frombuffer(buffer.DataAsNumpy().tobytes(), dtype).astype(dtype.newbyteorder("="))
            raw.setflags(write=False)
            self._arrays[key] = raw
        return self._arrays[key].reshape(shape)


def _unique_names(subgraph: Any) -> list[str]:
    names: list[str] = []
    used: set[str] = set()
    repeats: dict[str, int] = {}
    for i in range(subgraph.TensorsLength()):
        raw = subgraph.Tensors(i).Name()
        base = raw.decode() if raw else f"tensor_{i}"
        if len(base) > _MAX_NAME:
            raise DeployError(f"the name of tensor {i} has {len(base)} characters")
        name = base
        while name in used:
            repeats[base] = repeats.get(base, 0) + 1
            name = f"{base}_{repeats[base]}"
        used.add(name)
        names.append(name)
    return names


def _shape(tensor: Any, name: str) -> tuple[int, ...]:
    rank = tensor.ShapeLength()
    if rank > MAX_RANK:
        raise DeployError(f"tensor {name!r} has {rank} axes; at most {MAX_RANK} are supported")
    shape = [tensor.Shape(i) for i in range(rank)]
    if shape and shape[0] == -1:
        # A batch of unknown size: inference on a microcontroller takes one sample at a time.
        shape[0] = 1
    if any(n < 0 for n in shape):
        raise DeployError(
            f"tensor {name!r} has the unknown shape {tuple(shape)}",
            hint="export the model with a fixed input shape",
        )
    if math.prod(shape) > MAX_ELEMENTS:
        raise DeployError(f"tensor {name!r} of shape {tuple(shape)} has more than {MAX_ELEMENTS} elements")
    return tuple(shape)


def _quantization(tensor: Any, name: str, shape: tuple[int, ...], dtype: DType) -> Quantization | None:
    """The affine parameters; None where the file states no scale."""
    raw = tensor.Quantization()
    if raw is None:
        return None
    if raw.DetailsType() != 0:
        raise DeployError(
            f"tensor {name!r} is quantized in a way other than by scale and zero point",
            hint="convert the model with int8 quantization per tensor or per channel",
        )
    count = raw.ScaleLength()
    if count == 0:
        return None
    axis = raw.QuantizedDimension() if count > 1 else None
    if axis is not None and not (0 <= axis < len(shape) and shape[axis] == count):
        raise DeployError(f"tensor {name!r} of shape {shape} has {count} scales along axis {axis}")
    given = raw.ZeroPointLength()
    if given not in (0, 1, count):
        raise DeployError(f"tensor {name!r} has {count} scales and {given} zero points")
    scales = tuple(raw.Scale(i) for i in range(count))
    if not all(math.isfinite(s) and s > 0 for s in scales):
        raise DeployError(f"tensor {name!r} has a scale that is no positive finite number")
    zero_points = tuple(raw.ZeroPoint(i) for i in range(given))
    low, high = dtype.limits
    if not all(low <= z <= high for z in zero_points):
        raise DeployError(f"tensor {name!r} has a zero point outside {dtype.value}")
    return Quantization(scales, zero_points if given == count else (zero_points or (0,)) * count, axis)
