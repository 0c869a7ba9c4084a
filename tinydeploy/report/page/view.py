"""What the page shows of each target, in the order and the words in which it shows it."""

from __future__ import annotations

from dataclasses import dataclass

from tinydeploy.advice import Advice
from tinydeploy.emulate.cycles.model import Cycles
from tinydeploy.ir.show import shape_text
from tinydeploy.profiling import LayerProfile, Profile, TargetProfile
from tinydeploy.verdict import Need

_NAME_CHARACTERS = 120


@dataclass(frozen=True)
class Bar:
    """A figure of one layer: its name in the JSON, its value, and its share of the largest in its column."""

    key: str
    label: str
    value: int | None
    percent: float


@dataclass(frozen=True)
class LayerRow:
    """One layer; `number` is its position in the JSON's list."""

    number: int
    op: str
    name: str
    shape: str
    bars: tuple[Bar, ...]
    per_mac: float | None
    share: float | None


@dataclass(frozen=True)
class Meter:
    """A resource against its limit; `percent` is what a bar can show of it, at most 100."""

    need: Need
    key: str
    label: str
    allowed: bool
    percent: float

    @property
    def over(self) -> bool:
        return self.need.over > 0


@dataclass(frozen=True)
class Part:
    """One of the things that cycles go into; `modelled` is false where that is left out of the cycles."""

    key: str
    label: str
    cycles: int
    percent: float
    modelled: bool


@dataclass(frozen=True)
class TargetView:
    """One target.

    Attributes:
        index: its position in the JSON's list.
        state: "fits", "over" or "core", where nothing was asked.
        energy: of one inference, with its band; "" where it is not known.
        rest: what no layer's own code accounts for, by column; None where it is not measured.
        left_out: layers that the table has no room for.
    """

    index: int
    profile: TargetProfile
    title: str
    about: str
    state: str
    meters: tuple[Meter, ...]
    parts: tuple[Part, ...]
    rows: tuple[LayerRow, ...]
    rest: tuple[int | None, ...]
    left_out: int
    band: str
    energy: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The labels of the bars."""
        return tuple(bar.label for bar in self.rows[0].bars) if self.rows else ()

    @property
    def unlimited(self) -> tuple[tuple[str, str, int | None], ...]:
        """Label, key and value of the memories that have no limit."""
        m = self.profile.measurement
        flash = None if m.sizes is None else m.sizes.flash
        all_of = (("Flash", "flash_bytes", flash), ("RAM", "ram_bytes", m.ram_bytes))
        limited = {meter.key for meter in self.meters}
        return tuple(entry for entry in all_of if entry[1] not in limited)

    @property
    def advice(self) -> tuple[Advice, ...]:
        return self.profile.advice


def target_views(profile: Profile, most_rows: int) -> tuple[TargetView, ...]:
    """All targets.

    Args:
        most_rows: layers over all tables; each table has at least eight, those with the largest first column.
    """
    share = max(8, most_rows // len(profile.targets))
    return tuple(_target_view(i, t, share) for i, t in enumerate(profile.targets))


def short_name(name: str) -> str:
    """A tensor's or layer's name; what was fused into it and what is too long for a page is cut off."""
    first = name.split(";", 1)[0]
    return first if len(first) <= _NAME_CHARACTERS else first[: _NAME_CHARACTERS - 1] + "…"


def _target_view(index: int, t: TargetProfile, most: int) -> TargetView:
    board = t.target.board
    clock = "" if board is None else f"{board.clock_mhz:g}\N{NO-BREAK SPACE}MHz"
    about = ["core without a board"] if board is None else [board.chip, t.target.core.title, clock]
    rows = _layer_rows(t.layers)
    kept = sorted(rows, key=lambda r: -(r.bars[0].value or 0))[:most]
    return TargetView(
        index=index,
        profile=t,
        title=t.target.title,
        about=" · ".join(about),
        state={True: "fits", False: "over", None: "core"}[t.fits],
        meters=tuple(_meter(need, t) for need in t.verdict.needs),
        parts=_parts(t.measurement.latency.parts, board is not None and board.flash is not None),
        rows=tuple(sorted(kept, key=lambda r: r.number)),
        rest=_rest(t),
        left_out=len(rows) - len(kept),
        # Alone in a sentence the band needs no brackets.
        band=band[1:-1] if (band := t.measurement.latency.band).startswith("(") else band,
        energy="" if t.energy is None else t.energy.text.replace("uJ", "µJ"),
    )


def _layer_rows(layers: tuple[LayerProfile, ...]) -> list[LayerRow]:
    columns = [[*_figures(layer)] for layer in layers]
    largest = [max((row[i][2] or 0 for row in columns), default=0) for i in range(4)]
    rows = []
    for number, (layer, figures) in enumerate(zip(layers, columns, strict=True)):
        bars = tuple(
            Bar(key, label, value, 100 * (value or 0) / most if most else 0.0)
            for (key, label, value), most in zip(figures, largest, strict=True)
        )
        rows.append(
            LayerRow(
                number,
                layer.op.lower(),
                short_name(layer.name),
                shape_text(layer.shape).replace("x", "×"),
                bars,
                layer.cycles_per_mac,
                layer.share,
            )
        )
    return rows


def _figures(layer: LayerProfile) -> tuple[tuple[str, str, int | None], ...]:
    # Instructions stand in for the cycles of a core whose cycles are not modelled.
    spent: tuple[str, str, int | None] = ("instructions", "Instructions", layer.instructions)
    if layer.cycles is not None:
        spent = ("cycles", "Cycles", layer.cycles.total)
    return (
        spent,
        ("macs", "MACs", layer.macs),
        ("flash_bytes", "Flash B", layer.flash_bytes),
        ("arena_bytes", "RAM B", layer.arena_bytes),
    )


def _rest(t: TargetProfile) -> tuple[int | None, ...]:
    """Cycles (or instructions), MACs and flash of the whole that are no layer's own; RAM does not add up."""
    m = t.measurement
    layers = t.layers
    if m.latency.cycles is not None:
        spent: int | None = m.latency.cycles - sum(x.cycles.total for x in layers if x.cycles is not None)
    elif m.instructions is not None:
        spent = m.instructions - sum(x.instructions or 0 for x in layers)
    else:
        spent = None
    flash = None if m.sizes is None else m.sizes.flash - sum(x.flash_bytes or 0 for x in layers)
    return spent, 0, flash, None


def _meter(need: Need, t: TargetProfile) -> Meter:
    board = t.target.board
    there = {} if board is None else {"flash": board.flash_bytes, "RAM": board.ram_bytes}
    key = {"flash": "flash_bytes", "RAM": "ram_bytes", "latency": "latency_ms"}[need.resource]
    label = need.resource if need.resource == "RAM" else need.resource.capitalize()
    percent = 100.0 if need.amount is None else min(100.0, 100 * need.amount / need.limit)
    allowed = need.resource not in there or need.limit < there[need.resource]
    return Meter(need, key, label, allowed, percent)


def _parts(parts: Cycles | None, has_flash: bool) -> tuple[Part, ...]:
    if parts is None or not parts.total:
        return ()
    labels = {
        "issue": "Instructions",
        "branches": "Taken branches",
        "flash_fetch": "Waits for code in flash",
        "flash_read": "Waits for constants in flash",
    }
    return tuple(
        Part(
            key,
            label,
            getattr(parts, key),
            100 * getattr(parts, key) / parts.total,
            has_flash or not key.startswith("flash"),
        )
        for key, label in labels.items()
    )
