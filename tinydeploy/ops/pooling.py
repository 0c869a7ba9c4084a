"""AVERAGE_POOL_2D and MAX_POOL_2D; padding never counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinydeploy.ir.op import Op, Shape, Site
from tinydeploy.ir.types import Array
from tinydeploy.ops.requantize import (
    Activation,
    check_activations,
    clamp_range,
    require,
    require_activation,
    require_same_quantization,
)
from tinydeploy.ops.window import NO_PADDING, Padding, Window, pad_image, tap


@dataclass(frozen=True)
class _Pool(Op):
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: Padding = NO_PADDING
    activation: Activation = Activation.NONE

    @property
    def window(self) -> Window:
        return Window(self.kernel, self.strides, (1, 1), self.padding)

    def output_shape(self, site: Site) -> Shape:
        shape = site.input(0).shape
        require(len(shape) == 4, f"the input has shape {shape}, not NHWC")
        p, (kh, kw) = self.padding, self.kernel
        require(
            max(p.top, p.bottom) < kh and max(p.left, p.right) < kw,
            "the padding is as wide as the kernel, so some outputs see no input",
        )
        return (shape[0], *self.window.output_size(shape[1], shape[2]), shape[3])

    def check(self, site: Site) -> None:
        def integer(at: Site) -> None:
            require_activation(at.input(0))
            require_activation(at.output)
            require_same_quantization(at.input(0), at.output)
            clamp_range(self.activation, at.output)

        check_activations(site, integer)

    def _taps(self, site: Site, x: Array) -> list[Array]:
        size = site.output.shape[1:3]
        kh, kw = self.kernel
        return [tap(x, self.window, ky, kx, size) for ky in range(kh) for kx in range(kw)]

    def _finish(self, site: Site, y: Array) -> Array:
        if not site.output.dtype.is_float:
            y = np.clip(y, *clamp_range(self.activation, site.output))
        else:
            y = self.activation.apply(y)
        return y.astype(site.output.dtype.numpy).reshape(-1, *site.output.shape)


def _images(x: Array | None) -> Array:
    assert x is not None
    return x.reshape(-1, *x.shape[-3:])


@dataclass(frozen=True)
class AveragePool2D(_Pool):
    """Mean over the window, rounded half away from zero.

    Integer rule: `AveragePool` in tensorflow/lite/kernels/internal/reference/integer_ops/pooling.h.
    """

    kind = "AVERAGE_POOL_2D"

    def _sum_and_count(self, site: Site, x: Array) -> tuple[Array, Array]:
        images = _images(x)
        total = sum(self._taps(site, pad_image(images, self.padding, 0)))
        ones = pad_image(np.ones((1, *images.shape[1:3], 1), images.dtype), self.padding, 0)
        count = sum(self._taps(site, ones))
        return np.asarray(total), np.asarray(count)

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        assert arrays[0] is not None
        total, count = self._sum_and_count(site, arrays[0].astype(np.int64))
        half = count // 2
        mean = np.where(total > 0, (total + half) // count, -((half - total) // count))
        return self._finish(site, mean)

    def run_float(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        assert arrays[0] is not None
        total, count = self._sum_and_count(site, arrays[0])
        return self._finish(site, total / count)


@dataclass(frozen=True)
class MaxPool2D(_Pool):
    """Maximum over the window.

    Integer rule: `MaxPool` in tensorflow/lite/kernels/internal/reference/integer_ops/pooling.h.
    """

    kind = "MAX_POOL_2D"

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        x = pad_image(_images(arrays[0]), self.padding, site.input(0).dtype.limits[0])
        return self._finish(site, np.maximum.reduce(self._taps(site, x)))

    def run_float(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        x = pad_image(_images(arrays[0]), self.padding, -np.inf)
        return self._finish(site, np.maximum.reduce(self._taps(site, x)))
