"""Targets: a core and, where one is named, the board around it.

Both are data. A core is a file of `targets/cores/`, a board one of `targets/boards/` or a file of the
user's own; adding one takes no Python. Every figure of a file has a source, or the file is refused.
`docs/targets.md` describes the keys.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tinydeploy.errors import DeployError
from tinydeploy.timing import (
    Calibration,
    CoreTiming,
    Validation,
    read_calibration,
    read_riscv_timing,
    read_timing,
    read_validation,
)
from tinydeploy.toml_file import Table, nearest, read_toml

ARCHITECTURES = ("armv6-m", "armv7-m", "armv7e-m", "armv8-m.main", "rv32imc", "host")
NARROW = ("armv6-m", "armv7-m", "rv32imc")
FPUS = ("none", "fpv4-sp-d16", "fpv5-sp-d16", "fpv5-d16")
EMULATORS = ("", "cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "riscv32")
GCCS = ("arm-none-eabi-gcc", "riscv64-unknown-elf-gcc")

MEMORY_BYTES = (1024, 1024**3)
CACHE_BYTES = (0, 1024**2)
WAIT_STATES = (0, 1000)
LINE_BYTES = (4, 256)
CLOCK_MHZ_MAX = 2000.0
UW_PER_MHZ_MAX = 10_000.0
UNVERIFIED = "Unverified"
"""How the source of a figure begins that could not be looked up."""

BOARD_NAME = r"[a-z0-9][a-z0-9-]*"
_CORE_REQUIRED = (
    "name",
    "title",
    "architecture",
    "dsp",
    "fpu",
    "emulator",
    "gcc_flags",
    "zig_flags",
    "sources",
)
_CORE_FIGURES = ("architecture", "dsp", "fpu")
_BOARD_FIGURES = ("clock_mhz", "flash_bytes", "ram_bytes")
_FLASH_REQUIRED = ("wait_states", "line_bytes", "icache_bytes", "dcache_bytes", "prefetch")


@dataclass(frozen=True)
class Core:
    """A processor core: which instructions may be generated, and how to compile and emulate them.

    Attributes:
        architecture: one of `ARCHITECTURES`.
        dsp: whether the core has the DSP extension (SMLAD, SMMULR, ...).
        fpu: one of `FPUS`.
        emulator: the CPU model of the emulator; "" for the host, which runs code natively.
        gcc_flags: arguments of the GNU compiler that select the core; empty for the host.
        zig_flags: arguments of `zig cc` that select the core; empty for the host.
        sources: the public document behind each fact.
        timing: cycles of its instructions, or None where no public document gives them.
        validation: how the cycles of the bare core compared with silicon; None is "unvalidated".
        gcc: name of the GNU cross compiler, one of `GCCS`.
    """

    name: str
    title: str
    architecture: str
    dsp: bool
    fpu: str
    emulator: str
    gcc_flags: tuple[str, ...]
    zig_flags: tuple[str, ...]
    sources: Mapping[str, str] = field(hash=False)
    timing: CoreTiming | None = None
    validation: Validation | None = None
    gcc: str = GCCS[0]

    @property
    def narrow(self) -> bool:
        """Whether the kernels for cores without a long multiplication pay; measured in docs/kernels.md."""
        return not self.dsp and self.architecture in NARROW


@dataclass(frozen=True)
class FlashTiming:
    """What a read of the memory that code and weights lie in costs.

    Attributes:
        wait_states: core clock cycles that one read adds to a read that costs none.
        line_bytes: bytes that one read brings.
        icache_bytes: size of the instruction cache in front of the memory, 0 where there is none.
        dcache_bytes: size of the data cache in front of the memory, 0 where there is none.
        prefetch: whether the memory interface can fetch the next line ahead of the core.
        prefetch_enabled: whether it does so after the usual start-up of the chip, which is what is modelled.
        unified_cache: whether `icache_bytes` and `dcache_bytes` are one and the same cache.
    """

    wait_states: int
    line_bytes: int
    icache_bytes: int
    dcache_bytes: int
    prefetch: bool
    unified_cache: bool = False
    prefetch_enabled: bool = False


@dataclass(frozen=True)
class Power:
    """What a chip draws while it computes, in microwatt per megahertz: the picojoule of one core clock cycle.

    Attributes:
        active_uw_per_mhz: of the whole chip, with its peripherals idle.
        validation: how energies from it compared with published ones; None is "unvalidated".
    """

    active_uw_per_mhz: float
    validation: Validation | None = None


@dataclass(frozen=True)
class Board:
    """A board: a chip at a clock, with its memories.

    Attributes:
        clock_mhz: core clock in MHz.
        flash_bytes: bytes of flash that an application can use.
        ram_bytes: bytes of RAM that one contiguous arena can use.
        flash: timing of the flash, or None where no public document gives it.
        sources: the public document behind each figure; keys of `flash` are "flash.<key>".
        validation: how predicted latencies compared with this board's; None is "unvalidated".
        power: of the chip at work, or None where no public document gives it.
        calibration: what the user's own readings changed, or None.
    """

    name: str
    title: str
    chip: str
    core: str
    clock_mhz: float
    flash_bytes: int
    ram_bytes: int
    flash: FlashTiming | None
    sources: Mapping[str, str] = field(hash=False)
    validation: Validation | None = None
    power: Power | None = None
    calibration: Calibration | None = None

    @property
    def unverified(self) -> tuple[str, ...]:
        """The figures whose source says that nobody could look them up."""
        return tuple(key for key, source in self.sources.items() if source.startswith(UNVERIFIED))


@dataclass(frozen=True)
class Target:
    """What a model is compiled for: a core on a board, or a bare core, which has no clock and no memories."""

    name: str
    core: Core
    board: Board | None

    @property
    def kind(self) -> str:
        """Either "core" or "board"."""
        return "core" if self.board is None else "board"

    @property
    def validation(self) -> Validation | None:
        """How modelled cycles compared with silicon: of the board where there is one, else of the core."""
        return self.core.validation if self.board is None else self.board.validation

    @property
    def status(self) -> str:
        """What stands behind the latencies of a board, in a word or two; "" for a bare core."""
        board = self.board
        if board is None:
            return ""
        if board.validation is not None:
            return f"±{math.ceil(board.validation.worst_error_pct)} % on {board.validation.points}"
        if board.flash is None:
            return "no flash timing"
        return "unverified" if board.unverified else "unvalidated"

    @property
    def title(self) -> str:
        """The name that a person would use."""
        return self.core.title if self.board is None else self.board.title

    def to_json(self) -> dict[str, object]:
        """All facts with their sources, as JSON-ready values; what a bare core lacks is None.

        Clock in MHz, memories in bytes, `flash.wait_states` in core clock cycles.
        """
        board = self.board
        return {
            "name": self.name,
            "kind": self.kind,
            "title": self.title,
            "chip": board.chip if board else None,
            "clock_mhz": board.clock_mhz if board else None,
            "flash_bytes": board.flash_bytes if board else None,
            "ram_bytes": board.ram_bytes if board else None,
            "flash": asdict(board.flash) if board and board.flash else None,
            "power": asdict(board.power) if board and board.power else None,
            "sources": dict(board.sources if board else self.core.sources),
            "unverified": list(board.unverified) if board else [],
            "validation": None if self.validation is None else asdict(self.validation),
            "calibration": asdict(board.calibration) if board and board.calibration else None,
            "core": asdict(self.core)
            | {"gcc_flags": list(self.core.gcc_flags), "zig_flags": list(self.core.zig_flags)},
        }


def load_target(name_or_path: str) -> Target:
    """The target of that name, or the one that a board file of the user's own describes.

    Args:
        name_or_path: name of a core or board, or the path of a board file: a text that ends in `.toml`
            or has a path separator.

    Raises:
        DeployError: no target has that name, or the file is not a valid board file.
    """
    cores = _files("cores")
    if name_or_path.endswith(".toml") or "/" in name_or_path or os.sep in name_or_path:
        return _board_target(Path(name_or_path), cores)
    if name_or_path in cores:
        return _core_target(cores[name_or_path])
    boards = _files("boards")
    if name_or_path in boards:
        return _board_target(boards[name_or_path], cores)
    guess = nearest(name_or_path.lower(), (*cores, *boards))
    hint = f"{guess}`tinydeploy targets` lists all; a board of your own is the path of a .toml file"
    raise DeployError(f"no target is called {name_or_path[:80]!r}", where="--target", hint=hint)


def list_targets() -> tuple[Target, ...]:
    """All shipped targets: cores first, then boards, each sorted by name.

    Raises:
        DeployError: a shipped file is not valid, or the installation has none.
    """
    cores, boards = _files("cores"), _files("boards")
    return (*map(_core_target, cores.values()), *(_board_target(path, cores) for path in boards.values()))


def _data_dir() -> Path:
    """The folder of the target files: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parent
    for folder in (package.parent / "targets", package / "_targets"):
        if (folder / "cores").is_dir():
            return folder
    raise DeployError("there are no target files", where=str(package), hint="install tinydeploy again")


