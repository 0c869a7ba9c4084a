"""Simulated quantization in PyTorch, with straight-through gradients; needs the extra `train`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tinydeploy import ops
from tinydeploy.engine import run
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Array
from tinydeploy.ops.quantize import dequantize_array, quantize_array
from tinydeploy.quantize.methods.base import (
    ROUNDINGS,
    ActivationMethod,
    Round,
    WeightMethod,
    parameters,
    straight,
    to_nearest,
)
from tinydeploy.quantize.methods.choose import activation_method, ceilings, stairs_method, weight_method
from tinydeploy.quantize.ptq import quantize_with_ranges
from tinydeploy.quantize.qat_options import WATCHED, QatOptions, bits_at
from tinydeploy.quantize.recipe import Assignment, Recipe, linear_nodes
from tinydeploy.quantize.rules import Tie, rule_of
from tinydeploy.quantize.scales import INT8_ACTIVATIONS, LEVELS, Activations, Range
from tinydeploy.quantize.schemes import INT8, Scheme
from tinydeploy.quantize.schemes.learned import Scaled
from tinydeploy.quantize.ties import Group, group_tensors
from tinydeploy.trainable.module import Factors


class QuantizationSimulation(nn.Module):
    """The `Simulation` of a recipe: weights by their methods, activations per group of tensors.

    Biases are left as they are: int32 at S_in * S_w is hundreds of times finer than the output's scale.

    Attributes:
        lows, highs: the ends of each group's range, shape (groups,); running or learned. A group that has a
            method of its own leaves them as they are.
        passes: how many batches were seen.
    """

    lows: Tensor
    highs: Tensor
    passes: Tensor

    def __init__(
        self, graph: Graph, ranges: Mapping[str, Range], options: QatOptions, recipe: Recipe
    ) -> None:
        super().__init__()
        self._options, self._recipe = options, recipe
        assigned = recipe.assign(graph)
        groups = group_tensors(graph, ranges, assigned.activations)
        free = _distinct(g for g in groups.values() if g.fixed is None)
        numbers = {id(g): i for i, g in enumerate(free)}
        self._group = {name: numbers[id(g)] for name, g in groups.items() if g.fixed is None}
        self._how = [g.how for g in free]
        self._bits = [g.how.bits for g in free]
        self._fixed = {name: g.fixed for name, g in groups.items() if g.fixed is not None}
        self._copies = {
            n.outputs[0]
            for n in graph.nodes
            if isinstance(n.op, ops.Sign)
            or (rule_of(graph, n).tie is Tie.COPY and not isinstance(n.op, ops.AveragePool2D))
        }
        self._weights_axis = {n.name: rule_of(graph, n).weights_axis for n in graph.nodes}
        self._weights_name = {n.name: str(n.inputs[1]) for n in linear_nodes(graph)}
        self._schemes = {n.name: assigned.of(n).weights for n in linear_nodes(graph)}
        self._weights = _weight_methods(graph, self._schemes, options)
        highest = ceilings(graph, ranges, assigned.activations)
        self._stairs = _stairs_methods(graph, assigned, highest)
        found = (
            None
            if any(name in self._stairs for name in g.members)
            else activation_method(g, graph, highest[g.members[0]], options)
            for g in free
        )
        self._activations = {i: m for i, m in enumerate(found) if m is not None}
        # Files hold what is learned under short names: those of layers may have dots.
        self.weight_methods = nn.ModuleList(self._weights.values())
        self.activation_methods = nn.ModuleList([*self._activations.values(), *self._stairs.values()])
        # Observing ends with the last activation of a pass.
        self._last = graph.nodes[-1].outputs[0] if graph.nodes else ""
        for name, ends in (("lows", [g.span.low for g in free]), ("highs", [g.span.high for g in free])):
            data = torch.tensor(ends, dtype=torch.float32)
            if options.ranges == "learned":
                self.register_parameter(name, nn.Parameter(data))
            else:
                self.register_buffer(name, data)
        self._seen: dict[int, tuple[Tensor, Tensor]] = {}
        self._every = WATCHED if options.weights_only else 1
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    @property
    def normalizes(self) -> bool:
        """Few bits move the mean and the spread of a layer's outputs, which batch normalization puts right.

        Where it is folded each output's weights are multiplied by a number, which only schemes with a scale
        an output follow.
        """
        schemes = self._schemes.values()
        few = bool(self._stairs) or any(s != INT8 for s in schemes)
        return few and not any(s.per_tensor for s in schemes)

    def ranges(self) -> dict[str, Range]:
        """The range of each tensor that flows, as `quantize_with_ranges` takes them."""
        lows, highs = self.lows.detach().cpu().tolist(), self.highs.detach().cpu().tolist()
        own = {i: method.range() for i, method in self._activations.items()}
        result = {
            name: own.get(i) or Range.of(min(lows[i], 0.0), max(highs[i], 0.0))
            for name, i in self._group.items()
        }
        for name, quant in self._fixed.items():
            low = (-128 - quant.zero_point) * quant.scale
            result[name] = Range.of(low, low + LEVELS * quant.scale)
        return result

    def constant(self, node: Node, index: int, x: Tensor) -> Tensor:
        axis = self._weights_axis[node.name]
        if axis is None:
            low, high = torch.aminmax(x.detach())
            scale, zero_point = parameters(low, high, INT8_ACTIVATIONS)
            return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, -128, 127)
        if index != 1:
            return x
        result: Tensor = self._weights[node.name](x)
        return result

    def paces(self) -> dict[str, float]:
        return {self._weights_name[name]: method.pace for name, method in self._weights.items()}

    def begin_epoch(self, number: int, epochs: int) -> None:
        def bits(target: int) -> int:
            return bits_at(target, self._options.bits_from, number, epochs)

        self._bits = [bits(how.bits) for how in self._how]
        for weights in self._weights.values():
            weights.set_bits(bits)
        for activations in self._methods():
            activations.set_bits(bits)

    def penalty(self) -> Tensor | None:
        found = [p for p in (m.penalty() for m in self._methods()) if p is not None]
        return torch.stack(found).sum() if found else None

    def _methods(self) -> list[ActivationMethod]:
        return [*self._activations.values(), *self._stairs.values()]

    def activation(self, name: str, x: Tensor) -> Tensor:
        result = self._activation(name, x)
        if name == self._last:
            self._update()
        return result

    def _activation(self, name: str, x: Tensor) -> Tensor:
        # Copies lie on the grid already.
        if name in self._copies:
            return x
        if name in self._stairs:
            steps: Tensor = self._stairs[name](x)
            return steps
        if name in self._fixed:
            quant = self._fixed[name]
            return torch.fake_quantize_per_tensor_affine(x, quant.scale, quant.zero_point, -128, 127)
        number = self._group[name]
        if number in self._activations:
            own: Tensor = self._activations[number](x)
            return own
        return self._in_range(number, x)

    def _in_range(self, number: int, x: Tensor) -> Tensor:
        """On the grid of a range that runs or is learned."""
        how = replace(self._how[number], bits=self._bits[number])
        if self._options.ranges == "learned":
            return _learned(x, self.lows[number], self.highs[number], how)
        if self.training and int(self.passes) % self._every == 0:
            self._observe(number, x.detach())
        if self._options.weights_only and self._how[number].bits == 8:
            return x
        scale, zero_point = parameters(self.lows[number], self.highs[number], how)
        rounding = ROUNDINGS[self._options.rounding]
        if self.training and rounding is not to_nearest:
            return _rounded(x, scale, zero_point, how, rounding)
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, *how.limits)

    def _observe(self, number: int, x: Tensor) -> None:
        # Under autocast what is seen has fewer bits than the averages.
        low, high = (end.float() for end in torch.aminmax(x))
        before = self._seen.get(number)
        if before is not None:
            low, high = torch.minimum(low, before[0]), torch.maximum(high, before[1])
        self._seen[number] = (low, high)

    def _update(self) -> None:
        """The running average, once all tensors of every group were seen."""
        self.passes += 1
        share = 1.0 - (1.0 - self._options.momentum) ** self._every
        for number, (low, high) in self._seen.items():
            self.lows[number].lerp_(low.clamp_max(0.0), share)
            self.highs[number].lerp_(high.clamp_min(0.0), share)
        self._seen = {}

    def learned(self, graph: Graph) -> Graph:
        made = {name: method.staircase() for name, method in self._stairs.items()}
        nodes = (replace(n, op=made.get(n.outputs[0]) or n.op) for n in graph.nodes)
        return replace(graph, nodes=tuple(nodes))

    def lower(self, graph: Graph, factors: Factors) -> Graph:
        schemes: dict[str, Scheme] = {}
        for name, method in self._weights.items():
            scheme = method.scheme()
            if method.unfolded and name in factors:
                scheme = Scaled(scheme, tuple(factors[name].detach().cpu().double().tolist()))
            if scheme != self._schemes[name]:
                schemes[name] = scheme
        return quantize_with_ranges(graph, self.ranges(), self._recipe.with_weights(graph, schemes))

    def evaluate(self, graph: Graph, factors: Factors, inputs: Sequence[Array]) -> tuple[Array, ...]:
        lowered = self.lower(graph, factors)
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


def _stairs_methods(
    graph: Graph, assigned: Assignment, ceilings: Mapping[str, float]
) -> dict[str, ActivationMethod]:
    """By the output of each STAIRCASE; what reads it says which levels these are."""
    found: dict[str, ActivationMethod] = {}
    for node in graph.nodes:
        if isinstance(node.op, ops.Staircase):
            name = node.outputs[0]
            levels = {assigned.of(r).activations.levels for r in graph.nodes if name in r.inputs}
            found[name] = stairs_method(node.op, levels, ceilings[str(node.inputs[0])])
    return found


def _weight_methods(
    graph: Graph, schemes: Mapping[str, Scheme], options: QatOptions
) -> dict[str, WeightMethod]:
    """By layer; layers that share weights share the method too."""
    shared: dict[tuple[str, int, Scheme], WeightMethod] = {}
    found = {}
    for node in linear_nodes(graph):
        axis, name, scheme = rule_of(graph, node).weights_axis, str(node.inputs[1]), schemes[node.name]
        assert axis is not None
        key = (name, axis, scheme)
        if key not in shared:
            shared[key] = weight_method(scheme, graph.value(name).array, axis, options)
        found[node.name] = shared[key]
    return found


def _rounded(x: Tensor, scale: Tensor, zero_point: Tensor, how: Activations, rounding: Round) -> Tensor:
    """On the grid of a range, with the gradient of what lies within it."""
    low, high = (scale * (limit - zero_point) for limit in how.limits)
    inside = x.clamp(low, high)
    return straight(rounding((inside / scale).detach()) * scale, inside)


def _learned(x: Tensor, low: Tensor, high: Tensor, how: Activations) -> Tensor:
    """Quantized between ends that learn."""
    result: Tensor = _LearnedRange.apply(x, low, high, how)  # type: ignore[no-untyped-call]  # PyTorch's
    return result


class _LearnedRange(torch.autograd.Function):
    """Numbers beyond an end move that end; those between the ends pass their gradient on.

    One function and not a chain of operators, which took three times as long.

    Sources: the gradient of an end, Choi et al., "PACT" (2018), for both ends; its scaling by the number of
    elements, Esser et al., "Learned step size quantization" (2020), section 2.2.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, high: Tensor, how: Activations) -> Tensor:
        scale, zero_point = parameters(low, high, how)
        least, most = how.limits
        ctx.save_for_backward(x, (least - zero_point) * scale, (most - zero_point) * scale)
        ctx.most = most
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, least, most)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (gradient,) = gradients
        x, low, high = ctx.saved_tensors
        factor = 1.0 / math.sqrt(max(x.numel() // max(x.shape[0], 1), 1) * ctx.most)
        below, above = x < low, x > high
        inside = gradient.masked_fill(below | above, 0.0)
        of_low = gradient.masked_fill(~below, 0.0).sum() * factor
        of_high = gradient.masked_fill(~above, 0.0).sum() * factor
        return inside, of_low, of_high, None
