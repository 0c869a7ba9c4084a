"""Element types, quantization parameters and values: what flows along the edges of a graph."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydeploy.ir.forms import Codebook, Form, Packed, Planes, Signs

Array = npt.NDArray[Any]


class DType(enum.Enum):
    """Element type of a value."""

    FLOAT32 = "float32"
    INT8 = "int8"
    UINT8 = "uint8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"

    @property
    def numpy(self) -> np.dtype[np.generic]:
        return np.dtype(self.value)

    @property
    def bytes(self) -> int:
        return self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        return self is DType.FLOAT32

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value of an integer type."""
        info = np.iinfo(self.value)
        return int(info.min), int(info.max)


@dataclass(frozen=True)
class Quantization:
    """Affine quantization `real = scale * (q - zero_point)`.

    Attributes:
        scales: positive float32 values as Python floats; one, or one per index along `axis`.
        zero_points: as many integers.
        axis: the quantized dimension where there are several scales, else None.
    """

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int | None = None

    @property
    def per_channel(self) -> bool:
        return self.axis is not None

    @property
    def scale(self) -> float:
        """The one scale of a per-tensor quantization."""
        if len(self.scales) != 1:
            raise ValueError("a per-channel quantization has no single scale")
        return self.scales[0]

    @property
    def zero_point(self) -> int:
        """The one zero point of a per-tensor quantization."""
        if len(self.zero_points) != 1:
            raise ValueError("a per-channel quantization has no single zero point")
        return self.zero_points[0]


@dataclass(frozen=True)
class Value:
    """One tensor of a graph: an activation, or a constant where `data` is present.

    Attributes:
        name: unique in its graph.
        shape: NHWC for images, OHWI for convolution weights, [1, H, W, C] for depthwise weights,
            [outputs, inputs] for fully connected weights; () is a scalar.
        quantization: None for float and for index tensors.
        data: read-only array of exactly `shape` and `dtype`, or None.
        form: how it is stored where that is not one whole `dtype` an element, or None.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    quantization: Quantization | None = None
    data: Array | None = field(default=None, repr=False, compare=False)
    form: Form | None = field(default=None, repr=False)

    @property
    def is_constant(self) -> bool:
        return self.data is not None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Of a constant as it is stored, of an activation in the arena."""
        if self.is_constant and isinstance(self.form, Packed | Codebook | Planes):
            return self.form.stored_bytes(self.shape)
        return self.elements * self.dtype.bytes

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest element that its type and form can hold."""
        return self.form.limits if isinstance(self.form, Packed | Signs) else self.dtype.limits

    @property
    def padding(self) -> int:
        """The element around it for a convolution: the real number 0, or -1 where there are only signs."""
        return -1 if isinstance(self.form, Signs) else self.quant.zero_point

    @property
    def array(self) -> Array:
        """The constant's data; raises ValueError for an activation."""
        if self.data is None:
            raise ValueError(f"{self.name} is not a constant")
        return self.data

    @property
    def quant(self) -> Quantization:
        """The quantization; raises ValueError where there is none."""
        if self.quantization is None:
            raise ValueError(f"{self.name} has no quantization")
        return self.quantization


def constant(
    name: str, data: Array, quantization: Quantization | None = None, form: Form | None = None
) -> Value:
    """A constant value that holds a read-only copy of `data`."""
    copy = np.array(data, order="C")
    copy.setflags(write=False)
    return Value(name, DType(copy.dtype.name), tuple(copy.shape), quantization, copy, form)
