"""The numbers of a layer that the cycles of its kernel grow with.

Portable kernels grow with what any kernel for that layer has to do. What those for the DSP extension do
depends on how they are built, and is counted piece by piece: dsp_features.py; so are those for narrow cores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tinydeploy.backends.c.layer import Layer
from tinydeploy.backends.c.syntax import Struct
from tinydeploy.estimate.dsp_features import constant_lines, dsp_counts
from tinydeploy.estimate.trio_features import trio_counts
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.verify import site_of
from tinydeploy.ops import AveragePool2D, Conv2D, DepthwiseConv2D, FullyConnected, MaxPool2D
from tinydeploy.ops.window import Window
from tinydeploy.targets import FlashTiming

FEATURES = (
    "call",
    "pixels",
    "outputs",
    "macs",
    "plain_macs",
    "reads",
    "taps",
    "rows",
    "border",
    "inputs",
    "constants",
    "rounding",
)
"""Names of the features of portable kernels; `layer_features` says what they are."""


def layer_features(graph: Graph, layer: Layer) -> Mapping[str, float]:
    """The features of a layer.

    Returns:
        For a kernel of the DSP extension or for narrow cores how often its pieces run. For a portable one:
        call: 1. pixels: outputs of one channel. outputs: elements. macs: multiply-accumulates, or elements of
        all windows, of a layer with padding, and plain_macs of one without. reads: inputs that one output
        depends on, over all pixels. taps: places of the window, over all pixels. rows: rows of the window,
        over all outputs. border: elements of the windows that reach into the padding. inputs: elements of the
        activations that are read. constants: bytes of weights. rounding: outputs whose scale needs the longer
        way.
    """
    members = shape_members(layer)
    counts = dsp_counts(layer.code.kernel, members) or trio_counts(layer.code.kernel, members)
    return _portable(graph, layer, members) if counts is None else counts


def read_features(features: Mapping[str, float], layer: Layer, flash: FlashTiming) -> Mapping[str, float]:
    """The features of a layer, with what reading its constants from a flash grows with.

    Returns:
        `features` and, for a kernel that is not portable, lines: those that its constants miss.
    """
    lines = constant_lines(layer.code.kernel, shape_members(layer), flash)
    return {**features, "lines": lines} if lines else features


def _portable(graph: Graph, layer: Layer, members: Mapping[str, int]) -> dict[str, float]:
    y = layer.output
    channels = y.shape[-1] if y.shape else 1
    pixels = y.elements // max(1, channels)
    kernel, depth, inside = _window(graph, layer)
    taps = math.prod(kernel)
    macs = layer.macs or y.elements * depth
    found: dict[str, float] = dict.fromkeys(FEATURES, 0.0)
    found |= {
        "call": 1,
        "pixels": pixels,
        "outputs": y.elements,
        "macs" if inside < 1 else "plain_macs": macs,
        "reads": pixels * depth,
        "taps": pixels * taps,
        "rows": y.elements * kernel[0],
        "border": y.elements * taps * (1 - inside),
        "inputs": sum(value.elements for _, value in layer.inputs),
        "constants": sum(constant.bytes for constant in layer.code.constants),
    }
    if members.get("way", 0) or not members.get("right_only", 1):
        found["rounding"] = y.elements
    return found


def _window(graph: Graph, layer: Layer) -> tuple[tuple[int, int], int, float]:
    """Rows and columns of the window, elements that an output depends on, fraction of windows inside."""
    op, site = layer.node.op, site_of(graph, layer.node)
    if isinstance(op, FullyConnected):
        return (1, 1), site.input(1).shape[1], 1.0
    if isinstance(op, Conv2D):
        _, rows, columns, channels = site.input(1).shape
        return (rows, columns), rows * columns * channels, _inside(op.window(site), layer)
    if isinstance(op, DepthwiseConv2D):
        rows, columns = site.input(1).shape[1:3]
        return (rows, columns), rows * columns, _inside(op.window(site), layer)
    if isinstance(op, AveragePool2D | MaxPool2D):
        return op.kernel, math.prod(op.kernel), _inside(op.window, layer)
    elements = sum(value.elements for _, value in layer.inputs)
    return (1, 1), max(1, round(elements / max(1, layer.output.elements))), 1.0


def _inside(window: Window, layer: Layer) -> float:
    """The fraction of the outputs whose window lies wholly inside the image."""
    (_, value) = layer.inputs[0]
    fraction = 1.0
    padding = window.padding
    for axis, before in ((0, padding.top), (1, padding.left)):
        count, size = layer.output.shape[1 + axis], value.shape[1 + axis]
        starts = (window.strides[axis] * index - before for index in range(count))
        fraction *= sum(s >= 0 and s + window.extent[axis] <= size for s in starts) / count
    return fraction


def shape_members(layer: Layer) -> dict[str, int]:
    """All integers of the layer's constant structures, by name."""
    found: dict[str, int] = {}
    for shape in layer.code.shapes:
        _collect(shape.value, found)
    return found


def _collect(struct: Struct, into: dict[str, int]) -> None:
    """Integers of a structure and of those inside it."""
    for name, value in struct.members:
        if isinstance(value, Struct):
            _collect(value, into)
        elif isinstance(value, int):
            into[name] = value
