"""What `analyze` prints: costs of each layer, noise of each tensor."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tinydeploy.analysis import Analysis
from tinydeploy.analysis.costs import computational_cost, representational_cost
from tinydeploy.precision import PrecisionChoice
from tinydeploy.prune.names import short_name
from tinydeploy.report.difference import decibel_text
from tinydeploy.report.tables import text_table


def analysis_report(a: Analysis) -> RenderableType:
    costs = a.costs
    head = [
        Text(f"{a.model}: {costs.weights:,} weights of {costs.average_weight_bits:.4g} bits on average"),
        Text(f"to hold weights and activations: {costs.representational:,} bits"),
        Text(f"to compute: {costs.computational:,} full adders"),
    ]
    parts: list[RenderableType] = [*head, Text(), _layers(a), Text(), _tensors(a)]
    if a.precision is not None:
        parts += [Text(), _precision(a.precision)]
    parts += [Text(note, style="dim") for note in a.notes]
    return Group(*parts)


def _layers(a: Analysis) -> Table:
    """A row a layer with weights: its dot products, its bits, what they cost."""
    table = text_table("layers with weights", "layer")
    for name in ("products", "sums", "bits w:a", "acc.", "proved", "kbit", "kFA", "full dB"):
        table.add_column(name, justify="right", no_wrap=True)
    table.padding = 0  # 80 columns hold no more
    for found in a.layers:
        layer = found.layer
        table.add_row(
            _cut(layer.node.name, 20),
            f" {layer.length:,}",
            f" {layer.dots:,}",
            f" {layer.weight_bits}:{layer.input_bits}",
            f" {found.accumulator_bits}",
            " -" if found.proved_bits is None else f" {found.proved_bits}",
            f" {representational_cost(layer) / 1e3:,.0f}",
            f" {computational_cost(layer) / 1e3:,.0f}",
            " " + _decibels(found.full_range_db),
        )
    return table


def _tensors(a: Analysis) -> Table:
    """A row a tensor: how loud its noise is, and how far its distribution moved."""
    by = f" ({a.samples:,} samples)" if a.samples else ""
    table = text_table(f"SQNR and divergence of the tensors{by}", "tensor", "")
    for name in ("bits", "zeta dB", "SQNR dB", "predicted", "own", "KL f:q", "KL q:f"):
        table.add_column(name, justify="right", no_wrap=True)
    table.padding = 0
    for t in a.tensors:
        table.add_row(
            _cut(t.name),
            f" {t.kind[0]}",
            f" {t.bits}",
            " " + _decibels(t.zeta_db),
            " " + _decibels(t.sqnr_db),
            " " + _decibels(t.predicted_db),
            " " + _decibels(t.rounding_db),
            " -" if t.kl_forward is None else f" {t.kl_forward:.4f}",
            " -" if t.kl_reverse is None else f" {t.kl_reverse:.4f}",
        )
    return table


def _precision(p: PrecisionChoice) -> RenderableType:
    """A row a layer: what its noise does to the decision, and the bits that follow."""
    table = text_table(f"bits by noise gain ({p.samples} samples), for a loss of {p.loss:.2%}", "layer")
    for name in ("gain w", "gain a", "offset w", "a", "bits w", "a", "trace"):
        table.add_column(name, justify="right", no_wrap=True)
    table.padding = 0
    for layer in p.layers:
        name = layer.gain.name
        bits = [p.bits(name, kind) for kind in ("weights", "activations")]
        table.add_row(
            _cut(name, 20),
            f" {layer.gain.weights:.3g}",
            f" {layer.gain.activations:.3g}",
            f" +{layer.weights_offset}",
            f" +{layer.activations_offset}",
            *(" -" if b is None else f" {b}" for b in bits),
            " -" if layer.trace is None else f" {layer.trace:.3g}",
        )
    uniform = "more than 32" if p.uniform is None else f"{p.uniform.base}"
    return Group(table, Text(f"the same bits everywhere: {uniform}. A bound, which most networks beat."))


def _decibels(value: float | None) -> str:
    return "-" if value is None else decibel_text(value)


def _cut(name: str, width: int = 24) -> str:
    """The end of a name, which is what tells it from others."""
    short = short_name(name)
    return short if len(short) <= width else "…" + short[-(width - 1) :]
