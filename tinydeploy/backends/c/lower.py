"""The table from op to C: one entry an op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinydeploy.backends.c import (
    lower_dsp,
    lower_forms,
    lower_forms_dsp,
    lower_forms_trio,
    lower_forms_wide,
    lower_linear,
    lower_other,
    lower_sign,
    lower_sign_products,
    lower_trio,
)
from tinydeploy.backends.c.layer import Context, LayerCode
from tinydeploy.errors import DeployError
from tinydeploy.ir.op import Op
from tinydeploy.ops import (
    Add,
    AveragePool2D,
    Concatenation,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Logistic,
    MaxPool2D,
    Mean,
    Mul,
    Pad,
    Quantize,
    Relu,
    Reshape,
    Sign,
    Softmax,
    Staircase,
)
from tinydeploy.plan import dsp, forms_dsp, forms_trio, forms_wide, trio
from tinydeploy.plan.forms import stored_form
from tinydeploy.plan.signs import SIGNS

# Any: each function takes its own op class, and the key guarantees that it gets one.
LOWER: dict[type[Op], Callable[[Any, Context], LayerCode]] = {
    Add: lower_other.add,
    AveragePool2D: lower_other.pool_2d,
    Concatenation: lower_other.concatenation,
    Conv2D: lower_linear.conv_2d,
    DepthwiseConv2D: lower_linear.depthwise_conv_2d,
    FullyConnected: lower_linear.fully_connected,
    Logistic: lower_other.logistic,
    MaxPool2D: lower_other.pool_2d,
    Mean: lower_other.mean,
    Mul: lower_other.mul,
    Pad: lower_other.pad,
    Quantize: lower_other.quantize,
    Relu: lower_other.relu,
    Reshape: lower_other.reshape,
    Sign: lower_sign.sign,
    Softmax: lower_other.softmax,
    Staircase: lower_other.staircase,
}


LOWER_FAST: dict[str, Callable[[Any, Context], LayerCode]] = {
    dsp.ADD: lower_dsp.add,
    dsp.CONVOLUTION: lower_dsp.conv_2d,
    dsp.DEPTHWISE: lower_dsp.depthwise,
    dsp.DEPTHWISE_CARRIED: lower_dsp.depthwise,
    dsp.DEPTHWISE_TAPS: lower_dsp.depthwise_taps,
    dsp.DEPTHWISE_TAPS_BY_PIXEL: lower_dsp.depthwise_taps,
    dsp.FEW_ROWS: lower_dsp.few_rows,
    dsp.POOL: lower_dsp.pool,
    dsp.ROWS: lower_dsp.rows,
    dsp.WINOGRAD: lower_dsp.winograd_conv_2d,
    forms_dsp.CONVOLUTION: lower_forms_dsp.conv_2d,
    forms_dsp.DEPTHWISE: lower_forms_dsp.depthwise,
    forms_dsp.DEPTHWISE_TAPS: lower_forms_dsp.depthwise_taps,
    forms_dsp.FEW_ROWS: lower_forms_dsp.few_rows,
    forms_dsp.ROWS: lower_forms_dsp.rows,
    trio.CONVOLUTION: lower_trio.conv_2d,
    trio.DEPTHWISE: lower_trio.depthwise,
    trio.ROWS: lower_trio.rows,
    forms_trio.CONVOLUTION: lower_forms_trio.conv_2d,
    forms_trio.DEPTHWISE: lower_forms_trio.depthwise,
    forms_trio.ROWS: lower_forms_trio.rows,
    forms_wide.WIDE: lower_forms_wide.conv_2d,
    SIGNS: lower_sign_products.conv_2d,
}
"""The kernels that are not for every core, by the name of the choice."""


def lower(at: Context) -> LayerCode:
    """The C of one node; raises DeployError for an op that has none."""
    function = LOWER_FAST.get(at.choice.name)
    if function is None and stored_form(at.node.op, at.site) is not None:
        function = lower_forms.formed
    function = function or LOWER.get(type(at.node.op))
    if function is None:
        raise DeployError(
            f"{at.node.op.kind} has no integer kernel",
            where=at.node.name,
            hint="only its use at the border of a model is supported",
        )
    return function(at.node.op, at)
