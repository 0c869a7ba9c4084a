"""How far a layer's output must start before its input, so that no byte is written before it was read.

A kernel reads what a block of output pixels needs, then writes the block. Whatever later blocks read must lie
behind what is written by then: `lead = max over blocks (bytes written - first byte that is read later)`.
"""

from __future__ import annotations

import numpy as np

from tinydeploy.ir.op import Site
from tinydeploy.ops.window import Window


def pixel_blocks(pixels: int, block: int) -> list[int]:
    """Ends of the blocks: whole ones, then a pixel at a time."""
    whole = pixels // block * block
    return [*range(block, whole + 1, block), *range(whole + 1, pixels + 1)]


def convolution_lead(window: Window, site: Site, block: int) -> int:
    """The lead of a convolution that makes `block` pixels of an image at a time, over all channels."""
    _, rows, columns, outputs = site.output.shape
    _, height, width, channels = site.input(0).shape
    top = np.maximum(np.arange(rows) * window.strides[0] - window.padding.top, 0)
    left = np.maximum(np.arange(columns) * window.strides[1] - window.padding.left, 0)
    first = ((top[:, None] * width + left) * channels).reshape(-1)
    ends = np.array(pixel_blocks(rows * columns, block))
    # The first byte that any pixel from here on reads; the next image begins behind this one.
    later = np.append(np.minimum.accumulate(first[::-1])[::-1], height * width * channels)
    within = int((ends * outputs - later[ends]).max())
    return max(0, within + drift(site))


def rows_lead(rows: int, inputs: int, outputs: int) -> int:
    """The lead of a layer that reads each row, or several at a time, before it writes them."""
    return max(0, rows * (outputs - inputs))


def few_rows_lead(rows: int, inputs: int, outputs: int) -> int:
    """The lead of a layer that reads a row again for each of its outputs."""
    return max(outputs, rows * outputs - (rows - 1) * inputs)


def band_lead(window: Window, site: Site, band: int) -> int:
    """The lead of a layer that makes `band` rows at a time and reads all of what they see until then."""
    _, rows, columns, outputs = site.output.shape
    _, _, width, channels = site.input(0).shape
    ends = np.minimum(np.arange(band, rows + band, band), rows)
    # While a band is written, other channels of its own rows are still to be read.
    tops = np.maximum(np.concatenate([[0], ends[:-1]]) * window.strides[0] - window.padding.top, 0)
    written = ends * columns * outputs
    return max(0, int((written - tops * width * channels).max()) + drift(site))


def drift(site: Site) -> int:
    """What the output gains on the input from the first image to the last."""
    x, y = site.input(0), site.output
    return (y.shape[0] - 1) * max(0, y.elements // y.shape[0] - x.elements // x.shape[0])
