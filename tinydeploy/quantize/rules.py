"""What post-training quantization has to know of each op: one line a class.

A new op adds one entry to RULES; an op without one is refused by name.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

from tinydeploy import ops
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.op import Op, Site
from tinydeploy.ir.types import Quantization
from tinydeploy.ops import Activation
from tinydeploy.ops.elementwise import ADD_LEFT_SHIFT
from tinydeploy.ops.requantize import INT8_REACH, quantize_real
from tinydeploy.quantize.scales import Range, least_output_scale

Ends = tuple[float | None, float | None]
"""Lower and upper end of a clamp in real units; None where it is open."""

PROBABILITY = Quantization((1.0 / 256,), (-128,))
"""Of SOFTMAX and LOGISTIC outputs, whose integer rules are made for it."""


class Tie(enum.Enum):
    """How the quantization of an op's output hangs together with that of its inputs."""

    FREE = "free"
    """Not at all."""
    COPY = "copy"
    """The integers are copied: the first input and the output are quantized alike, always."""
    CLAMP = "clamp"
    """Alike where that costs nothing, or where runtimes know no other form."""
    JOIN = "join"
    """All inputs and the output alike, where no fixed quantization is in the way."""


def _none(site: Site) -> float:
    del site
    return 0.0


def _same_op(op: Op, site: Site) -> Op:
    del site
    return op


@dataclass(frozen=True)
class Rule:
    """One op's part in the quantization.

    Attributes:
        tie: which quantizations are shared.
        output: that of the output where the op fixes it, else None.
        weights_axis: for ops with weights at input 1 and a bias at input 2, the axis of output channels.
        least_output: the least output scale that the op's integer rule admits, for a site whose inputs
            have their quantization (weights are the rule of `ptq` itself).
        least_input, greatest_input: the scales of its first input that the rule admits.
        saturates: the ends beyond which the first input changes nothing in the output.
        commutes: whether a clamp may stand in front of the op instead of behind it.
        span: what the output's integers have to hold, whatever was seen; None where that counts.
        lower: the op with its attributes in elements of integer values, which are without data.
    """

    tie: Tie = Tie.FREE
    output: Callable[[Op], Quantization | None] = lambda op: None
    weights_axis: int | None = None
    least_output: Callable[[Site], float] = _none
    least_input: Callable[[Op], float] = lambda op: 0.0
    greatest_input: float = math.inf
    saturates: Callable[[Op], Ends] | None = None
    commutes: bool = False
    span: Callable[[Op], Range | None] = lambda op: None
    lower: Callable[[Op, Site], Op] = _same_op


def fused(op: Op) -> Activation:
    """The activation that is part of the op, where it has one."""
    return cast(Activation, getattr(op, "activation", Activation.NONE))


def least_for_clamp(op: Op) -> float:
    """The output scale at which the ends of a fused activation are still integers of 30 bits."""
    return max(abs(end) for end in (*fused(op).range, 0.0) if end is not None) / 2.0**29


def _rescaled(site: Site) -> float:
    """Any input may be requantized to the output."""
    steps = max(site.input(i).quant.scale for i in range(len(site.inputs)))
    return least_output_scale(steps, INT8_REACH)


def _added(site: Site) -> float:
    """The output multiplier stays below one, as the rule of ADD demands."""
    largest = max(site.input(0).quant.scale, site.input(1).quant.scale)
    return 2.0 * largest / 2.0 ** (ADD_LEFT_SHIFT - 1)


def _multiplied(site: Site) -> float:
    return least_output_scale(site.input(0).quant.scale * site.input(1).quant.scale, INT8_REACH**2)


def _averaged(site: Site) -> float:
    """MEAN divides its multiplier by at least half of the number of elements, so one bit is spare."""
    return 2.0 * least_output_scale(site.input(0).quant.scale, INT8_REACH)


def _fill(op: Op, site: Site) -> Op:
    pad, output = cast(ops.Pad, op), site.output
    if pad.value is None:
        return pad
    # A fill just beyond the range saturates by the rounding of the zero point; others were in no range.
    q = quantize_real(pad.value, output.quant)
    low, high = output.limits
    if not low - 1 <= q <= high + 1:
        raise DeployError(
            f"the fill {pad.value} lies outside of what scale {output.quant.scale:.6g} and zero point"
            f" {output.quant.zero_point} can hold",
            hint="the padded tensor has a fixed quantization; pad in front of the op that fixes it",
        )
    return replace(pad, value=min(max(q, low), high))


RULES: Mapping[type[Op], Rule] = {
    ops.Add: Rule(least_output=_added),
    ops.AveragePool2D: Rule(Tie.COPY),
    ops.Concatenation: Rule(Tie.JOIN, least_output=_rescaled),
    ops.Conv2D: Rule(weights_axis=0),
    ops.DepthwiseConv2D: Rule(weights_axis=3),
    ops.FullyConnected: Rule(weights_axis=0),
    # The input multiplier is at least 1/2 and below 2**30, in 27 fractional bits; the output is within half a
    # step of its ends from an input of -6.3 and of 5.2 on.
    ops.Logistic: Rule(
        output=lambda op: PROBABILITY,
        least_input=lambda op: 2.0**-28,
        greatest_input=2.0**2,
        saturates=lambda op: (-8.0, 8.0),
    ),
    ops.MaxPool2D: Rule(Tie.COPY, commutes=True),
    ops.Mean: Rule(least_output=_averaged),
    ops.Mul: Rule(least_output=_multiplied),
    ops.Pad: Rule(Tie.COPY, lower=_fill),
    ops.Relu: Rule(Tie.CLAMP, least_output=_rescaled, saturates=lambda op: fused(op).range),
    ops.Reshape: Rule(Tie.COPY, commutes=True),
    ops.Sign: Rule(output=lambda op: cast(ops.Sign, op).quantization, lower=lambda op, site: ops.Sign()),
    # beta times the input scale is above 1, in 26 fractional bits.
    ops.Softmax: Rule(
        output=lambda op: PROBABILITY,
        least_input=lambda op: 2.0**-25 / max(cast(ops.Softmax, op).beta, 2.0**-25),
    ),
    ops.Staircase: Rule(
        span=lambda op: Range.of(min(cast(ops.Staircase, op).levels), max(cast(ops.Staircase, op).levels)),
        lower=lambda op, site: cast(ops.Staircase, op).lowered(site),
    ),
}


def rule_of(graph: Graph, node: Node) -> Rule:
    """Raises DeployError for an op that post-training quantization does not know."""
    rule = RULES.get(type(node.op))
    if rule is None:
        raise DeployError(
            "has no rule for post-training quantization",
            where=f"{graph.source or graph.name}: {node.op.kind} {node.name!r}",
            hint="QUANTIZE and DEQUANTIZE belong to models that are integer already"
            if isinstance(node.op, ops.Quantize | ops.Dequantize)
            else "replace the layer, or keep the model float",
        )
    return rule


def activation_inputs(node: Node, rule: Rule) -> tuple[str, ...]:
    """The inputs that flow, constants in their place included; weights and bias are left out."""
    names = node.inputs if rule.weights_axis is None else node.inputs[:1]
    return tuple(n for n in names if n is not None)
