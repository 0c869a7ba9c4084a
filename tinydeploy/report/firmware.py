"""The table of a firmware's profile: what each function takes by itself."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tinydeploy.firmware_profile import FirmwareProfile, FirmwareTarget, share_of
from tinydeploy.report.tables import shares_text, text_table

SHOWN = 30


def firmware_report(p: FirmwareProfile) -> RenderableType:
    """The functions on the first target, then the targets."""
    first = p.targets[0]
    head = Text(f"{p.path}: one call of {p.entry}, {first.run.instructions:,} instructions")
    return Group(head, _functions(first), _targets(p), *_latencies(p))


def _functions(first: FirmwareTarget) -> Table:
    table = text_table(f"functions on {first.target.name}, without what they call")
    table.add_column("function", overflow="fold")
    for name in ("calls", "instr.", "cycles", "share", "branches", "flash"):
        table.add_column(name, justify="right", no_wrap=True)
    run = first.run
    for f in run.functions[:SHOWN]:
        parts = f.cycles
        waits = None if parts is None else parts.flash_fetch + parts.flash_read
        table.add_row(
            f.name,
            f"{f.calls:,}",
            f"{f.instructions:,}",
            "-" if parts is None else f"{parts.total:,}",
            f"{share_of(f, run):.1%}",
            "-" if parts is None or not parts.total else f"{parts.branches / parts.total:.0%}",
            "-" if parts is None or waits is None or not parts.total else f"{waits / parts.total:.0%}",
        )
    rest = run.functions[SHOWN:]
    if rest:
        share = sum(share_of(f, run) for f in rest)
        table.add_row(
            f"and {len(rest)} more", "", f"{sum(f.instructions for f in rest):,}", "", f"{share:.1%}"
        )
    return table


def _targets(p: FirmwareProfile) -> Table:
    table = text_table("targets", "target")
    for name in ("flash B", "RAM B", "stack B", "instructions"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("fits")
    for t in p.targets:
        table.add_row(
            t.target.name,
            f"{t.flash_bytes:,}",
            f"{t.ram_bytes:,}",
            f"{t.run.stack_bytes:,}",
            f"{t.run.instructions:,}",
            {None: Text("-"), True: Text("yes", style="green"), False: Text("NO", style="bold red")}[t.fits],
        )
    return table


def _latencies(p: FirmwareProfile) -> list[Text]:
    lines = []
    for t in p.targets:
        lines.append(Text(f"{t.target.name}: {t.why}", style="red" if t.fits is False else ""))
        latency = t.latency
        if latency.cycles is not None:
            cycles = "" if latency.latency_ms is None else f", {latency.cycles:,} cycles"
            lines.append(Text(f"  {latency.text}{cycles}: {shares_text(latency.parts)}"))
        lines += [Text(f"  {note}", style="dim") for note in latency.notes]
    return lines
