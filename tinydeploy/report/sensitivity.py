"""The sensitivity scan as one self-contained SVG: a panel a group, accuracy against ratio."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from tinydeploy.prune.names import short_name
from tinydeploy.prune.sensitivity import Sensitivity

_PANEL_W, _PANEL_H = 240, 150
_LEFT, _TOP, _RIGHT, _BOTTOM = 44, 28, 14, 26
_COLUMNS = 3
_MARGIN = 20
_HEAD = 54
_NAME_LENGTH = 32

# Colours are written out twice: custom properties are beyond what many viewers of SVG know.
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.back { fill: #ffffff; } .soft { fill: #59636e; font-size: 10px; } .title { font-size: 15px; }
.name { font-weight: 600; } .end { text-anchor: end; } .middle { text-anchor: middle; }
.grid { stroke: #d1d9e0; } .base { stroke: #59636e; stroke-dasharray: 3 3; }
.line { fill: none; stroke: #0969da; stroke-width: 2; } .dot { fill: #0969da; }
.mark { stroke: #bc4c00; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc; } .back { fill: #0d1117; } .soft { fill: #9198a1; } .grid { stroke: #3d444d; }
.base { stroke: #9198a1; } .line { stroke: #4493f8; } .dot { fill: #4493f8; } .mark { stroke: #f0883e; }
}
""".strip()


@dataclass(frozen=True)
class _Axes:
    """Where numbers lie inside a panel, in pixels from its upper left corner."""

    low: float
    high: float
    step: float

    def x(self, ratio: float) -> float:
        return _LEFT + ratio * (_PANEL_W - _LEFT - _RIGHT)

    def y(self, score: float) -> float:
        share = (score - self.low) / (self.high - self.low)
        return _PANEL_H - _BOTTOM - share * (_PANEL_H - _TOP - _BOTTOM)

    def ticks(self) -> Iterator[float]:
        for i in range(round((self.high - self.low) / self.step) + 1):
            yield self.low + i * self.step


def sensitivity_svg(
    scan: Sensitivity, widths: Sequence[tuple[str, int, int]], metric: str, title: str
) -> str:
    """The plot as text.

    Light or dark as the viewer prefers, with no script and nothing to load.

    Args:
        widths: name, channels before and channels after of each group; what was chosen is marked.
        metric: `accuracy`, or the name of an error, of which the scan holds the negative.
    """
    sizes = {name: before for name, before, _ in widths}
    curves = {p.group: {0.0: scan.baseline} for p in scan.points}
    for p in scan.points:
        # What was removed, not what was asked for: the divisor rounds.
        curves[p.group][1.0 - p.left / sizes[p.group]] = p.score
    points = {name: sorted(curve.items()) for name, curve in curves.items()}
    axes = _axes([scan.baseline, *(p.score for p in scan.points)], metric)
    columns = max(min(len(points), _COLUMNS), 1)
    rows = math.ceil(len(points) / columns)
    # The head needs more room than one panel gives.
    width = max(2 * _MARGIN + columns * _PANEL_W, 660)
    height = _HEAD + rows * _PANEL_H + _MARGIN
    what = metric if metric == "accuracy" else f"minus {metric}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img" aria-labelledby="title">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" class="back"/>',
        f'<text class="title" id="title" x="{_MARGIN}" y="26">{escape(title)}</text>',
        f'<text class="soft" x="{_MARGIN}" y="43">{what} when one group alone is pruned by a ratio, without'
        f" training; dashed: unpruned, {_shown(scan.baseline, metric)}; orange: what was chosen</text>",
    ]
    chosen = {name: 1.0 - after / before for name, before, after in widths}
    for i, (name, curve) in enumerate(points.items()):
        row, column = divmod(i, columns)
        x, y = _MARGIN + column * _PANEL_W, _HEAD + row * _PANEL_H
        lines.append(f'<g transform="translate({x} {y})">')
        lines += _panel(name, curve, axes, scan.baseline, chosen.get(name), metric)
        lines.append("</g>")
    return "\n".join([*lines, "</svg>", ""])


def _panel(
    name: str,
    curve: Sequence[tuple[float, float]],
    axes: _Axes,
    baseline: float,
    chosen: float | None,
    metric: str,
) -> Iterator[str]:
    left, right, floor = axes.x(0.0), axes.x(1.0), axes.y(axes.low)
    yield f'<text class="name" x="{left:g}" y="14"><title>{escape(name)}</title>{escape(_short(name))}</text>'
    for tick in axes.ticks():
        y, text = axes.y(tick), _shown(tick, metric, short=True)
        yield f'<line class="grid" x1="{left:g}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="soft end" x="{left - 5:g}" y="{y + 3:.1f}">{text}</text>'
    for ratio in (0.0, 0.25, 0.5, 0.75, 1.0):
        yield f'<text class="soft middle" x="{axes.x(ratio):.1f}" y="{floor + 14:.1f}">{ratio:.0%}</text>'
    y = axes.y(baseline)
    yield f'<line class="base" x1="{left:g}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
    if chosen is not None and chosen > 0.0:
        x = axes.x(chosen)
        yield (
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{axes.y(axes.high):.1f}" y2="{floor:.1f}">'
            f"<title>chosen: {chosen:.1%}</title></line>"
        )
    path = " ".join(f"{axes.x(r):.1f},{axes.y(s):.1f}" for r, s in curve)
    yield f'<polyline class="line" points="{path}"/>'
    for ratio, score in curve:
        yield (
            f'<circle class="dot" cx="{axes.x(ratio):.1f}" cy="{axes.y(score):.1f}" r="3">'
            f"<title>{ratio:.1%}: {_shown(score, metric)}</title></circle>"
        )


def _axes(scores: Sequence[float], metric: str) -> _Axes:
    """Accuracy from 0 up; anything else over its own range, in steps of 1, 2 or 5 times a power of ten."""
    low, high = min(scores), max(scores)
    if metric == "accuracy":
        low = 0.0
    spread = max(high - low, 1e-9 * max(abs(high), 1.0))
    power = 10.0 ** math.floor(math.log10(spread / 3))
    step = next(m * power for m in (1, 2, 5, 10) if spread / (m * power) <= 4)
    return _Axes(math.floor(low / step) * step, math.ceil(high / step) * step, step)


def _shown(score: float, metric: str, *, short: bool = False) -> str:
    if metric != "accuracy":
        return f"{score:.3g}"
    return f"{score:.0%}" if short else f"{score:.1%}"


def _short(name: str) -> str:
    name = short_name(name)
    return name if len(name) <= _NAME_LENGTH else "…" + name[1 - _NAME_LENGTH :]
