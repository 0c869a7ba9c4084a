"""What the kernels for the DSP extension do for one layer, counted from the constant shape of its code.

Each count is how often a piece of the kernel runs: turns of an inner loop, words that are widened, windows
that leave the image, outputs that are requantized. The kernels stand in td_kernels_dsp_*.h.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from tinydeploy.estimate.trio_features import trio_streams
from tinydeploy.targets import FlashTiming

Shape = Mapping[str, int]
"""The members of a kernel's constant structures, by name."""
Counts = dict[str, float]

_TIES, _ANY = 1, 2
_WORD = 4


def dsp_counts(kernel: str, shape: Shape) -> Counts | None:
    """How often the pieces of a kernel run; None for a kernel that is none of these.

    Args:
        kernel: the C function.
        shape: of the layer.
    """
    count = _KERNELS.get(kernel)
    return None if count is None else {"call": 1.0, **count(shape)}


def constant_lines(kernel: str, shape: Shape, flash: FlashTiming) -> float:
    """Lines of the flash that reading the kernel's constants misses, with a cache of `flash` for them alone.

    A stream that fits the cache is missed once. One that does not is missed in every pass, for the line that
    was not used for the longest time, which the cache gives up, is the one that comes next.
    """
    total = 0.0
    for size, passes, times in _streams(kernel, shape):
        lines = math.ceil(size / flash.line_bytes)
        total += times * lines * (1 if size <= flash.dcache_bytes else passes)
    return total


