"""How far an output must start before its input, held against the addresses that a kernel uses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from graphs import GraphBuilder, conv_2d, depthwise_conv_2d

from tinydeploy.ir.op import Site
from tinydeploy.ir.verify import site_of
from tinydeploy.ops import Conv2D, DepthwiseConv2D
from tinydeploy.plan.lead import band_lead, convolution_lead, few_rows_lead, pixel_blocks, rows_lead

SEEDS = range(60)


def random_site(seed: int, *, depthwise: bool) -> tuple[Conv2D | DepthwiseConv2D, Site]:
    rng = np.random.default_rng(seed)
    b = GraphBuilder(seed)
    kernel = tuple(int(v) for v in rng.integers(1, 4, 2))
    geometry = {
        "kernel": kernel,
        "strides": tuple(int(v) for v in rng.integers(1, 4, 2)),
        "padding": str(rng.choice(["same", "valid"])),
    }
    x = b.input(
        (int(rng.integers(1, 3)), int(rng.integers(4, 9)), int(rng.integers(4, 9)), int(rng.integers(1, 6)))
    )
    if depthwise:
        graph = b.graph(depthwise_conv_2d(b, x=x, **geometry))
    else:
        graph = b.graph(conv_2d(b, x=x, outputs=int(rng.integers(1, 9)), **geometry))
    op = graph.nodes[0].op
    assert isinstance(op, Conv2D | DepthwiseConv2D)
    return op, site_of(graph, graph.nodes[0])


def rows_read(op: Conv2D | DepthwiseConv2D, site: Site, row: int) -> list[int]:
    window = op.window(site)
    start = row * window.strides[0] - window.padding.top
    return [r for r in range(start, start + window.kernel[0]) if 0 <= r < site.input(0).shape[1]]


def first_byte(op: Conv2D, site: Site, image: int, pixel: int) -> int | None:
    """The lowest address of its input that a pixel's window reads."""
    _, height, width, channels = site.input(0).shape
    row, column = divmod(pixel, site.output.shape[2])
    window = op.window(site)
    left = column * window.strides[1] - window.padding.left
    columns = [c for c in range(left, left + window.kernel[1]) if 0 <= c < width]
    reads = [((image * height + r) * width + c) * channels for r in rows_read(op, site, row) for c in columns]
    return min(reads, default=None)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_convolution_never_writes_what_a_later_window_reads(seed: int) -> None:
    op, site = random_site(seed, depthwise=False)
    assert isinstance(op, Conv2D)
    images, rows, columns, outputs = site.output.shape
    block = (4, 8, 1)[seed % 3]
    steps: list[tuple[int, int | None]] = []
    for image in range(images):
        start = 0
        for stop in pixel_blocks(rows * columns, block):
            reads = [first_byte(op, site, image, p) for p in range(start, stop)]
            first = min((r for r in reads if r is not None), default=None)
            steps.append(((image * rows * columns + stop) * outputs, first))
            start = stop
    lead = convolution_lead(op.window(site), site, block)
    needs = [
        written - later
        for (written, _), i in zip(steps, itertools.count(1), strict=False)
        for _, later in steps[i:]
        if later is not None
    ]
    assert max(needs, default=0) <= lead
    # Never more than the two side by side, and tight where the output is no larger than the input.
    if site.output.bytes <= site.input(0).bytes and op.padding.none:
        assert lead <= max(0, *needs, 0) + block * outputs


@pytest.mark.parametrize("seed", SEEDS)
def test_a_band_never_writes_what_it_or_a_later_one_reads(seed: int) -> None:
    op, site = random_site(seed, depthwise=True)
    images, rows, columns, outputs = site.output.shape
    _, height, width, channels = site.input(0).shape
    band = 1 + seed % rows
    lead = band_lead(op.window(site), site, band)
    for image in range(images):
        for start in range(0, rows, band):
            stop = min(start + band, rows)
            written = (image * rows + stop) * columns * outputs
            reads = [r for row in range(start, rows) for r in rows_read(op, site, row)]
            if reads:
                assert written - (image * height + min(reads)) * width * channels <= lead


def test_rows() -> None:
    assert rows_lead(10, 8, 8) == rows_lead(10, 8, 4) == 0
    assert rows_lead(10, 8, 16) == 80
    # One row is read to its end while its outputs are written.
    assert few_rows_lead(1, 640, 128) == 128
    assert few_rows_lead(2, 8, 16) == 24
