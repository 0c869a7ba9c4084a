"""Quantization-aware training: the trainable form learns with int8 in sight, and lowers as PTQ does.

Training sees quantization simulated in float with straight-through gradients. Evaluation mode does not
simulate: it lowers the module with the function that post-training quantization uses and runs the integer
engine on the result, so what is evaluated is what is deployed, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.quantize.ptq import quantize_with_ranges
from tinydeploy.quantize.scales import Range
from tinydeploy.trainable import require_torch

if TYPE_CHECKING:
    from tinydeploy.trainable.module import Trainable


@dataclass(frozen=True)
class QatOptions:
    """How activation ranges follow the training.

    Attributes:
        ranges: `running` averages the least and the greatest number of each batch; `learned` makes the ends
            of each range parameters.
        momentum: the share of a batch in the running average.
    """

    ranges: Literal["running", "learned"] = "running"
    momentum: float = 0.01


def prepare_qat(trainable: Trainable, ranges: Mapping[str, Range], options: QatOptions | None = None) -> None:
    """Switches a module to quantization-aware training, in place.

    Args:
        ranges: where activation ranges start: one per graph input and node output, as `calibrate` gives them.

    Raises:
        DeployError: an op without a quantization rule, or options that make no sense.
        MissingExtraError: PyTorch is not installed.
    """
    require_torch("quantization-aware training")
    from tinydeploy.quantize.simulation import QuantizationSimulation  # noqa: PLC0415  # loads PyTorch

    options = options or QatOptions()
    if options.ranges not in ("running", "learned") or not 0.0 < options.momentum <= 1.0:
        raise DeployError(f"there is no such quantization-aware training: {options}")
    trainable.simulation = QuantizationSimulation(trainable.graph, ranges, options)


def quantized_graph(trainable: Trainable, *, float_borders: bool = False) -> Graph:
    """The int8 graph of a module that `prepare_qat` switched, with its weights and ranges as they are now.

    Raises:
        DeployError: the module was not switched, or cannot be quantized.
    """
    ranges = getattr(trainable.simulation, "ranges", None)
    if ranges is None:
        raise DeployError("the module was not prepared for quantization", hint="call prepare_qat first")
    return quantize_with_ranges(trainable.to_graph(), ranges(), float_borders=float_borders)
