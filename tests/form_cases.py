"""Seeded linear layers whose weights are stored in fewer than eight bits, in every form and shape."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from graphs import single_op_graph
from kernel_cases import tuned

from tinydeploy.engine import run
from tinydeploy.errors import DeployError
from tinydeploy.ir.forms import Codebook, Form, Packed, Planes, Signs
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array, constant
from tinydeploy.ir.verify import verify
from tinydeploy.ops import Activation, Padding

FORMS = (
    *(f"packed {bits}" for bits in range(2, 9)),
    *(f"codebook {bits}" for bits in (1, 2, 3, 4, 7)),
    *(
        "binary",
        "ternary",
        "plain binary",
        "plain ternary",
        "three bases",
        "two bases with zeros",
        "large coefficients",
    ),
)
KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
SIGNED = ("binary", "ternary", "three bases", "large coefficients")
"""The forms that are tried with activations of signs; the others are nothing special there."""


def stored(name: str, shape: tuple[int, ...], axis: int, rng: np.random.Generator) -> tuple[Array, Form]:
    """Random weights that a form holds, both ends of its range among them, and the form."""
    if name.startswith("packed"):
        packed = Packed(int(name.split()[1]))
        low, high = packed.limits
        return _with_ends(rng.integers(low, high + 1, shape), low, high).astype(np.int8), packed
    if name.startswith("codebook"):
        bits = int(name.split()[1])
        entries = int(rng.integers(1 << (bits - 1), (1 << bits) + 1))
        table = np.sort(rng.choice(np.arange(-127, 128), entries, replace=False))
        data = rng.choice(table, shape)
        return _with_ends(data, table[0], table[-1]).astype(np.int8), Codebook(bits, tuple(table.tolist()))
    planes = {"three bases": 3, "two bases with zeros": 2, "large coefficients": 2}.get(name, 1)
    signs = rng.choice(np.array([-1, 1], np.int8), (planes, *shape))
    if name in ("ternary", "plain ternary", "two bases with zeros"):
        signs[rng.random(signs.shape) < 0.4] = 0
    reach = 20_000 if name == "large coefficients" else 300
    coefficients = rng.integers(-reach, reach + 1, (planes, shape[axis])).astype(np.int16)
    if name.startswith("plain"):
        coefficients[:] = 1
    form = Planes(signs, coefficients, axis)
    return form.weights(), form


def _with_ends(data: Array, low: int, high: int) -> Array:
    """`data` with an output of the least and one of the greatest weights, so that sums reach their ends."""
    flat = data.reshape(-1)
    flat[: flat.size // 4] = low
    flat[-(flat.size // 4) or flat.size :] = high
    return data


def formed(graph: Graph, name: str, seed: int, *, signs: bool = False) -> Graph:
    """A graph of one linear layer with other weights, stored in the form of that name.

    The output scale follows, so that outputs still use the range of int8.
    """
    rng = np.random.default_rng((seed, FORMS.index(name)))
    node = graph.nodes[0]
    x, weights, y = (graph.value(n) for n in (*map(str, node.inputs[:2]), graph.outputs[0]))
    axis = 3 if node.op.kind == "DEPTHWISE_CONV_2D" else 0
    data, form = stored(name, weights.shape, axis, rng)
    size = float(np.abs(data.astype(np.float64)).mean()) + 1e-3
    scale = y.quant.scale * size / float(np.abs(weights.array.astype(np.float64)).mean())
    values = dict(graph.values)
    values[weights.name] = constant(weights.name, data, weights.quantization, form)
    if len(node.inputs) > 2:
        bias = graph.value(str(node.inputs[2]))
        smaller = (bias.array * (size / 64)).astype(np.int64).clip(-(2**28), 2**28).astype(np.int32)
        values[bias.name] = constant(bias.name, smaller, bias.quantization)
    values[y.name] = replace(y, quantization=replace(y.quant, scales=(float(np.float32(scale)),)))
    if signs:
        values[x.name] = replace(x, form=Signs(), quantization=replace(x.quant, zero_points=(0,)))
        values[y.name] = replace(y, quantization=replace(y.quant, scales=(float(np.float32(scale / 74)),)))
        for bias in (values[str(n)] for n in node.inputs[2:]):
            values[bias.name] = constant(bias.name, bias.array // 74, bias.quantization)
    return replace(graph, values=values)


def form_case(name: str, kind: str, seed: int, *, signs: bool = False) -> Graph:
    """A legal layer; scales from left shifts to no bits left, zero points anywhere."""
    rng = np.random.default_rng((FORMS.index(name), KINDS.index(kind), seed, signs))
    for _ in range(300):
        try:
            graph = single_op_graph(kind, int(rng.integers(1 << 30)), **parameters(kind, rng))
            graph = tuned(
                graph,
                inputs=int(rng.choice([-128, 127, rng.integers(-128, 128)])),
                output=int(rng.choice([-128, 127, rng.integers(-128, 128)])),
                factor=2.0 ** (rng.uniform(-10, 10) if rng.random() < 0.2 else rng.uniform(-1, 1)),
            )
            graph = formed(graph, name, int(rng.integers(1 << 30)), signs=signs)
            verify(graph)
        except DeployError:
            continue
        if _telling(graph):
            return graph
    raise AssertionError(f"no {kind} of {name} in 200 tries")


def _telling(graph: Graph) -> bool:
    """Whether the outputs are not all clamped."""
    rng = np.random.default_rng(0)
    x = graph.value(graph.inputs[0])
    noise = rng.choice(np.array(x.limits), (4, *x.shape)).astype(np.int8)
    noise[2:] = rng.integers(*x.limits, noise[2:].shape) if not isinstance(x.form, Signs) else noise[2:]
    outputs = run(graph, (noise,))[0]
    return len(np.unique(outputs)) >= min(6, outputs.size // 2)


def parameters(kind: str, rng: np.random.Generator) -> dict[str, Any]:
    """Shapes that the kernels tell apart: channels that fill no word, strides, dilation, groups, borders."""

    def pick(*options: Any) -> Any:
        return options[int(rng.integers(len(options)))]

    def pair(low: int, high: int) -> tuple[int, int]:
        return int(rng.integers(low, high)), int(rng.integers(low, high))

    linear: dict[str, Any] = {
        "activation": pick(*Activation),
        "bias": bool(rng.random() < 0.8),
        "per_channel": bool(rng.random() < 0.7),
    }
    if kind == "FULLY_CONNECTED":
        shape = (int(pick(1, 1, 2, 4, 7)), int(pick(rng.integers(1, 90), 32, 64, 33)))
        return {**linear, "shape": shape, "outputs": int(rng.integers(1, 14))}
    channels = int(pick(1, 3, 4, 5, 8, 9, 14))
    padding = pick("same", "same", "valid", Padding(*(int(n) for n in rng.integers(0, 3, 4))))
    geometry = {
        "kernel": pick((3, 3), (3, 3), (1, 1), pair(1, 5)),
        "strides": pick((1, 1), (1, 1), (2, 2), pair(1, 3)),
        "dilations": pick((1, 1), (1, 1), pair(1, 3)),
        "padding": padding,
    }
    if kind == "DEPTHWISE_CONV_2D":
        shape = (pick(1, 1, 2), *pair(1, 9), channels)
        return {**linear, **geometry, "shape": shape, "multiplier": pick(1, 1, 1, 2)}
    groups = pick(1, 1, 1, 2)
    wide = int(pick(channels, channels, 16, 32, 64)) * groups
    outputs = int(rng.integers(1, 10)) * groups
    shape = (pick(1, 1, 2), *pair(1, 9), wide)
    return {**linear, **geometry, "shape": shape, "outputs": outputs, "groups": groups}
