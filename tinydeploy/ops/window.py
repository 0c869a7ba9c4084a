"""Sliding windows over NHWC images: padding, output sizes and patches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.errors import DeployError
from tinydeploy.ir.types import Array


@dataclass(frozen=True)
class Padding:
    """Rows and columns around an image, explicit; `same` computes TensorFlow's SAME."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    @property
    def none(self) -> bool:
        return self == NO_PADDING


NO_PADDING = Padding()


@dataclass(frozen=True)
class Window:
    """Kernel, stride, dilation and padding of a convolution or pooling; (height, width) each."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    padding: Padding = NO_PADDING

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and columns that one application spans."""
        (kh, kw), (dh, dw) = self.kernel, self.dilations
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Output rows and columns; raises DeployError for windows that make no sense."""
        if min(*self.kernel, *self.strides, *self.dilations) < 1:
            raise DeployError("kernel, stride and dilation must be at least 1")
        p = self.padding
        eh, ew = self.extent
        if min(p.top, p.bottom, p.left, p.right) < 0 or max(p.top, p.bottom, p.left, p.right) > 1 << 16:
            raise DeployError(f"the padding {p} is out of range")
        rows = (height + p.top + p.bottom - eh) // self.strides[0] + 1
        columns = (width + p.left + p.right - ew) // self.strides[1] + 1
        if rows < 1 or columns < 1:
            raise DeployError(f"a window of {eh}x{ew} does not fit the padded input of {height}x{width}")
        return rows, columns


def same_padding(
    size: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int]
) -> Padding:
    """TensorFlow's SAME: ceil(size / stride) outputs, the odd row or column at the end.

    Source: `ComputePaddingWithOffset` in tensorflow/lite/kernels/padding.h.
    """
    before, after = [], []
    for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        outputs = -(-n // s)
        total = max((outputs - 1) * s + (k - 1) * d + 1 - n, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return Padding(before[0], after[0], before[1], after[1])


def pad_image(x: Array, padding: Padding, fill: float) -> Array:
    """Pads axes -3 and -2 of (..., H, W, C) with `fill`."""
    if padding.none:
        return x
    p, (height, width) = padding, x.shape[-3:-1]
    shape = (*x.shape[:-3], p.top + height + p.bottom, p.left + width + p.right, x.shape[-1])
    # Several times faster than numpy.pad, which takes any number of axes.
    padded = np.full(shape, fill, x.dtype)
    padded[..., p.top : p.top + height, p.left : p.left + width, :] = x
    return padded


def tap(x: Array, window: Window, ky: int, kx: int, size: tuple[int, ...]) -> Array:
    """What kernel position (ky, kx) sees in padded images (N, H, W, C): (N, rows, columns, C), a view."""
    (sh, sw), (dh, dw) = window.strides, window.dilations
    rows, columns = size
    y, left = ky * dh, kx * dw
    return x[:, y : y + (rows - 1) * sh + 1 : sh, left : left + (columns - 1) * sw + 1 : sw, :]


def patches(x: Array, window: Window, size: tuple[int, ...]) -> Array:
    """im2col of padded images (N, H, W, C): (N, rows, columns, kh, kw, C), a view."""
    n, _, _, c = x.shape
    s0, s1, s2, s3 = x.strides
    (sh, sw), (dh, dw), (kh, kw) = window.strides, window.dilations, window.kernel
    return np.lib.stride_tricks.as_strided(
        x,
        (n, *size, kh, kw, c),
        (s0, s1 * sh, s2 * sw, s1 * dh, s2 * dw, s3),
        writeable=False,
    )
