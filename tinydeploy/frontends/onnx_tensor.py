"""What an ONNX tensor is while its model is read: computed, constant, or the first half of an operator."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinydeploy.errors import DeployError
from tinydeploy.frontends.onnx_layout import Shape, View
from tinydeploy.ir.forms import Form, Packed
from tinydeploy.ir.op import Op
from tinydeploy.ir.types import Array, DType, Quantization, Value


@dataclass(eq=False)
class Draft:
    """A value of the graph to be; an activation that an op of a quantized model just gave has no scale yet.

    Attributes:
        unsigned: the uint8 graph input that this is the int8 form of.
        form: how it is stored.
        clip: real numbers to which it is clipped, from which its form follows once it has a scale.
    """

    name: str
    dtype: DType
    shape: Shape
    quantization: Quantization | None = None
    data: Array | None = None
    unsigned: Draft | None = None
    form: Form | None = None
    clip: tuple[float, float] | None = None

    def value(self) -> Value:
        return Value(self.name, self.dtype, self.shape, self.quantization, self.data, self.form)

    @property
    def pending(self) -> bool:
        """Whether its scale is still to come."""
        return not self.dtype.is_float and self.quantization is None

    @property
    def quant(self) -> Quantization:
        if self.quantization is None:
            raise DeployError(
                f"{self.name!r} is used before anything quantizes it",
                hint="put QuantizeLinear and DequantizeLinear behind every operator of a quantized model",
            )
        return self.quantization

    def quantize(self, quantization: Quantization) -> None:
        """Gives the scale; a uint8 input behind it gets the same with its own zero point.

        Raises:
            DeployError: it is clipped to other ends than those of integers of 2 to 7 bits.
        """
        self.quantization = quantization
        if self.clip is not None:
            self.form = packed_within(self.clip, quantization)
        if self.unsigned is not None:
            zero_points = tuple(z + 128 for z in quantization.zero_points)
            self.unsigned.quantization = replace(quantization, zero_points=zero_points)


def packed_within(clip: tuple[float, float], quantization: Quantization) -> Packed:
    """The bits of integers whose ends are these real numbers; raises DeployError where there are none."""
    with np.errstate(over="ignore"):
        ends = np.rint(np.array(clip) / quantization.scale) + quantization.zero_point
    for bits in range(2, 8):
        if tuple(ends) == Packed(bits).limits:
            return Packed(bits)
    raise DeployError(
        f"a clip to {list(clip)} at scale {quantization.scale:.6g} is not supported",
        hint="supported are [0, inf), [0, 6], [-1, 1], and the ends of integers of 2 to 7 bits",
    )


@dataclass(eq=False)
class Step:
    """A node of the graph to be.

    Attributes:
        norm_scale: the scale of the batch norm that it is, or that was folded into it, a number a channel.
    """

    name: str
    op: Op
    inputs: list[Draft]
    output: Draft
    norm_scale: Array | None = None


@dataclass(frozen=True)
class Flow:
    """An ONNX tensor that is computed: what holds it, and how.

    Attributes:
        real: it stands for real numbers; else for the integers themselves.
        fresh: it comes straight from an op, so that an activation may still be fused.
        unsigned: an integer tensor that ONNX sees as uint8; the graph holds it 128 lower.
        label: its name where it is only another view of what the draft holds.
    """

    draft: Draft
    view: View
    real: bool = True
    fresh: bool = False
    unsigned: bool = False
    label: str = ""


@dataclass(frozen=True)
class Known:
    """A constant ONNX tensor.

    Attributes:
        name: of the initialiser that it came from, or its own.
        quantization: of integers that stand for real numbers; the axis is ONNX's.
        form: how it is stored; planes have the order of axes of `data`.
    """

    name: str
    data: Array
    quantization: Quantization | None = None
    form: Form | None = None

    @property
    def real(self) -> Array:
        """The real numbers, as float32 where they were quantized."""
        if self.quantization is None:
            return self.data
        q = self.quantization
        shape = [1] * self.data.ndim
        if q.axis is not None:
            shape[q.axis] = -1
        scales = np.array(q.scales, np.float64).reshape(shape)
        zero_points = np.array(q.zero_points, np.int64).reshape(shape)
        real: Array = ((self.data.astype(np.int64) - zero_points) * scales).astype(np.float32)
        return real


@dataclass(frozen=True)
class Compared:
    """A computed tensor against a number: the first half of SIGN, or with `below` of a step of STAIRCASE.

    Attributes:
        below: whether it says that the tensor is less; else that it is not.
    """

    flow: Flow
    threshold: float
    below: bool = False


Tensor = Flow | Known | Compared
