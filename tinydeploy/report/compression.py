"""What `compress` prints: before and after, the widths, and the error of each layer."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tinydeploy.compression import ACCURACY, Compression, Stage
from tinydeploy.compression.bits_search import Bound, Found
from tinydeploy.prune.names import short_name
from tinydeploy.report.difference import decibel_text
from tinydeploy.report.tables import text_table

_BAR = 24


def compression_report(c: Compression, folder: str) -> RenderableType:
    """Before and after, the widths, the goal, and what was written."""
    parts: list[RenderableType] = [_stages(c)]
    if c.reached is not None:
        r = c.reached
        parts.append(
            Text(
                f"{r.kind} on {c.target}, quantized: {r.text(r.before)} unpruned, {r.text(r.after)} now,"
                f" {r.text(r.allowed)} allowed"
            )
        )
    if c.bits is not None:
        parts += [Text(), _bits(c.bits)]
    if c.gains:
        parts += [Text(), _gains(c)]
    if c.widths:
        parts += [Text(), _widths(c)]
    if c.sensitivity is not None:
        parts += [Text(), _sensitivity(c)]
    parts.append(Text())
    if c.first_bad is not None:
        bad = f"{short_name(c.first_bad.name)} ({c.first_bad.sqnr_db:.1f} dB)"
        parts.append(
            Text(f"first layer that quantization spoils: {bad}; --debug-layers prints all", style="yellow")
        )
    if c.missed is not None:
        parts.append(Text(f"missed: {c.missed}", style="bold red"))
    if c.missed is None or c.forced:
        plot = "" if c.sensitivity is None else ", sensitivity.svg"
        tflite = "" if c.tflite_refused else ", model.tflite"
        parts.append(Text(f"{folder}: model.onnx{tflite}, report.json{plot}"))
        if c.tflite_refused:
            parts.append(Text(f"no model.tflite: {c.tflite_refused}", style="yellow"))
    else:
        parts.append(Text("nothing was written (--force writes all the same)"))
    return Group(*parts)


def _stages(c: Compression) -> Table:
    """A column a stage, and what the last is to the first."""
    table = text_table("", "")
    for stage in c.stages:
        table.add_column(stage.name, justify="right", no_wrap=True)
    table.add_column("change", justify="right", no_wrap=True)
    if c.metric is not None:
        table.add_row(c.metric, *(_value(s, c.metric) for s in c.stages), _value_change(c))
    for what, numbers in (
        ("MACs", [s.macs for s in c.stages]),
        ("parameters", [s.params for s in c.stages]),
        ("weights B", [s.weights_bytes for s in c.stages]),
        (f"arena B ({c.target})", [s.arena_bytes for s in c.stages]),
    ):
        table.add_row(what, *(f"{n:,}" for n in numbers), _change(numbers[0], numbers[-1]))
    return table


def _bits(found: Found) -> RenderableType:
    """The Pareto front: a row a mixture that no other one beats, and the one that was taken."""
    table = text_table("bits by layer, before training", "", "")
    size = "bits held" if found.by_held_bits else "constants B"
    for name in ("weights", "activations", size, "value", found.unit):
        table.add_column(name, justify="right", no_wrap=True)
    for m in found.table:
        if m.front or m.chosen:
            table.add_row(
                m.source,
                "taken" if m.chosen else "",
                f"{m.mean_bits:.2f}",
                f"{m.mean_activation_bits:.2f}",
                f"{m.held_bits if found.by_held_bits else m.weights_bytes:,}",
                f"{m.value:.4f}",
                "" if m.cost is None else f"{m.cost:,.0f}",
            )
    return table if found.bound is None else Group(table, Text(_bound(found.bound)))


def _bound(bound: Bound) -> str:
    """What the noise gains guarantee."""
    said = f"noise gains guarantee a loss of at most {bound.loss:.2%} with"
    everywhere = "no bits up to 8 everywhere" if bound.uniform is None else f"{bound.uniform} bits everywhere"
    base = "no base up to 8" if bound.base is None else f"a base of {bound.base} and offsets"
    return f"{said} {everywhere}, or with {base}: a bound, which most networks beat"


def _gains(c: Compression) -> Table:
    """A row a repair: what the network is worth after it."""
    table = text_table("repairs, one after the other", "")
    for name in (c.metric or "", "output SQNR dB"):
        table.add_column(name, justify="right", no_wrap=True)
    for gain in c.gains:
        table.add_row(gain.name, _number(gain.value, c.metric), decibel_text(gain.sqnr_db))
    return table


def _value_change(c: Compression) -> Text:
    before, after = c.stages[0].value, c.stages[-1].value
    if before is None or after is None:
        return Text("-")
    missed = c.missed is not None and c.missed.startswith(ACCURACY)
    text = (
        f"{after - before:+.2%}".replace("%", " points") if c.metric == "accuracy" else _change(before, after)
    )
    return Text(text, style="bold red" if missed else "")


def _change(before: float, after: float) -> str:
    if after == before:
        return "same"
    return f"{after / before - 1.0:+.1%}" if before else "-"


def _widths(c: Compression) -> Table:
    """A row a group: its channels before and after, and what is left as a bar."""
    table = text_table("", "channels of")
    for name in ("before", "after"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("left", no_wrap=True)
    for name, before, after in c.widths:
        full = max(round(_BAR * after / before), 1)
        bar = Text("█" * full, style="green" if after == before else "cyan")
        bar.append("░" * (_BAR - full), style="dim").append(f" {after / before:.0%}")
        table.add_row(short_name(name), str(before), str(after), bar)
    return table


def _value(stage: Stage, metric: str) -> str:
    return _number(stage.value, metric)


def _number(value: float | None, metric: str | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2%}" if metric == "accuracy" else f"{value:.6g}"


def _sensitivity(c: Compression) -> RenderableType:
    """A row a group: the accuracy left at each ratio, with a bar for the eye."""
    assert c.sensitivity is not None
    ratios = sorted({p.ratio for p in c.sensitivity.points})
    table = text_table(f"{c.metric} with the channels of one group pruned by", "group")
    for ratio in ratios:
        table.add_column(f"{ratio:.1%}", justify="right", no_wrap=True)
    for name, _, _ in c.widths:
        points = {p.ratio: p.score for p in c.sensitivity.points if p.group == name}
        if points:
            table.add_row(short_name(name), *(_bar(points[r], c.metric) for r in ratios))
    return table


def _bar(score: float, metric: str | None) -> str:
    if metric != "accuracy":
        return f"{-score:.3g}"
    blocks = "▁▂▃▄▅▆▇█"
    return f"{score:.3f}{blocks[min(max(int(score * 8), 0), 7)]}"


def layer_error_report(c: Compression) -> RenderableType:
    """The signal to quantization noise ratio of every layer, and the first bad one."""
    table = text_table("error of each layer, integers against float", "layer", "op")
    table.add_column("SQNR dB", justify="right")
    for e in c.errors:
        table.add_row(short_name(e.name), e.op, decibel_text(e.sqnr_db))
    bad = c.first_bad
    verdict = (
        "no layer is below 10 dB" if bad is None else f"first bad layer: {bad.name} ({bad.sqnr_db:.1f} dB)"
    )
    return Group(table, Text(verdict))
