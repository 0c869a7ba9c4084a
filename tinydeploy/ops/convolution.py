"""CONV_2D and DEPTHWISE_CONV_2D, NHWC, any kernel, stride, dilation and padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinydeploy.ir.channels import ChannelCoupler, ChannelIds, Kept, required
from tinydeploy.ir.op import Op, Shape, Site
from tinydeploy.ir.types import Array
from tinydeploy.ops.linear import LinearParameters, check_linear, linear_parameters
from tinydeploy.ops.requantize import Activation, check_activations, require
from tinydeploy.ops.window import NO_PADDING, Padding, Window, pad_image, patches, tap

# Patches are copied for as many images at a time as stay in the processor's second cache.
_BLOCK_ELEMENTS = 1 << 17


@dataclass(frozen=True)
class _Convolution(Op):
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    padding: Padding = NO_PADDING
    activation: Activation = Activation.NONE

    arity = (2, 3)

    def window(self, site: Site) -> Window:
        """Both weight layouts have the kernel at axes 1 and 2."""
        _, kh, kw, _ = site.input(1).shape
        return Window((kh, kw), self.strides, self.dilations, self.padding)

    def _check_ranks(self, site: Site) -> None:
        require(len(site.input(0).shape) == 4, f"the input has shape {site.input(0).shape}, not NHWC")
        require(len(site.input(1).shape) == 4, f"the weights have shape {site.input(1).shape}, not 4 axes")


@dataclass(frozen=True)
class Conv2D(_Convolution):
    """Convolution with weights OHWI; fewer weight channels than input channels make groups.

    Integer rule: tensorflow/lite/kernels/internal/reference/integer_ops/conv.h, ConvPerChannel.
    """

    kind = "CONV_2D"

    def groups(self, site: Site) -> int:
        return site.input(0).shape[3] // site.input(1).shape[3]

    def output_shape(self, site: Site) -> Shape:
        self._check_ranks(site)
        n, h, w, c = site.input(0).shape
        outputs, _, _, weight_channels = site.input(1).shape
        require(
            weight_channels > 0 and c % weight_channels == 0,
            f"{c} input channels do not divide into groups of {weight_channels}",
        )
        require(
            outputs % (c // weight_channels) == 0,
            f"{outputs} outputs in {c // weight_channels} groups",
        )
        return (n, *self.window(site).output_size(h, w), outputs)

    def check(self, site: Site) -> None:
        def integer(at: Site) -> None:
            check_linear(at, output_axis=0)
            self.parameters(at)

        check_activations(site, integer)

    def parameters(self, site: Site) -> LinearParameters:
        return linear_parameters(site, self.activation, output_axis=0)

    def couple(self, site: Site, ids: Sequence[ChannelIds | None], coupler: ChannelCoupler) -> ChannelIds:
        """New channels; in a grouped convolution every group must keep as many as the others."""
        output = coupler.fresh(site.output.shape[3])
        groups = self.groups(site)
        for numbers in (required(ids), output) if groups > 1 else ():
            first, *others = np.split(numbers, groups)
            for other in others:
                coupler.tie(first, other)
        return output

    def narrow(self, site: Site, kept: Sequence[Kept | None], output: Kept) -> tuple[Op, dict[int, Array]]:
        weights = site.input(1).array
        inside = required(kept)
        # The groups keep the same positions, so those of the first group hold for all.
        narrowed = weights[output][..., inside[inside < weights.shape[3]]]
        return self, {1: narrowed, **_narrowed_bias(site, output)}

    def macs(self, site: Site) -> int:
        _, kh, kw, channels = site.input(1).shape
        return site.output.elements * kh * kw * channels

    def _accumulate(self, site: Site, x: Array, weights: Array) -> Array:
        """Products of padded images (N, H, W, C): (N, rows, columns, outputs) in the dtype of `x`."""
        size = site.output.shape[1:3]
        groups, outputs, depth = self.groups(site), weights.shape[0], weights[0].size
        columns = patches(x, self.window(site), size)
        channels, each = x.shape[3] // groups, outputs // groups
        kernels = [k.reshape(each, depth).T.astype(x.dtype) for k in np.split(weights, groups)]
        products = np.empty((x.shape[0], *size, outputs), x.dtype)
        step = max(1, _BLOCK_ELEMENTS // (products[0].size // outputs * depth))
        for start in range(0, x.shape[0], step):
            block = columns[start : start + step]
            result = products[start : start + step].reshape(-1, outputs)
            for g, kernel in enumerate(kernels):
                rows = block[..., g * channels : (g + 1) * channels].reshape(-1, depth)
                np.matmul(rows, kernel, out=result[:, g * each : (g + 1) * each])
        return products

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        p = self.parameters(site)
        x = _images(arrays[0])
        # Every partial sum is an integer below 2**53, so a float64 product is exact, and BLAS is fast.
        padded = pad_image(x, self.padding, site.input(0).padding).astype(np.float64)
        acc = self._accumulate(site, padded, site.input(1).array).astype(np.int64) + p.folded_bias
        return _samples(p.requantization.apply(acc, site.output.dtype), site)

    def run_float(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        x = pad_image(_images(arrays[0]), self.padding, 0.0)
        return _float_result(self, site, self._accumulate(site, x, site.input(1).array))


@dataclass(frozen=True)
class DepthwiseConv2D(_Convolution):
    """Depthwise convolution with weights [1, H, W, outputs]; output o reads input o // multiplier.

    Integer rule: tensorflow/lite/kernels/internal/reference/integer_ops/depthwise_conv.h,
    DepthwiseConvPerChannel.
    """

    kind = "DEPTHWISE_CONV_2D"

    def multiplier(self, site: Site) -> int:
        return site.input(1).shape[3] // site.input(0).shape[3]

    def output_shape(self, site: Site) -> Shape:
        self._check_ranks(site)
        n, h, w, c = site.input(0).shape
        one, _, _, outputs = site.input(1).shape
        require(one == 1, f"depthwise weights have shape {site.input(1).shape}, not [1, H, W, outputs]")
        require(c > 0 and outputs % c == 0, f"{outputs} outputs are no multiple of {c} input channels")
        return (n, *self.window(site).output_size(h, w), outputs)

    def check(self, site: Site) -> None:
        def integer(at: Site) -> None:
            check_linear(at, output_axis=3)
            self.parameters(at)

        check_activations(site, integer)

    def parameters(self, site: Site) -> LinearParameters:
        return linear_parameters(site, self.activation, output_axis=3)

    def couple(self, site: Site, ids: Sequence[ChannelIds | None], coupler: ChannelCoupler) -> ChannelIds:
        """Each output is its input's channel, several times with a multiplier."""
        return np.repeat(required(ids), self.multiplier(site))

    def narrow(self, site: Site, kept: Sequence[Kept | None], output: Kept) -> tuple[Op, dict[int, Array]]:
        return self, {1: site.input(1).array[..., output], **_narrowed_bias(site, output)}

    def macs(self, site: Site) -> int:
        _, kh, kw, _ = site.input(1).shape
        return site.output.elements * kh * kw

    def _accumulate(self, site: Site, x: Array, weights: Array) -> Array:
        size = site.output.shape[1:3]
        window = self.window(site)
        expanded = np.repeat(x, self.multiplier(site), axis=3)
        acc = np.zeros((x.shape[0], *size, expanded.shape[3]), dtype=x.dtype)
        for ky in range(window.kernel[0]):
            for kx in range(window.kernel[1]):
                acc += tap(expanded, window, ky, kx, size) * weights[0, ky, kx].astype(x.dtype)
        return acc

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        p = self.parameters(site)
        # int32 suffices: linear_parameters proved the bound for any order of addition.
        x = pad_image(_images(arrays[0]), self.padding, site.input(0).padding).astype(np.int32)
        acc = self._accumulate(site, x, site.input(1).array) + p.folded_bias
        return _samples(p.requantization.apply(acc, site.output.dtype), site)

    def run_float(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        x = pad_image(_images(arrays[0]), self.padding, 0.0)
        return _float_result(self, site, self._accumulate(site, x, site.input(1).array))


def _narrowed_bias(site: Site, output: Kept) -> dict[int, Array]:
    bias = site.optional(2)
    return {} if bias is None else {2: bias.array[output]}


def _images(x: Array | None) -> Array:
    assert x is not None
    return x.reshape(-1, *x.shape[-3:])


def _samples(y: Array, site: Site) -> Array:
    return y.reshape(-1, *site.output.shape)


def _float_result(op: _Convolution, site: Site, acc: Array) -> Array:
    """Bias and activation, in place."""
    bias = site.optional(2)
    if bias is not None:
        acc += bias.array
    low, high = op.activation.range
    if low is not None or high is not None:
        np.clip(acc, low, high, out=acc)
    return _samples(acc, site).astype(np.float32, copy=False)
