"""Which method a layer or a group of tensors is trained by."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping

import torch

from tinydeploy import ops
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.quantize.methods.abc_net import AbcActivations
from tinydeploy.quantize.methods.base import ROUNDINGS, ActivationMethod, WeightMethod
from tinydeploy.quantize.methods.centroids import CentroidWeights
from tinydeploy.quantize.methods.hwgq import Backward, HalfWaveActivations, LloydActivations
from tinydeploy.quantize.methods.lsq import LsqActivations, LsqWeights
from tinydeploy.quantize.methods.pact import PactActivations
from tinydeploy.quantize.methods.signs import BinaryWeights
from tinydeploy.quantize.methods.straight import StraightThrough
from tinydeploy.quantize.methods.ttq import TtqWeights
from tinydeploy.quantize.qat_options import QatOptions
from tinydeploy.quantize.scales import MAX_MAGNITUDE, Activations, Range
from tinydeploy.quantize.schemes import INT8, Binary, KMeans, Linear, Scheme, TrainedTernary
from tinydeploy.quantize.ties import Group, group_tensors

_HALF_WAVES: Mapping[str, Backward] = {"hwgq": "clipped", "hwgq-plain": "plain", "hwgq-log": "log"}


def weight_method(scheme: Scheme, weights: Array, axis: int, options: QatOptions) -> WeightMethod:
    """For weights that start at `weights`, with outputs along `axis`."""
    rounding = ROUNDINGS[options.rounding]
    start = torch.tensor(weights)
    if isinstance(scheme, TrainedTernary):
        return TtqWeights(scheme, start, axis)
    learns = ("lsq", "auto") if isinstance(scheme, Linear) and scheme.bits < INT8.bits else ("lsq",)
    if isinstance(scheme, Linear) and options.weights in learns:
        return LsqWeights(scheme, start, axis, rounding)
    if isinstance(scheme, Binary):
        return BinaryWeights(scheme, start, axis, rounding)
    if isinstance(scheme, KMeans) and options.weights in ("centroids", "centroids-moving"):
        moving = options.weights == "centroids-moving"
        return CentroidWeights(scheme, start, axis, options.bits_from, moving=moving)
    return StraightThrough(scheme, axis, rounding)


def activation_method(
    group: Group, graph: Graph, ceiling: float, options: QatOptions
) -> ActivationMethod | None:
    """None where a running or a learned range does it.

    The graph's inputs are left alone, whose range the caller knows; eight bits too where training leaves
    them float; and HWGQ takes no tensor with negative numbers and none of eight bits.
    """
    if any(n in graph.inputs for n in group.members):
        return None
    if options.weights_only and group.how.bits == 8:
        return None
    given = (group.span, group.how, ceiling, ROUNDINGS[options.rounding])
    if options.ranges == "lsq":
        return LsqActivations(*given)
    if options.ranges == "pact":
        return PactActivations(*given)
    backward = _HALF_WAVES.get(options.ranges)
    if backward is None or group.how.bits == 8 or group.span.low < 0.0 or group.how.symmetric:
        return None
    return HalfWaveActivations(*given, backward)


def stairs_method(stairs: ops.Staircase, levels: Collection[str], ceiling: float) -> ActivationMethod:
    """For what one STAIRCASE makes.

    Args:
        levels: the kinds that its readers ask for. One that came with the network learns like ABC-Net's.
        ceiling: of what it reads.
    """
    if "lloyd" in levels:
        return LloydActivations(stairs, ceiling)
    return AbcActivations(stairs, ceiling)


def ceilings(graph: Graph, names: Iterable[str], how: Callable[[str], Activations]) -> dict[str, float]:
    """The largest number that the clamps of the network leave each tensor; infinite where there is none."""
    free = group_tensors(graph, {n: Range(-MAX_MAGNITUDE, MAX_MAGNITUDE) for n in names}, how)
    found = {}
    for name, group in free.items():
        high = group.span.high
        found[name] = high if 0.0 < high < MAX_MAGNITUDE else math.inf
    return found


__all__ = ["activation_method", "ceilings", "stairs_method", "weight_method"]
