"""FULLY_CONNECTED with per-tensor or per-channel weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinydeploy.ir.channels import ChannelCoupler, ChannelIds, Kept, required
from tinydeploy.ir.op import Op, Shape, Site
from tinydeploy.ir.types import Array
from tinydeploy.ops.linear import LinearParameters, check_linear, linear_parameters
from tinydeploy.ops.requantize import Activation, check_activations, require


@dataclass(frozen=True)
class FullyConnected(Op):
    """y = x W^T + b with weights [outputs, inputs]; leading axes of x are rows.

    Attributes:
        keep_dims: keep the input's leading axes; otherwise the output is [rows, outputs].

    Integer rule: tensorflow/lite/kernels/internal/reference/integer_ops/fully_connected.h.
    """

    activation: Activation = Activation.NONE
    keep_dims: bool = False

    kind = "FULLY_CONNECTED"
    arity = (2, 3)

    def output_shape(self, site: Site) -> Shape:
        x, weights = site.input(0), site.input(1)
        require(len(weights.shape) == 2, f"the weights have shape {weights.shape}, not [outputs, inputs]")
        outputs, inputs = weights.shape
        require(
            inputs > 0 and x.elements % inputs == 0,
            f"{x.elements} input elements do not divide into rows of {inputs}",
        )
        if self.keep_dims:
            require(
                len(x.shape) > 0 and x.shape[-1] == inputs,
                f"the input's last axis is {x.shape[-1:]}, not {inputs}",
            )
            return (*x.shape[:-1], outputs)
        return (x.elements // inputs, outputs)

    def check(self, site: Site) -> None:
        def integer(at: Site) -> None:
            check_linear(at, output_axis=0)
            self.parameters(at)

        check_activations(site, integer)

    def parameters(self, site: Site) -> LinearParameters:
        return linear_parameters(site, self.activation, output_axis=0)

    def couple(self, site: Site, ids: Sequence[ChannelIds | None], coupler: ChannelCoupler) -> ChannelIds:
        return coupler.fresh(site.output.shape[-1])

    def narrow(self, site: Site, kept: Sequence[Kept | None], output: Kept) -> tuple[Op, dict[int, Array]]:
        weights, bias = site.input(1).array, site.optional(2)
        channels = site.input(0).shape[-1]
        # The input may be an image that the layer flattens: its channels then repeat along a row.
        columns = np.concatenate([required(kept) + i for i in range(0, weights.shape[1], channels)])
        narrowed = weights[output][:, columns]
        return self, {1: narrowed} if bias is None else {1: narrowed, 2: bias.array[output]}

    def macs(self, site: Site) -> int:
        return site.output.elements * site.input(1).shape[1]

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        p = self.parameters(site)
        weights = site.input(1).array
        assert arrays[0] is not None
        # Exact in float64 for the same reason as in Conv2D.
        x = arrays[0].reshape(-1, weights.shape[1]).astype(np.float64)
        acc = (x @ weights.T.astype(np.float64)).astype(np.int64) + p.folded_bias
        return p.requantization.apply(acc, site.output.dtype).reshape(-1, *site.output.shape)

    def run_float(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        weights, bias = site.input(1).array, site.optional(2)
        assert arrays[0] is not None
        y = arrays[0].reshape(-1, weights.shape[1]) @ weights.T
        y = y if bias is None else y + bias.array
        return self.activation.apply(y).astype(np.float32).reshape(-1, *site.output.shape)