def _files(folder: str) -> dict[str, Path]:
    found = sorted((_data_dir() / folder).glob("*.toml"), key=lambda path: path.stem)
    return {path.stem: path for path in found}


def _core_target(path: Path) -> Target:
    core = _read_core(path)
    return Target(core.name, core, None)


def _board_target(path: Path, cores: Mapping[str, Path]) -> Target:
    board = _read_board(path, tuple(cores))
    return Target(board.name, _read_core(cores[board.core]), board)


def _open(path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> Table:
    """The file's top table, its schema, keys and name checked."""
    table = read_toml(path)
    # The schema goes first: of a file of another schema, unknown keys are not what is wrong.
    table.integer("schema", 1, 1)
    table.check_keys(("schema", *required), optional)
    name = table.text("name")
    if not re.fullmatch(BOARD_NAME, name):
        raise table.error("name", f"{name[:80]!r} is not a name", f"allowed: {BOARD_NAME}")
    if name != path.stem:
        raise table.error("name", f"the name {name!r} is not that of the file", f"allowed: {path.stem!r}")
    return table


def _read_core(path: Path) -> Core:
    table = _open(path, _CORE_REQUIRED, ("gcc", "timing", "validation"))
    architecture = table.choice("architecture", ARCHITECTURES)
    emulator = table.choice("emulator", EMULATORS)
    if (architecture == "host") != (emulator == ""):
        hint = "allowed: '' for the architecture 'host' and no other"
        raise table.error("emulator", "only the host has no emulator", hint)
    fpu = table.choice("fpu", FPUS)
    return Core(
        name=table.text("name"),
        title=table.text("title"),
        architecture=architecture,
        dsp=table.boolean("dsp"),
        fpu=fpu,
        emulator=emulator,
        gcc_flags=table.texts("gcc_flags"),
        zig_flags=table.texts("zig_flags"),
        sources=_read_sources(table, _CORE_FIGURES),
        timing=_read_timing(table, architecture, fpu) if "timing" in table else None,
        validation=read_validation(table.table("validation")) if "validation" in table else None,
        gcc=table.choice("gcc", GCCS) if "gcc" in table else GCCS[0],
    )


def _read_timing(table: Table, architecture: str, fpu: str) -> CoreTiming:
    if architecture.startswith("rv32"):
        return read_riscv_timing(table.table("timing"))
    return read_timing(table.table("timing"), has_fpu=fpu != "none")


def _read_board(path: Path, cores: tuple[str, ...]) -> Board:
    required = ("name", "title", "chip", "core", *_BOARD_FIGURES, "sources")
    table = _open(path, required, ("flash", "power", "validation", "calibration"))
    flash = _read_flash(table.table("flash")) if "flash" in table else None
    power = _read_power(table.table("power")) if "power" in table else None
    figures: tuple[str, ...] = _BOARD_FIGURES
    if flash:
        figures += tuple(f"flash.{key}" for key in table.table("flash"))
    if power:
        figures += ("power.active_uw_per_mhz",)
    return Board(
        name=table.text("name"),
        title=table.text("title"),
        chip=table.text("chip"),
        core=table.choice("core", cores),
        clock_mhz=table.positive("clock_mhz", CLOCK_MHZ_MAX),
        flash_bytes=table.integer("flash_bytes", *MEMORY_BYTES),
        ram_bytes=table.integer("ram_bytes", *MEMORY_BYTES),
        flash=flash,
        sources=_read_sources(table, figures),
        validation=read_validation(table.table("validation")) if "validation" in table else None,
        power=power,
        calibration=read_calibration(table.table("calibration")) if "calibration" in table else None,
    )


def _read_power(table: Table) -> Power:
    table.check_keys(("active_uw_per_mhz",), ("validation",))
    return Power(
        active_uw_per_mhz=table.positive("active_uw_per_mhz", UW_PER_MHZ_MAX),
        validation=read_validation(table.table("validation")) if "validation" in table else None,
    )


def _read_flash(table: Table) -> FlashTiming:
    table.check_keys(_FLASH_REQUIRED, ("unified_cache", "prefetch_enabled"))
    timing = FlashTiming(
        wait_states=table.integer("wait_states", *WAIT_STATES),
        line_bytes=table.integer("line_bytes", *LINE_BYTES),
        icache_bytes=table.integer("icache_bytes", *CACHE_BYTES),
        dcache_bytes=table.integer("dcache_bytes", *CACHE_BYTES),
        prefetch=table.boolean("prefetch"),
        unified_cache="unified_cache" in table and table.boolean("unified_cache"),
        prefetch_enabled="prefetch_enabled" in table and table.boolean("prefetch_enabled"),
    )
    if timing.prefetch_enabled and not timing.prefetch:
        hint = "allowed: true only where prefetch is true"
        raise table.error("prefetch_enabled", "what is not there cannot be on", hint)
    if timing.line_bytes & (timing.line_bytes - 1):
        raise table.error("line_bytes", "the value is not a power of two", "allowed: 4, 8, 16, ... 256")
    if timing.unified_cache and timing.icache_bytes != timing.dcache_bytes:
        hint = "allowed: icache_bytes = dcache_bytes where unified_cache is true"
        raise table.error("unified_cache", "one cache is given two sizes", hint)
    return timing


def _read_sources(top: Table, figures: tuple[str, ...]) -> dict[str, str]:
    """One source for each figure and no other, in the order of the figures."""
    sources = top.table("sources").flattened()
    allowed = "allowed: one source for each figure given: " + ", ".join(figures)
    for key in sources:
        if key not in figures:
            fact = f"a source is given for {key[:80]!r}, which is no figure of this file"
            raise sources.error(key, fact, nearest(key, figures) + allowed)
    for key in figures:
        if key not in sources:
            raise sources.error(key, f"the figure {key!r} has no source", allowed)
    return {key: sources.text(key) for key in figures}
