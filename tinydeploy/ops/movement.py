"""Ops that move elements: RESHAPE (with SQUEEZE and EXPAND_DIMS), PAD, CONCATENATION."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinydeploy.ir.channels import ChannelCoupler, ChannelIds, Kept, required
from tinydeploy.ir.op import Op, Shape, Site
from tinydeploy.ir.types import Array, DType
from tinydeploy.ops.requantize import (
    Requantization,
    check_activations,
    require,
    require_activation,
    require_same_quantization,
    rescale,
    same_quantization,
)


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in another shape; costs nothing in the generated C."""

    shape: Shape = ()

    kind = "RESHAPE"
    in_place = True

    def output_shape(self, site: Site) -> Shape:
        require(
            site.input(0).elements == math.prod(self.shape),
            f"{site.input(0).shape} cannot be reshaped to {self.shape}",
        )
        return self.shape

    def check(self, site: Site) -> None:
        def integer(at: Site) -> None:
            require_activation(at.input(0), DType.INT8, DType.UINT8)
            require_activation(at.output, at.input(0).dtype)
            require_same_quantization(at.input(0), at.output)

        check_activations(site, integer)

    def couple(self, site: Site, ids: Sequence[ChannelIds | None], coupler: ChannelCoupler) -> ChannelIds:
        """Flattening repeats the channels pixel by pixel; a reshape that mixes them freezes them."""
        before = np.broadcast_to(required(ids), site.input(0).shape).reshape(self.shape)
        if not self.shape:
            coupler.freeze(required(ids))
            return coupler.frozen(1)
        rows = before.reshape(-1, self.shape[-1])
        if (rows == rows[0]).all():
            first: ChannelIds = rows[0].copy()
            return first
        coupler.freeze(required(ids))
        return coupler.frozen(self.shape[-1])

    def narrow(self, site: Site, kept: Sequence[Kept | None], output: Kept) -> tuple[Op, dict[int, Array]]:
        return Reshape((*self.shape[:-1], len(output)) if self.shape else ()), {}

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        assert arrays[0] is not None
        return arrays[0].reshape(-1, *self.shape)

    run_float = run_integer


@dataclass(frozen=True)
class Pad(Op):
    """Constant padding.

    Attributes:
        paddings: (before, after) for each axis.
        value: the fill in the tensor's own units: quantized (int8), or real for float. None stands
            for the real zero, which is the output's zero point.

    Integer rule: tensorflow/lite/kernels/internal/reference/pad.h.
    """

    paddings: tuple[tuple[int, int], ...] = ()
    value: float | None = None

    kind = "PAD"

    def output_shape(self, site: Site) -> Shape:
        shape = site.input(0).shape
        require(
            len(self.paddings) == len(shape) and all(min(p) >= 0 for p in self.paddings),
            f"the paddings {self.paddings} do not fit an input of shape {shape}",
        )
        return tuple(n + before + after for n, (before, after) in zip(shape, self.paddings, strict=True))

    def check(self, site: Site) -> None:
        def integer(at: Site) -> None:
            require_activation(at.input(0))
            require_activation(at.output)
            require_same_quantization(at.input(0), at.output)
            require(-128 <= self.fill(at) <= 127, f"the fill {self.value} is no int8")

        check_activations(site, integer)

    def couple(self, site: Site, ids: Sequence[ChannelIds | None], coupler: ChannelCoupler) -> ChannelIds:
        """Channels pass; new ones at their ends stay."""
        before, after = self.paddings[-1]
        return np.concatenate([coupler.frozen(before), required(ids), coupler.frozen(after)])

    def fill(self, site: Site) -> int:
        """The fill as a quantized integer."""
        return site.output.quant.zero_point if self.value is None else int(self.value)

    def _pad(self, x: Array | None, fill: float) -> Array:
        assert x is not None
        return np.pad(x, [(0, 0), *self.paddings], constant_values=fill)

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        return self._pad(arrays[0], self.fill(site))

    def run_float(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        return self._pad(arrays[0], 0.0 if self.value is None else self.value)


@dataclass(frozen=True)
class Concatenation(Op):
    """Tensors one behind the other along an axis.

    Integer rule: inputs with the output's scale and zero point are copied, as in
    tensorflow/lite/kernels/internal/reference/concatenation.h; others, which TensorFlow Lite Micro
    refuses, are requantized by the one rule.
    """

    axis: int = 0

    kind = "CONCATENATION"
    arity = (1, 64)

    def output_shape(self, site: Site) -> Shape:
        shapes = [site.input(i).shape for i in range(len(site.inputs))]
        first = shapes[0]
        require(0 <= self.axis < len(first), f"axis {self.axis} of a tensor of shape {first}")
        rest = {s[: self.axis] + s[self.axis + 1 :] for s in shapes}
        require(
            len(rest) == 1 and len({len(s) for s in shapes}) == 1,
            f"the shapes {shapes} differ outside axis {self.axis}",
        )
        return (*first[: self.axis], sum(s[self.axis] for s in shapes), *first[self.axis + 1 :])

    def check(self, site: Site) -> None:
        def integer(at: Site) -> None:
            require_activation(at.output)
            for i in range(len(at.inputs)):
                require_activation(at.input(i))
                self.requantization(at, i)

        check_activations(site, integer)

    def couple(self, site: Site, ids: Sequence[ChannelIds | None], coupler: ChannelCoupler) -> ChannelIds:
        """One behind the other along the channel axis; along another axis the inputs share channels."""
        last = len(site.output.shape) - 1
        numbers = [coupler.frozen(site.input(i).shape[-1]) if n is None else n for i, n in enumerate(ids)]
        if self.axis == last:
            return np.concatenate(numbers)
        for other in numbers[1:]:
            coupler.tie(numbers[0], other)
        return numbers[0]

    def requantization(self, site: Site, index: int) -> Requantization | None:
        """How input `index` becomes the output's scale; None where it is copied."""
        x, y = site.input(index), site.output
        return None if same_quantization(x, y) else rescale(x, y)

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        parts = []
        for i, x in enumerate(arrays):
            assert x is not None
            r = self.requantization(site, i)
            zero_point = site.input(i).quant.zero_point
            parts.append(x if r is None else r.apply(x.astype(np.int64) - zero_point, site.output.dtype))
        return self.run_float(site, parts)

    def run_float(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        parts = [x for x in arrays if x is not None]
        samples = max(x.shape[0] for x in parts)
        return np.concatenate(
            [np.broadcast_to(x, (samples, *x.shape[1:])) for x in parts], axis=self.axis + 1
        )
