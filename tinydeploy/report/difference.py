"""What `diff` prints: a row a layer, and the first that differs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from tinydeploy.difference import Difference, LayerDifference
from tinydeploy.report.tables import text_table

_SHOWN = 20


def difference_report(d: Difference) -> RenderableType:
    table = text_table(f"{d.model_b} against {d.model_a}, {d.samples:,} samples", "layer", "op")
    for name in ("SQNR dB", "max |a-b|", "differ"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in d.layers:
        table.add_row(
            _short(layer.name),
            layer.op.lower(),
            decibel_text(layer.sqnr_db),
            f"{layer.max_abs_difference:.3g}",
            "-" if layer.differing is None else f"{layer.differing:,}",
            style="red" if layer.differs else None,
        )
    parts: list[RenderableType] = [table, _verdict(d)]
    for model, names in ((d.model_a, d.only_a), (d.model_b, d.only_b)):
        if names:
            parts.append(Text(f"only in {model}: {_listed(names)}", style="dim"))
    return Group(*parts)


def decibel_text(value: float) -> str:
    """`exact` without noise, `lost` without a signal."""
    return f"{value:.1f}" if math.isfinite(value) else "exact" if value > 0 else "lost"


def _verdict(d: Difference) -> Text:
    first = d.first
    if first is not None:
        return Text(f"first layer that differs: {first.name} ({_why(first, d)})", style="bold red")
    if all(layer.differing is not None for layer in d.layers):
        return Text("every element of every layer is the same", style="bold green")
    return Text(f"no layer is below {d.threshold_db:g} dB", style="bold green")


def _why(layer: LayerDifference, d: Difference) -> str:
    if layer.differing is None:
        return f"{decibel_text(layer.sqnr_db)} dB, below {d.threshold_db:g}"
    return f"{layer.differing:,} of {layer.elements * d.samples:,} elements"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(_short(n) for n in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _short(name: str) -> str:
    """TFLite lists every operator that was fused; the first says enough."""
    return name.split(";", 1)[0]
