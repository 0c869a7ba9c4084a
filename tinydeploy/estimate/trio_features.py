"""What the kernels for narrow cores do for one layer, counted from the constant shape of its code.

As dsp_features.py does for the kernels of the DSP extension; these stand in td_kernels_trio_*.h.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

Shape = Mapping[str, int]
"""The members of a kernel's constant structures, by name."""
Counts = dict[str, float]

_PIXELS, _LANES, _WORD = 6, 3, 4
_TIES, _ANY = 1, 2
_LEVEL_WORDS = (5, 7, 3)
"""Words of a channel's requantization, by its way."""


def trio_counts(kernel: str, shape: Shape) -> Counts | None:
    """How often the pieces of a kernel run; None for a kernel that is none of these.

    Args:
        kernel: the C function.
        shape: of the layer.
    """
    count = _KERNELS.get(kernel)
    return None if count is None else {"call": 1.0, **count(shape)}


def trio_streams(kernel: str, s: Shape) -> list[tuple[int, int, int]]:
    """Bytes of constants that are read in order, how often in a row, and how often there is such a stream."""
    if kernel not in _KERNELS:
        return []
    scales = _WORD * _LEVEL_WORDS[s["way"]]
    if kernel == "td_trio_depthwise":
        taps = _WORD * _up(s["kernel_h"] * s["kernel_w"], 4)
        channels = s["images"] * s["in_c"]
        return [(taps, 1, channels), (scales, s["band"] * s["out_w"], channels)]
    return [(s["outputs"] * (s["steps"] * s["segments"] + scales), _blocks(s), 1)]


def _up(a: int, b: int) -> int:
    return -(-a // b)


def _blocks(s: Shape) -> int:
    if "rows" in s:
        return _up(s["rows"], _PIXELS)
    return s["images"] * _up(s["out_h"] * s["out_w"], _PIXELS)


def _requantized(s: Shape, outputs: float) -> Counts:
    return {
        "outputs": outputs,
        "ties": outputs if s["way"] == _TIES else 0.0,
        "any": outputs if s["way"] == _ANY else 0.0,
    }


def _dot(s: Shape) -> Counts:
    dots = _blocks(s) * s["outputs"]
    fours = dots * s["segments"] * s["steps"] // 4
    return {
        "blocks": _blocks(s),
        "dots": dots,
        "segments": dots * s["segments"],
        "fours": fours,
        "turns": fours / (2 if s["steps"] % 8 == 0 else 1),
        **_requantized(s, dots * _PIXELS),
    }


def _rows(s: Shape) -> Counts:
    return {**_dot(s), "widened": _blocks(s) * 2 * s["inputs"]}


def _conv(s: Shape) -> Counts:
    run = s["kernel_w"] * s["in_c"]
    runs = _blocks(s) * 2 * s["kernel_h"]
    copied = s["images"] * _copied_runs(s)
    return {
        **_dot(s),
        "widened": runs * run,
        "runs": runs,
        "copied_runs": copied,
        "copied_columns": copied * s["kernel_w"],
        "copied": copied * run,
    }


def _copied_runs(s: Shape) -> int:
    """Rows of the windows of an image that are not in it as one run."""
    every = s["out_h"] * s["out_w"] * s["kernel_h"]
    if s["dilation_w"] > 1 and s["kernel_w"] > 1:
        return every
    if not s["padded"]:
        return 0
    starts = range(-s["pad_left"], s["out_w"] * s["stride_w"] - s["pad_left"], s["stride_w"])
    reach = (s["kernel_w"] - 1) * s["dilation_w"]
    columns = sum(x >= 0 and x + reach < s["in_w"] for x in starts)
    rows = sum(
        0 <= y * s["stride_h"] - s["pad_top"] + k * s["dilation_h"] < s["in_h"]
        for y in range(s["out_h"])
        for k in range(s["kernel_h"])
    )
    return every - rows * columns


def _depthwise(s: Shape) -> Counts:
    channels = s["images"] * s["in_c"]
    parts = [min(s["part"], s["band"] - first) for first in range(0, s["band"], s["part"])]
    rows = channels * sum((n - 1) * s["stride_h"] + (s["kernel_h"] - 1) * s["dilation_h"] + 1 for n in parts)
    columns = (s["out_w"] - 1) * s["stride_w"] + (s["kernel_w"] - 1) * s["dilation_w"] + 1
    windows = channels * s["band"] * s["out_w"]
    return {
        "channels": channels,
        "weights": channels * s["kernel_h"] * s["kernel_w"],
        "plane_rows": rows,
        "plane": rows * min(s["in_w"], columns),
        "borders": rows * max(0, columns - s["in_w"]),
        "output_rows": channels * s["band"],
        "windows": windows,
        "window_rows": windows * s["kernel_h"],
        "products": windows * s["kernel_h"] * s["kernel_w"],
        **_requantized(s, windows * _LANES),
    }


_KERNELS: Mapping[str, Callable[[Shape], Counts]] = {
    "td_trio_rows": _rows,
    "td_trio_conv_2d": _conv,
    "td_trio_depthwise": _depthwise,
}
