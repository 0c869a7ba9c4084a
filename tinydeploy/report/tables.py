"""The reports that people read: rich tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tinydeploy.backends.c.coded import PACKED, Coding
from tinydeploy.emulate.cycles.model import Cycles
from tinydeploy.evaluation import Evaluation
from tinydeploy.export import Export
from tinydeploy.latency import milliseconds
from tinydeploy.measure import Measurement
from tinydeploy.profiling import LayerProfile, Profile, TargetProfile
from tinydeploy.targets import Target
from tinydeploy.verification import Verification


def print_report(report: RenderableType) -> None:
    """Prints a report to standard output."""
    Console(highlight=False, soft_wrap=False).print(report)


def verification_report(v: Verification) -> RenderableType:
    m = v.measurement
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    verdict = Text("bit-exact", style="bold green") if v.ok else Text("NOT bit-exact", style="bold red")
    if not v.ok and v.mismatches == 0:
        verdict = Text("refused", style="bold red")
    table.add_row("target", f"{v.target} ({m.compiler}, --optimize {v.optimize})")
    table.add_row("result", verdict)
    table.add_row("compared", f"{v.elements:,} elements of {v.samples} samples, {v.mismatches:,} differ")
    table.add_row("any alignment", "yes" if m.unaligned_ok else Text("no", style="bold red"))
    if m.sizes is not None:
        table.add_row("integer only", "proved" if not m.float_symbols else Text("no", style="bold red"))
        table.add_row("instructions", _number(m.instructions))
        if m.latency.cycles is not None:
            table.add_row("latency", m.latency.text)
            table.add_row("cycles", f"{m.latency.cycles:,} ({shares_text(m.latency.parts)})")
        table.add_row(
            "flash",
            f"{_bytes(m.sizes.flash)} (weights {_bytes(m.sizes.flash_weights)},"
            f" code {_bytes(m.sizes.flash_code)})",
        )
        table.add_row(
            "RAM",
            f"{_bytes(m.ram_bytes)} (arena {_bytes(m.sizes.arena)}, peak stack {_bytes(m.stack_bytes)})",
        )
        for text in codebooks_lines(m):
            table.add_row("codebooks", text)
    else:
        table.add_row("arena", _bytes(m.project.plan.arena_bytes))
    problems = [*(f"floating point: {s}" for s in m.float_symbols), *m.faults]
    shown = [Text(f"  {p}", style="red") for p in problems[:20]]
    if len(problems) > len(shown):
        shown.append(Text(f"  and {len(problems) - len(shown)} more (--json lists all)", style="red"))
    return Group(table, *shown)


def codebooks_lines(m: Measurement) -> Iterator[str]:
    """What --codebooks did; nothing where indices are packed because nobody asked."""
    if m.project.model.codebooks != PACKED:
        yield coding_text(m.project.model.coding)
    if m.init_instructions is not None:
        yield f"{m.project.model.name}_init takes {m.init_instructions:,} instructions, once at start-up"


def coding_text(c: Coding | None) -> str:
    """What is Huffman-coded, in words."""
    if c is None:
        return "packed: a Huffman code of no layer's indices saves flash and finds its RAM"
    total = f"about {abs(c.saved_bytes):,} B {'saved' if c.saved_bytes >= 0 else 'more than packed'}"
    return (
        f"{c.layers} layers Huffman-coded: {c.packed_bytes:,} B of indices in {c.coded_bytes:,} B of flash;"
        f" with the decoder {total}; {c.ram_bytes:,} B of RAM"
    )


def profile_report(p: Profile) -> RenderableType:
    first = p.targets[0]
    head = Text(f"{p.model}: {p.macs:,} MACs, {p.params:,} parameters")
    return Group(head, _layer_table(p.layers, first), _target_table(p.targets), *_verdicts(p.targets))


def _layer_table(layers: Iterable[LayerProfile], first: TargetProfile) -> Table:
    table = text_table(f"layers on {first.target.name}")
    table.padding = 0  # 80 columns hold no more
    table.add_column("op", no_wrap=True)
    for name in ("MACs", "flash B", "RAM B", "instr.", "cycles", "/MAC", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    for i, layer in enumerate(layers):
        # Where there are no cycles, what is shared and divided is the instructions.
        n = layer.instructions if layer.cycles is None else layer.cycles.total
        table.add_row(
            f"{i} {layer.op.lower()}",
            _number(layer.macs or None),
            _number(layer.flash_bytes or None),
            _number(layer.arena_bytes),
            _number(layer.instructions),
            _number(None if layer.cycles is None else layer.cycles.total),
            "-" if n is None or not layer.macs else f"{n / layer.macs:.2f}",
            "-" if layer.share is None else f"{layer.share:.1%}",
        )
    return table


def _target_table(targets: Iterable[TargetProfile]) -> Table:
    table = text_table("targets", "target")
    for name in ("flash B", "RAM B", "arena B", "stack B", "instructions"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("fits")
    for t in targets:
        m = t.measurement
        table.add_row(
            t.target.name,
            _number(None if m.sizes is None else m.sizes.flash),
            _number(m.ram_bytes),
            _number(m.project.plan.arena_bytes),
            _number(m.stack_bytes),
            _number(m.instructions),
            {None: Text("-"), True: Text("yes", style="green"), False: Text("NO", style="bold red")}[t.fits],
        )
    return table


def _verdicts(targets: Sequence[TargetProfile]) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for t in targets:
        lines.append(Text(f"{t.target.name}: {t.why}", style="red" if t.fits is False else ""))
        latency = t.measurement.latency
        if latency.cycles is not None:
            cycles = "" if latency.latency_ms is None else f", {latency.cycles:,} cycles"
            lines.append(_indented(f"{latency.text}{cycles}: {shares_text(latency.parts)}"))
        if t.energy is not None:
            lines.append(_indented(f"energy {t.energy.text}"))
        lines += [_indented(f"codebooks: {text}") for text in codebooks_lines(t.measurement)]
        lines += [_indented(note, "dim") for note in latency.notes]
        lines += _placement(t) + _advice(t)
    note = (
        "Flash, RAM and instructions are measured: the emitted code was linked and run on an emulated core."
    )
    if any(t.measurement.source == "estimated" for t in targets):
        note = "Arena and weights are exact; cycles, instructions, code and stack are estimated."
    return [*lines, Text(note, style="dim")]


def _placement(t: TargetProfile) -> list[RenderableType]:
    """What the weights in RAM would gain."""
    moved = t.measurement.weights_in_ram
    total = t.measurement.latency.cycles
    if moved is None or moved.latency.latency_ms is None or not total:
        return []
    room = "" if moved.fits else ", which the board has not"
    change = f"{abs(moved.saved) / total:.1%} {'fewer' if moved.saved >= 0 else 'more'} cycles"
    latency = milliseconds(moved.latency.latency_ms)
    text = f"weights in RAM: {latency}, {change}, {moved.ram_bytes:,} B of RAM{room}"
    return [_indented(text, "dim")]


def _advice(t: TargetProfile) -> list[RenderableType]:
    lines: list[RenderableType] = []
    shown: set[str] = set()
    for entry in t.advice:
        style = "green" if entry.fits else ""
        word = "would fit" if entry.fits else "no answer" if entry.kind == "none" else "not enough"
        lines.append(_indented(f"{word}: {entry.text}", style))
        if entry.kind == "prune" and entry.command not in shown:
            shown.add(entry.command)
            lines.append(_indented(entry.command, "dim", 4))
    return lines


def _indented(text: str, style: str = "", by: int = 2) -> RenderableType:
    """A paragraph whose further lines are indented too."""
    return Padding(Text(text, style=style), (0, 0, 0, by), expand=False)


def shares_text(parts: Cycles | None) -> str:
    """Where the cycles go: ``issue 79%, branches 9%, flash: code 0%, constants 12%``."""
    if parts is None or not parts.total:
        return "-"
    issue, branches, fetch, read = (
        f"{n / parts.total:.0%}" for n in (parts.issue, parts.branches, parts.flash_fetch, parts.flash_read)
    )
    flash = f", flash: code {fetch}, constants {read}" if parts.flash_fetch or parts.flash_read else ""
    return f"issue {issue}, branches {branches}{flash}"


def evaluation_report(e: Evaluation) -> RenderableType:
    value = f"{e.value:.2%}" if e.metric == "accuracy" else f"{e.value:.6g}"
    return Text(f"{e.model}: {e.metric} {value} on {e.samples:,} samples (integer engine)")


def export_report(e: Export) -> RenderableType:
    plan, model = e.project.plan, e.project.model
    weights = sum(c.bytes for layer in model.layers for c in layer.code.constants)
    lines = [
        Text(f"{e.folder}: {len(e.project.files)} files for {e.target.name}"),
        Text(f"  {len(model.layers)} layers, arena {_bytes(plan.arena_bytes)}, weights {_bytes(weights)}"),
        Text(f"  call {model.name}_run() of {model.name}.h; make -C {e.folder} builds an example"),
    ]
    if model.codebooks != PACKED:
        lines.append(Text(f"  codebooks: {coding_text(model.coding)}"))
    m = e.measurement
    if m is not None and m.sizes is not None:
        lines.append(Text(f"  measured: flash {_bytes(m.sizes.flash)}, RAM {_bytes(m.ram_bytes)}"))
    return Group(*lines)


_STATUS = (
    "±N % on M: the worst error against M published results of the board. unvalidated: compared with none. "
    "unverified: and a figure of its flash could not be looked up. no flash timing: waits are left out. "
    "`tinydeploy targets NAME` has the source of each figure."
)


def targets_report(targets: Iterable[Target]) -> RenderableType:
    table = text_table("")
    table.add_column("target", no_wrap=True)
    table.add_column("core")
    for name in ("MHz", "flash KB", "RAM KB"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("latencies")
    for t in targets:
        board = t.board
        table.add_row(
            t.name,
            t.core.name if board else t.core.architecture,
            "-" if board is None else f"{board.clock_mhz:g}",
            "-" if board is None else f"{board.flash_bytes / 1024:g}",
            "-" if board is None else f"{board.ram_bytes / 1024:g}",
            t.status,
        )
    return Group(table, Text(_STATUS, style="dim"))


def target_report(t: Target) -> RenderableType:
    """One target with the source of each of its figures."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    for key, value in t.to_json().items():
        for name, text in _flat(key, value):
            table.add_row(name, text)
    return table


def _flat(key: str, value: object) -> Iterator[tuple[str, str]]:
    """A value by its dotted name; what there is not is left out."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}", inner)
    elif value is not None:
        yield key, str(value)


def text_table(title: str, *texts: str) -> Table:
    """A table without lines, narrow enough for 80 columns; numbers are never cut."""
    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for text in texts:
        table.add_column(text)
    return table


def _number(n: int | None) -> str:
    return "-" if n is None else f"{n:,}"


def _bytes(n: int | None) -> str:
    return "-" if n is None else f"{n:,} B"
