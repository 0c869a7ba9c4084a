"""Kernel, strides, dilations and padding of ONNX convolutions and pools, made two-dimensional."""

from __future__ import annotations

from dataclasses import dataclass

from tinydeploy.errors import DeployError
from tinydeploy.frontends.onnx_check import Attributes
from tinydeploy.ops import Padding
from tinydeploy.ops.window import same_padding

_LARGEST = 1 << 16


@dataclass(frozen=True)
class Geometry:
    """A window over images; sequences have height 1."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    padding: Padding


def geometry(attributes: Attributes, kernel: tuple[int, ...], size: tuple[int, ...]) -> Geometry:
    """The window that the attributes strides, dilations, pads, auto_pad and ceil_mode describe.

    Args:
        kernel: as many numbers as `size`, one or two.
        size: the spatial dimensions of the input.

    Raises:
        DeployError: a number is out of range, or auto_pad is unknown.
    """
    rank = len(size)
    strides = attributes.integers("strides", rank) or (1,) * rank
    dilations = attributes.integers("dilations", rank) or (1,) * rank
    if not all(1 <= n <= _LARGEST for n in (*kernel, *strides, *dilations)):
        raise DeployError(f"a kernel {kernel}, strides {strides} or dilations {dilations} out of range")
    k, s, d, n = (_two(v) for v in (kernel, strides, dilations, size))
    padding = _padding(attributes, k, s, d, n, rank)
    if attributes.integer("ceil_mode", 0):
        padding = _ceiled(padding, k, s, d, n)
    return Geometry(k, s, d, padding)


def _two(values: tuple[int, ...]) -> tuple[int, int]:
    return (1, values[0]) if len(values) == 1 else (values[0], values[1])


def _padding(
    attributes: Attributes,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    size: tuple[int, int],
    rank: int,
) -> Padding:
    auto = attributes.string("auto_pad", "NOTSET")
    pads = attributes.integers("pads", 2 * rank) or (0,) * (2 * rank)
    match auto:
        case "NOTSET":
            if not all(0 <= p <= _LARGEST for p in pads):
                raise DeployError(f"the pads {pads} are out of range")
            if rank == 1:
                return Padding(0, 0, pads[0], pads[1])
            return Padding(pads[0], pads[2], pads[1], pads[3])
        case "VALID":
            return Padding()
        case "SAME_UPPER":
            return same_padding(size, kernel, strides, dilations)
        case "SAME_LOWER":
            p = same_padding(size, kernel, strides, dilations)
            return Padding(p.bottom, p.top, p.right, p.left)
    raise DeployError(f"the auto_pad {auto!r} is unknown")


def _ceiled(
    padding: Padding,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    size: tuple[int, int],
) -> Padding:
    """Padding at the end that makes the last, partial window a whole one."""
    before, after = (padding.top, padding.left), [padding.bottom, padding.right]
    for i in range(2):
        extent = (kernel[i] - 1) * dilations[i] + 1
        room = size[i] + before[i] + after[i] - extent
        outputs = -(-room // strides[i]) + 1
        if (outputs - 1) * strides[i] >= size[i] + before[i]:
            # A window that would start in the padding behind the image is left out.
            outputs -= 1
        after[i] = max(after[i] + (outputs - 1) * strides[i] - room, after[i])
    return Padding(before[0], after[0], before[1], after[1])
