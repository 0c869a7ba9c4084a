"""Simulated quantization in PyTorch, with straight-through gradients; needs the extra `train`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from tinydeploy import ops
from tinydeploy.engine import run
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Array
from tinydeploy.ops.quantize import dequantize_array, quantize_array
from tinydeploy.quantize.ptq import quantize_with_ranges
from tinydeploy.quantize.qat import QatOptions
from tinydeploy.quantize.rules import Tie, rule_of
from tinydeploy.quantize.scales import LEVELS, MIN_SCALE, Range
from tinydeploy.quantize.ties import Group, group_tensors


class QuantizationSimulation(nn.Module):
    """The `Simulation` of int8: weights symmetric per channel, activations asymmetric per group of tensors.

    Biases are left as they are: int32 at S_in * S_w is hundreds of times finer than the output's scale.

    Attributes:
        lows, highs: the ends of each group's range, shape (groups,); running or learned.
    """

    lows: Tensor
    highs: Tensor

    def __init__(self, graph: Graph, ranges: Mapping[str, Range], options: QatOptions) -> None:
        super().__init__()
        self._options = options
        groups = group_tensors(graph, ranges)
        free = _distinct(g for g in groups.values() if g.fixed is None)
        numbers = {id(g): i for i, g in enumerate(free)}
        self._group = {name: numbers[id(g)] for name, g in groups.items() if g.fixed is None}
        self._fixed = {name: g.fixed for name, g in groups.items() if g.fixed is not None}
        self._copies = {
            n.outputs[0]
            for n in graph.nodes
            if rule_of(graph, n).tie is Tie.COPY and not isinstance(n.op, ops.AveragePool2D)
        }
        self._weights_axis = {n.name: rule_of(graph, n).weights_axis for n in graph.nodes}
        # Observing ends with the last activation of a pass.
        self._last = graph.nodes[-1].outputs[0] if graph.nodes else ""
        for name, ends in (("lows", [g.span.low for g in free]), ("highs", [g.span.high for g in free])):
            data = torch.tensor(ends, dtype=torch.float32)
            if options.ranges == "learned":
                self.register_parameter(name, nn.Parameter(data))
            else:
                self.register_buffer(name, data)
        self._seen: dict[int, tuple[Tensor, Tensor]] = {}

    def ranges(self) -> dict[str, Range]:
        """The range of each tensor that flows, as `quantize_with_ranges` takes them."""
        lows, highs = self.lows.detach().cpu().tolist(), self.highs.detach().cpu().tolist()
        result = {name: Range.of(min(lows[i], 0.0), max(highs[i], 0.0)) for name, i in self._group.items()}
        for name, quant in self._fixed.items():
            low = (-128 - quant.zero_point) * quant.scale
            result[name] = Range.of(low, low + LEVELS * quant.scale)
        return result

    def constant(self, node: Node, index: int, x: Tensor) -> Tensor:
        axis = self._weights_axis[node.name]
        if axis is None:
            low, high = torch.aminmax(x.detach())
            scale, zero_point = _parameters(low, high)
            return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, -128, 127)
        if index != 1:
            return x
        others = [a for a in range(x.ndim) if a != axis]
        scales = (x.detach().abs().amax(dim=others) / 127).clamp_min(MIN_SCALE)
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(x, scales, zeros, axis, -127, 127)

    def activation(self, name: str, x: Tensor) -> Tensor:
        result = self._activation(name, x)
        if name == self._last:
            self._update()
        return result

    def _activation(self, name: str, x: Tensor) -> Tensor:
        # Copies lie on the grid already.
        if name in self._copies:
            return x
        if name in self._fixed:
            quant = self._fixed[name]
            return torch.fake_quantize_per_tensor_affine(x, quant.scale, quant.zero_point, -128, 127)
        number = self._group[name]
        if self._options.ranges == "learned":
            return _learned(x, self.lows[number], self.highs[number])
        if self.training:
            self._observe(number, x.detach())
        scale, zero_point = _parameters(self.lows[number], self.highs[number])
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, -128, 127)

    def _observe(self, number: int, x: Tensor) -> None:
        low, high = torch.aminmax(x)
        before = self._seen.get(number)
        if before is not None:
            low, high = torch.minimum(low, before[0]), torch.maximum(high, before[1])
        self._seen[number] = (low, high)

    def _update(self) -> None:
        """The running average, once all tensors of every group were seen."""
        for number, (low, high) in self._seen.items():
            self.lows[number].lerp_(low.clamp_max(0.0), self._options.momentum)
            self.highs[number].lerp_(high.clamp_min(0.0), self._options.momentum)
        self._seen = {}

    def evaluate(self, graph: Graph, inputs: Sequence[Array]) -> tuple[Array, ...]:
        lowered = quantize_with_ranges(graph, self.ranges())
        values = [lowered.value(name) for name in lowered.inputs]
        integers = [quantize_array(x, v.quant, v.dtype) for x, v in zip(inputs, values, strict=True)]
        outputs = run(lowered, integers)
        return tuple(
            dequantize_array(y, lowered.value(name).quant)
            for y, name in zip(outputs, lowered.outputs, strict=True)
        )


def _distinct(groups: Iterable[Group]) -> list[Group]:
    """Each group once, in order; they are mutable and so known by identity."""
    found: dict[int, Group] = {}
    for group in groups:
        found.setdefault(id(group), group)
    return list(found.values())


def _parameters(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point by the rule of `scales.activation_quantization`."""
    low, high = low.clamp_max(0.0), high.clamp_min(0.0)
    scale = ((high - low) / LEVELS).clamp_min(MIN_SCALE)
    zero_point = torch.floor(-128.0 - low / scale + 0.5).clamp(-128, 127)
    return scale, zero_point.to(torch.int32)


def _learned(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Numbers beyond an end move that end; those between the ends pass their gradient on.

    Sources: the gradient of an end, Choi et al., "PACT" (2018), for both ends; its scaling by the number of
    elements, Esser et al., "Learned step size quantization" (2020), section 2.2.
    """
    factor = 1.0 / math.sqrt(max(x.numel() // max(x.shape[0], 1), 1) * 127)
    scale, zero_point = _parameters(low.detach(), high.detach())
    ends = []
    for end, q in ((low, -128), (high, 127)):
        slow = end * factor
        # The value is the end that the integers have; the gradient is that of the parameter.
        ends.append(slow + ((q - zero_point) * scale - slow).detach())
    clamped = torch.minimum(torch.maximum(x, ends[0]), ends[1])
    rounded = torch.round(clamped.detach() / scale) * scale
    return clamped + (rounded - clamped).detach()