def _streams(kernel: str, s: Shape) -> list[tuple[int, int, int]]:
    """Bytes that are read in order, how often in a row, and how often there is such a stream."""
    if kernel in _DOTS:
        rows = s["rows"] if "rows" in s else s["images"] * s["out_h"] * s["out_w"]
        few = kernel not in ("td_dsp_rows", "td_dsp_conv_2d")
        scales = 0 if s["common"] else 6
        size = _WORD * _half(s["outputs"]) * (2 + s["words"] + scales)
        return [(size, rows if few else rows // 4 + rows % 4, 1)]
    if kernel == "td_dsp_depthwise":
        bands, blocks = _up(s["out_h"], s["band"]), s["images"] * _up(s["in_c"], 4)
        at_once = (7 * _WORD * s["in_c"], s["images"] * bands, 1)
        return [(7 * _WORD * 4, bands, blocks) if s.get("carried", 0) else at_once]
    if kernel == "td_dsp_depthwise_taps":
        taps = 2 * _WORD * s["kernel_h"] * s["kernel_w"]
        blocks, pixels = _up(s["in_c"], 4), s["out_h"] * s["out_w"]
        by_pixel = [((taps + 16 * _WORD) * blocks, s["images"] * pixels, 1)]
        by_block = [(taps, pixels, s["images"] * blocks), (16 * _WORD, 1, s["images"] * blocks)]
        return by_pixel if s.get("by_pixel", 0) else by_block
    if kernel == "td_dsp_winograd":
        blocks, groups, _, _ = _tiles(s)
        pairs = _half(s["outputs"])
        whole = _WORD * pairs * (16 * s["in_c"] + 8)
        rereads = (groups / blocks - 1) * 16 * pairs
        # A row of U is read once for each four tiles of a block, the whole of it for each block.
        return [(whole, blocks, 1), (_WORD * s["in_c"], blocks, round(rereads))]
    return trio_streams(kernel, s)


def _up(a: int, b: int) -> int:
    return -(-a // b)


def _half(outputs: int) -> int:
    return _up(outputs, 2)


def _requantized(s: Shape, outputs: float) -> Counts:
    """Outputs, those of them whose rounding takes longer, and those that a further clamp cuts."""
    way = s["way"]
    return {
        "outputs": outputs,
        "ties": outputs if way == _TIES else 0.0,
        "any": outputs if way == _ANY else 0.0,
        "cut": outputs if (s["low"], s["high"]) != (-128, 127) else 0.0,
    }


def _dot(s: Shape, rows: int, images: int = 1) -> Counts:
    """Dot products of `rows` rows of each image, four at a time and then one by one."""
    fours, ones = images * (rows // 4), images * (rows % 4)
    pairs = _half(s["outputs"])
    words, unroll = s["words"], s["unroll"]
    return {
        "dots_4": fours * pairs,
        "dots_1": ones * pairs,
        "words_4": fours * pairs * words,
        "words_1": ones * pairs * words,
        "turns_4": fours * pairs * words / unroll,
        "turns_1": ones * pairs * words / unroll,
        "scales": 0 if s["common"] else (fours + ones) * pairs,
        **_requantized(s, (4 * fours + ones) * s["outputs"]),
    }


def _rows(s: Shape) -> Counts:
    fours, ones, inputs = s["rows"] // 4, s["rows"] % 4, s["inputs"]
    return {
        **_dot(s, s["rows"]),
        "blocks": fours,
        "widened_4": fours * (inputs // 4),
        "sixteens": ones * (inputs // 16),
        "widened": ones * (inputs % 16 // 4),
        "rests": (4 * fours + ones) if inputs % 4 else 0,
    }


def _few_rows(s: Shape) -> Counts:
    pairs, whole = _half(s["outputs"]), s["inputs"] // 4
    dots = s["rows"] * pairs
    by_four = s["inputs"] >= 16 and s["inputs"] % 16 < 4
    return {
        "rows": s["rows"],
        "dots": dots,
        "words": dots * whole,
        "turns": dots * (whole // 4 if by_four else whole),
        "rests": dots if s["inputs"] % 4 else 0,
        "scales": 0 if s["common"] else dots,
        **_requantized(s, s["rows"] * s["outputs"]),
    }


def _few_rows_by_four(s: Shape) -> Counts:
    quads, whole = _half(s["outputs"]) // 2, s["inputs"] // 4
    dots = s["rows"] * quads
    by_two = s["inputs"] >= 8 and s["inputs"] % 8 < 4
    return {
        "rows": s["rows"],
        "dots": dots,
        "words": dots * whole,
        "turns": dots * (whole // 2 if by_two else whole),
        "rests": dots if s["inputs"] % 4 else 0,
        "scales": 0 if s["common"] else dots,
        **_requantized(s, s["rows"] * s["outputs"]),
    }


def _inside(s: Shape, axis: str) -> tuple[list[int], list[int]]:
    """For each output along an axis: places of its window that are inside, and whether all are."""
    size, kernel = s[f"in_{axis}"], s[f"kernel_{axis}"]
    before = s["pad_top"] if axis == "h" else s["pad_left"]
    starts = [i * s[f"stride_{axis}"] - before for i in range(s[f"out_{axis}"])]
    step = s[f"dilation_{axis}"]
    counts = [sum(0 <= at + k * step < size for k in range(kernel)) for at in starts]
    return counts, [int(count == kernel) for count in counts]


def _convolution(s: Shape) -> Counts:
    """Windows, of which those inside are widened row by row and those at a border place by place."""
    pixels, channels = s["out_h"] * s["out_w"], s["in_c"]
    rows, _ = _inside(s, "h")
    columns, whole = _inside(s, "w")
    kernel_rows = s["out_h"] * s["kernel_h"]
    run = s["kernel_w"] * channels
    if s["dilation_w"] > 1:
        whole = [0] * len(whole)
    runs = sum(rows) * sum(whole)
    places = sum(rows) * sum(c for c, w in zip(columns, whole, strict=True) if not w)
    outside = sum(rows) * sum(s["kernel_w"] - c for c, w in zip(columns, whole, strict=True) if not w)
    empty = (kernel_rows - sum(rows)) * s["out_w"]
    n = s["images"]
    found = _dot(s, pixels, n)
    found |= {"windows": n * pixels, "kernel_rows": n * kernel_rows * s["out_w"]}
    if channels % 4 == 0:
        return found | {
            "runs": n * runs,
            "places": n * (places + outside),
            "sixteens": n * (runs * (run // 16) + places * (channels // 16)),
            "widened": n * (runs * (run % 16 // 4) + places * (channels % 16 // 4)),
            "filled": n * (empty * run / 2 + outside * channels / 2),
        }
    depth = s["kernel_h"] * run
    copied = runs if run >= 4 else 0
    border = kernel_rows * s["out_w"] - copied
    return found | {
        "runs": n * copied,
        "copied": n * copied * _up(run, 4),
        "places": n * border * s["kernel_w"],
        "bytes": n * border * run,
        "sixteens": n * pixels * (depth // 16),
        "widened": n * pixels * (depth % 16 // 4),
        "rests": n * pixels if depth % 4 else 0,
    }


def _depthwise(s: Shape) -> Counts:
    """Rows that are sorted into planes, word by word, and runs of outputs on them."""
    blocks, channels = s["images"] * _up(s["in_c"], 4), s["images"] * s["in_c"]
    bands = _up(s["out_h"], s["band"])
    starts = [i * s["band"] for i in range(bands)]
    rows = inside = 0
    for start in starts:
        top = start * s["stride_h"] - s["pad_top"]
        bottom = top + (min(s["band"], s["out_h"] - start) - 1) * s["stride_h"] + 3
        if s.get("carried", 0) and start:
            top += 2
        rows += bottom - top
        inside += min(bottom, s["in_h"]) - max(top, 0)
    first = _half(s["pad_left"])
    middle = max(0, min((s["in_w"] + s["pad_left"]) // 2, s["words"]) - first)
    five = s["stride_w"] == 1 and s["out_w"] % 4 == 1 and s["out_w"] > 1
    fours = s["out_w"] // 4 - five
    last = s["out_w"] - 4 * fours
    lines = channels * s["out_h"]
    two = s["stride_w"] == 2
    return {
        "fillings": blocks * bands,
        "sorted_rows": blocks * inside,
        "sorted": blocks * inside * middle,
        "sorted_border": blocks * inside * (s["words"] - middle),
        "empty": blocks * (rows - inside) * s["words"],
        "planes": channels * bands,
        "lines": lines,
        "by_two" if two else "fours": lines * fours,
        "last_by_two" if two else "last": lines * last,
        "lasts": lines if last else 0,
        **_requantized(s, lines * s["out_w"]),
    }


def _taps(s: Shape) -> Counts:
    """Windows of four channels, place by place; at a border each place is looked at first."""
    blocks = s["images"] * _up(s["in_c"], 4)
    _, rows = _inside(s, "h")
    _, columns = _inside(s, "w")
    pixels = s["out_h"] * s["out_w"]
    inside = sum(rows) * sum(columns) if s["padded"] else pixels
    places = s["kernel_h"] * s["kernel_w"]
    return {
        "blocks": blocks,
        "windows": blocks * inside,
        "borders": blocks * (pixels - inside),
        "kernel_rows": blocks * inside * s["kernel_h"],
        "border_rows": blocks * (pixels - inside) * s["kernel_h"],
        "taps": blocks * inside * places,
        "border_taps": blocks * (pixels - inside) * places,
        **_requantized(s, 4 * blocks * pixels),
    }


def _tiles(s: Shape) -> tuple[int, int, int, int]:
    """Blocks of tiles, groups of four tiles, tiles, and tiles whose inputs are inside the image."""
    down, across = _half(s["out_h"]), _half(s["out_w"])
    sizes = [min(s["tiles"], across - at) for at in range(0, across, s["tiles"])]
    inside = 1
    for count, before, size in ((down, s["pad_top"], s["in_h"]), (across, s["pad_left"], s["in_w"])):
        starts = (2 * index - before for index in range(count))
        inside *= sum(start >= 0 and start + 4 <= size for start in starts)
    rows = s["images"] * down
    groups = rows * sum(_up(size, 4) for size in sizes)
    return rows * len(sizes), groups, rows * across, s["images"] * inside


def _winograd(s: Shape) -> Counts:
    """Tiles that are transformed, products of four of them, and 2x2 outputs that are transformed back."""
    blocks, groups, tiles, inside = _tiles(s)
    pairs, words = _half(s["outputs"]), s["in_c"] // 4
    dots = 16 * pairs * groups
    return {
        "blocks": blocks,
        "tiles": tiles,
        "transformed": inside * words,
        "transformed_border": (tiles - inside) * words,
        "products": 16 * pairs * blocks,
        "dots": dots,
        "words": dots * s["in_c"] / 2,
        "turns": dots * s["in_c"] / 2 / s["unroll"],
        "stores": tiles * s["outputs"],
        **_requantized(s, s["images"] * s["out_h"] * s["out_w"] * s["outputs"]),
    }


def _add(s: Shape) -> Counts:
    """Elements by fours and one by one."""
    fours, ones = divmod(s["elements"], 4)
    cut = s["elements"] if (s["low"], s["high"]) != (-128, 127) else 0
    return {"fours": fours, "ones": ones, "cut": cut}


_DOTS = ("td_dsp_rows", "td_dsp_conv_2d", "td_dsp_few_rows", "td_dsp_few_rows_by_four")
_KERNELS: Mapping[str, Callable[[Shape], Counts]] = {
    "td_dsp_add": _add,
    "td_dsp_rows": _rows,
    "td_dsp_conv_2d": _convolution,
    "td_dsp_few_rows": _few_rows,
    "td_dsp_few_rows_by_four": _few_rows_by_four,
    "td_dsp_depthwise": _depthwise,
    "td_dsp_depthwise_taps": _taps,
    "td_dsp_winograd": _winograd,
}
