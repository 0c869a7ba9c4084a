"""What `compress` prints: before and after, the widths, and the error of each layer."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.text import Text

from tinydeploy.compression import Compression, Stage
from tinydeploy.report.tables import text_table


def compression_report(c: Compression, folder: str) -> RenderableType:
    """A column a stage, and what was written."""
    table = text_table("", "")
    for stage in c.stages:
        table.add_column(stage.name, justify="right", no_wrap=True)
    if c.metric is not None:
        table.add_row(c.metric, *(_value(s, c.metric) for s in c.stages))
    for what, numbers in (
        ("MACs", [s.macs for s in c.stages]),
        ("parameters", [s.params for s in c.stages]),
        ("weights B", [s.weights_bytes for s in c.stages]),
        ("arena B", [s.arena_bytes for s in c.stages]),
    ):
        table.add_row(what, *(f"{n:,}" for n in numbers))
    parts: list[RenderableType] = [table]
    if c.widths:
        widths = text_table("channels", "group")
        for name in ("before", "after"):
            widths.add_column(name, justify="right")
        for name, before, after in c.widths:
            widths.add_row(name.split(";", 1)[0], str(before), str(after))
        parts.append(widths)
    if c.sensitivity is not None:
        parts.append(_sensitivity(c))
    if c.missed is not None:
        parts.append(Text(f"accuracy missed: {c.missed}", style="bold red"))
    if c.missed is None or c.forced:
        parts.append(Text(f"{folder}: model.onnx, model.tflite, report.json"))
    else:
        parts.append(Text("nothing was written (--force writes all the same)"))
    return Group(*parts)


def _value(stage: Stage, metric: str) -> str:
    if stage.value is None:
        return "-"
    return f"{stage.value:.2%}" if metric == "accuracy" else f"{stage.value:.6g}"


def _sensitivity(c: Compression) -> RenderableType:
    """A row a group: the accuracy left at each ratio, with a bar for the eye."""
    assert c.sensitivity is not None
    ratios = sorted({p.ratio for p in c.sensitivity.points})
    table = text_table("sensitivity: accuracy when one group alone is pruned", "group")
    for ratio in ratios:
        table.add_column(f"{ratio:.1%}", justify="right", no_wrap=True)
    for name, _, _ in c.widths:
        points = {p.ratio: p.score for p in c.sensitivity.points if p.group == name}
        table.add_row(name.split(";", 1)[0], *(_bar(points[r]) for r in ratios))
    return table


def _bar(score: float) -> str:
    blocks = "▁▂▃▄▅▆▇█"
    return f"{score:.3f}{blocks[min(max(int(score * 8), 0), 7)]}"


def layer_error_report(c: Compression) -> RenderableType:
    """The signal to quantization noise ratio of every layer, and the first bad one."""
    table = text_table("error of each layer, int8 against float", "layer", "op")
    table.add_column("SQNR dB", justify="right")
    for e in c.errors:
        shown = f"{e.sqnr_db:.1f}" if math.isfinite(e.sqnr_db) else "exact" if e.sqnr_db > 0 else "lost"
        table.add_row(e.name.split(";", 1)[0], e.op, shown)
    bad = c.first_bad
    verdict = (
        "no layer is below 10 dB" if bad is None else f"first bad layer: {bad.name} ({bad.sqnr_db:.1f} dB)"
    )
    return Group(table, Text(verdict))
