"""What quantization-aware training is asked for; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from tinydeploy.errors import DeployError
from tinydeploy.quantize.scales import LevelKind

Ranges = Literal["running", "learned", "lsq", "pact", "hwgq", "hwgq-plain", "hwgq-log", "hwgq-lloyd", "abc"]
WeightSteps = Literal["auto", "straight", "lsq", "centroids", "centroids-moving"]
Rounding = Literal["nearest", "stochastic"]
SignGradient = Literal["wide", "hardtanh", "relu", "polynomial"]

LEVELS_OF_RANGES: Mapping[str, LevelKind] = {"hwgq-lloyd": "lloyd", "abc": "abc"}
"""The ranges whose levels are not evenly spaced; STAIRCASE in front of a layer makes them."""


@dataclass(frozen=True)
class QatOptions:
    """How weights and activations follow the training.

    Attributes:
        ranges: of activations. `running` averages the least and the greatest number of each batch;
            `learned` makes both ends parameters; `lsq` learns the step and `pact` the clip; `hwgq` takes the
            best step for a rectified Gaussian, with the gradient of a clipped ReLU (`hwgq-plain`,
            `hwgq-log`: of a plain one, of one with a logarithmic tail), and `hwgq-lloyd` levels that are
            not evenly spaced; `abc` takes as many bases as there are bits (ABC-Net). Which tensors `hwgq`
            leaves alone see its file; the last two are for what layers with weights read.
        weights: `straight` chooses scales and codebooks anew for every batch; `lsq` learns the scales of
            linear weights, and `auto` does so below eight bits and is straight otherwise; `centroids` learns
            the values of codebooks, each shared by the same weights all along, and `centroids-moving` the
            weights beside them, which go over to what is nearest.
        rounding: of linear weights and of activations while training.
        bits_from: linear weights, codebooks and activations of fewer bits start at so many and go down by
            two until half of the epochs are over; None trains all epochs at the bits that are exported.
        signs: the gradient that stands in for that of a sign, see `trainable.surrogates`.
        momentum: the share of a batch in the running average.
        weights_only: leave activations of eight bits float while training, which an epoch of few-bit weights
            gains a third by; their ranges still follow, observed in one batch of `WATCHED`.
    """

    ranges: Ranges = "running"
    momentum: float = 0.01
    weights_only: bool = False
    weights: WeightSteps = "auto"
    rounding: Rounding = "nearest"
    bits_from: int | None = None
    signs: SignGradient = "polynomial"

    def check(self) -> None:
        """Raises DeployError for options that make no sense."""
        for name, allowed in (
            ("ranges", get_args(Ranges)),
            ("weights", get_args(WeightSteps)),
            ("rounding", get_args(Rounding)),
            ("signs", get_args(SignGradient)),
        ):
            if getattr(self, name) not in allowed:
                raise DeployError(
                    f"quantization-aware training has no {name} {getattr(self, name)!r}",
                    hint=f"one of {', '.join(allowed)}",
                )
        if not 0.0 < self.momentum <= 1.0:
            raise DeployError(f"a momentum of {self.momentum} in quantization-aware training")
        if self.ranges == "learned" and self.weights_only:
            raise DeployError("ranges that are learned need activations that are quantized")
        if self.bits_from is not None and not 3 <= self.bits_from <= 8:
            raise DeployError(
                f"training cannot start at {self.bits_from} bits", where="--qat-bits-from", hint="3 to 8"
            )


def overridden(base: QatOptions, **given: Any) -> QatOptions:
    """`base` with what is given and not None, checked.

    Raises:
        DeployError: options that make no sense.
    """
    result = replace(base, **{name: value for name, value in given.items() if value is not None})
    result.check()
    return result


WATCHED = 16
"""Batches of which one is observed where activations are not simulated."""


def bits_at(target: int, start: int | None, epoch: int, epochs: int) -> int:
    """The bits of an epoch, from 0, of a tensor that ends at `target`.

    From `start` down by two; the steps above the target share the first half of the epochs, and the last
    epoch always has the target.

    Source: B. Zhuang et al., "Towards Effective Low-bitwidth Convolutional Neural Networks" (CVPR 2018),
    section 3.3 (progressive quantization).
    """
    if start is None or start <= target or epoch >= epochs - 1:
        return target
    stages = list(range(start, target, -2))
    place = int(2 * epoch * len(stages) / epochs)
    return stages[place] if place < len(stages) else target
