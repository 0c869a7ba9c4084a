"""Seeded layers that the kernels for the DSP extension take, in every shape that they tell apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from graphs import single_op_graph
from kernel_cases import tuned

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.verify import site_of, verify
from tinydeploy.ops import Activation, Padding
from tinydeploy.plan import dsp
from tinydeploy.plan.kernels import KernelChoice, candidates

FAMILIES = (
    *("pointwise", "convolution", "convolution in place", "rows", "depthwise 3x3", "depthwise", "add"),
    *("winograd", "average pool", "max pool", "mean"),
)
POOLS = ("average pool", "max pool", "mean")
_SCALES = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MEAN")
"""The ops whose output may have another scale than their input."""


def choices_of(graph: Graph, *, narrow: bool = False) -> tuple[KernelChoice, ...]:
    """The kernels of a graph's only layer with the DSP extension, or on a narrow core, the fastest first."""
    (node,) = graph.nodes
    return candidates(node.op, site_of(graph, node), has_dsp=not narrow, narrow=narrow)


def dsp_case(family: str, seed: int, *, narrow: bool = False) -> Graph:
    """A legal layer; scales from left shifts to no bits left, zero points anywhere."""
    rng = np.random.default_rng((FAMILIES.index(family), seed))
    for _ in range(200):
        pools = family in POOLS
        kind, given = _pooling(family, rng) if pools else _parameters(family, rng)
        try:
            graph = single_op_graph(kind, int(rng.integers(1 << 30)), **given)
            if kind in _SCALES:
                graph = tuned(
                    graph,
                    inputs=int(rng.choice([-128, 127, rng.integers(-128, 128)])),
                    output=int(rng.choice([-128, 127, rng.integers(-128, 128)])),
                    factor=2.0 ** (rng.uniform(-10, 10) if rng.random() < 0.2 else rng.uniform(-1, 1)),
                )
            verify(graph)
        except DeployError:
            continue
        fastest = choices_of(graph, narrow=narrow)[0].name
        if fastest == dsp.WINOGRAD if family == "winograd" else fastest != "portable":
            return graph
    raise AssertionError(f"no {family} in 200 tries")


def _parameters(family: str, rng: np.random.Generator) -> tuple[str, dict[str, Any]]:
    def pick(*options: Any) -> Any:
        return options[int(rng.integers(len(options)))]

    def pair(low: int, high: int) -> tuple[int, int]:
        return int(rng.integers(low, high)), int(rng.integers(low, high))

    activation = pick(*Activation)
    channels = int(pick(1, 2, 3, 4, 5, 8, 12, 16, 27, 40))
    outputs = int(rng.integers(1, 12))
    image = (pick(1, 1, 2), *pair(1, 12), channels)
    padding = pick("same", "valid", Padding(*(int(n) for n in rng.integers(0, 3, 4))))
    linear: dict[str, Any] = {"activation": activation, "bias": bool(rng.random() < 0.8)}
    linear["per_channel"] = bool(rng.random() < 0.7)
    if family in ("pointwise", "winograd"):
        wide = (pick(1, 1, 2), *pair(1, 22), int(pick(4, 8, 12, 16, 32)))
        given = {"shape": image, "kernel": (1, 1), "padding": "valid", "outputs": outputs}
        if family == "winograd":
            given |= {"shape": wide, "kernel": (3, 3), "padding": padding}
        return "CONV_2D", {**linear, **given}
    if family == "convolution in place":
        given = {"shape": image, "kernel": pair(1, 6), "padding": "same", "outputs": channels}
        return "CONV_2D", {**linear, **given, "dilations": pick((1, 1), pair(1, 3))}
    if family == "convolution":
        kernel = pick((3, 3), (3, 3), (1, 1), (5, 1), (10, 4), pair(1, 6))
        strides = pick((1, 1), (2, 2), pair(1, 4))
        geometry = {"kernel": kernel, "strides": strides, "dilations": pick((1, 1), (1, 1), pair(1, 3))}
        return "CONV_2D", {**linear, **geometry, "shape": image, "padding": padding, "outputs": outputs}
    if family == "rows":
        shape = (int(pick(1, 1, 4, 7)), int(rng.integers(1, 90)))
        return "FULLY_CONNECTED", {**linear, "shape": shape, "outputs": outputs}
    if family == "add":
        shape = (1, *pair(1, 6), int(rng.integers(1, 9)))
        return "ADD", {"shapes": (shape, shape), "activation": activation}
    small = family == "depthwise 3x3"
    sizes = (image[0], *pair(1, 15), int(pick(4, 8, 12, 5, 7, 9, 14)))
    kernel = (3, 3) if small else pick((5, 1), (1, 3), (10, 4), (3, 3), pair(1, 5))
    dilations = (1, 1) if small else pick((1, 1), pair(1, 3))
    strides = pick((1, 1), (1, 1), (2, 2), pair(1, 3)) if small else pair(1, 4)
    geometry = {"kernel": kernel, "strides": strides, "dilations": dilations, "padding": padding}
    return "DEPTHWISE_CONV_2D", {**linear, **geometry, "shape": sizes}


def _pooling(family: str, rng: np.random.Generator) -> tuple[str, dict[str, Any]]:
    """Windows up to more values than a packed sum holds."""

    def pair(low: int, high: int) -> tuple[int, int]:
        return int(rng.integers(low, high)), int(rng.integers(low, high))

    shape = (int(rng.integers(1, 3)), *pair(1, 24), int(rng.integers(4, 15)))
    if family == "mean":
        axes = [(1, 2), (1,), (2,), (0, 2), (0, 1, 2)][int(rng.integers(5))]
        return "MEAN", {"shape": shape, "axes": axes}
    kind = "AVERAGE_POOL_2D" if family == "average pool" else "MAX_POOL_2D"
    kernel = pair(1, 4) if rng.random() < 0.6 else pair(1, 20) if rng.random() < 0.6 else shape[1:3]
    padding = ("same", "valid", Padding(*(int(n) for n in rng.integers(0, 3, 4))))[int(rng.integers(3))]
    activation = list(Activation)[int(rng.integers(len(Activation)))]
    return kind, {
        "shape": shape,
        "kernel": kernel,
        "strides": pair(1, 4),
        "padding": padding,
        "activation": activation,
    }
