"""What instructions cost on a core, and how predicted cycles compared with silicon: data of `targets/`."""

from __future__ import annotations

from dataclasses import dataclass

from tinydeploy.toml_file import Table

CYCLES_MAX = 100
POINTS_MAX = 10_000
PERCENT_MAX = 1000.0

_CLASSES = (
    "alu",
    "multiply",
    "multiply_accumulate",
    "multiply_long",
    "multiply_accumulate_long",
    "multiply_dual",
    "divide",
    "load",
    "load_pipelined",
    "store",
    "store_register_offset",
    "double",
    "multiple_base",
    "multiple_word",
    "taken_branch",
    "taken_call",
    "taken_return",
    "address_dependency",
    "special",
)
_RISCV_CLASSES = (
    *("alu", "multiply", "multiply_long", "divide", "load", "load_use", "store"),
    *("taken_branch", "taken_call", "taken_return", "special"),
)
_FLOAT_CLASSES = ("float_alu", "float_multiply_add", "float_divide")


_PAIR_KEYS = (
    "loads",
    "load_latency",
    "narrow_load_latency",
    "multiply_latency",
    "accumulator_late",
    "store_data_late",
    "address_early",
    "float_latency",
    "float_multiply_add_latency",
    "mispredicted_branch",
)


@dataclass(frozen=True)
class PairTiming:
    """How a core that issues up to two instructions in a cycle, in order, pairs them.

    A latency is the number of cycles from the issue of an instruction to that of one that computes with its
    result; an instruction of the arithmetic unit has 1.

    Attributes:
        loads: loads of one register that can go in one cycle.
        load_latency, narrow_load_latency: of a loaded word, and of a loaded byte or halfword.
        multiply_latency: of every multiplication.
        accumulator_late: how many cycles after its issue a multiplication needs what it adds to.
        store_data_late: how many cycles after its issue a store needs what it stores.
        address_early: how many cycles before its issue a load or store needs its address, and an instruction
            with a shifted operand that operand.
        float_latency, float_multiply_add_latency: of the floating-point unit.
        mispredicted_branch: refill of the pipeline where a branch goes another way than it mostly goes.
        source: the public documents behind the figures.
    """

    loads: int
    load_latency: int
    narrow_load_latency: int
    multiply_latency: int
    accumulator_late: int
    store_data_late: int
    address_early: int
    float_latency: int
    float_multiply_add_latency: int
    mispredicted_branch: int
    source: str


@dataclass(frozen=True)
class CoreTiming:
    """Cycles of each class of instruction, for a core that issues one instruction at a time.

    All figures are core clock cycles with memory that never waits. With `pairs` they are the cycles for which
    an instruction keeps its unit.

    Attributes:
        alu: an instruction of the arithmetic and logic unit, a shift, an extension, a saturation, an IT,
            a NOP and a branch that is not taken.
        multiply: MUL, SMULxy, SMULWx, SMMUL.
        multiply_accumulate: MLA, MLS, SMLAxy, SMLAWx, SMMLA.
        multiply_long: SMULL, UMULL.
        multiply_accumulate_long: SMLAL, UMLAL, UMAAL, SMLALxy, SMLALD.
        multiply_dual: SMLAD, SMUAD and their kin.
        divide: SDIV and UDIV; silicon ends early, so this is a typical figure.
        load: a load of one register (of the floating-point unit too) that cannot be pipelined.
        load_pipelined: a load of one register right behind another load or store of one register, whose
            address does not depend on what that one loaded.
        store: a store of one register at a base with an immediate offset.
        store_register_offset: a store of one register at a base with a register offset.
        double: LDRD and STRD, and VLDR and VSTR of two words.
        multiple_base, multiple_word: LDM, STM, PUSH, POP, VLDM, ...: the former, plus the latter for each
            word.
        taken_branch: what a taken B, B<cond>, CBZ, BX and TBB add to `alu`, or to `load` for a table branch.
        taken_call: what BL and BLX add to `alu`.
        taken_return: what POP {.., PC}, LDM {.., PC} and LDR PC add to the load.
        address_dependency: what is added where the address of a load or store comes from the instruction of
            the arithmetic unit just before it.
        special: MRS, MSR, barriers, VMRS, VMSR.
        float_alu: VADD, VMUL, VCVT, VMOV and their kin; None for a core without them.
        float_multiply_add: VMLA, VFMA and their kin.
        float_divide: VDIV, VSQRT.
        source: the public documents behind the figures.
        pairs: None for a core that issues one instruction at a time.
        load_use: RISC-V: what is added where an instruction reads what the load just before it loaded.

    A RISC-V core has of these `alu`, `multiply` (MUL), `multiply_long` (MULH and its kin), `divide` (DIV and
    REM), `load`, `load_use`, `store`, `taken_branch` (of a conditional branch), `taken_call` (JAL),
    `taken_return` (JALR) and `special`.
    """

    alu: int
    multiply: int
    multiply_accumulate: int
    multiply_long: int
    multiply_accumulate_long: int
    multiply_dual: int
    divide: int
    load: int
    load_pipelined: int
    store: int
    store_register_offset: int
    double: int
    multiple_base: int
    multiple_word: int
    taken_branch: int
    taken_call: int
    taken_return: int
    address_dependency: int
    special: int
    float_alu: int | None
    float_multiply_add: int | None
    float_divide: int | None
    source: str
    pairs: PairTiming | None = None
    load_use: int = 0


@dataclass(frozen=True)
class Validation:
    """How predicted cycles compared with published measurements of the same code on silicon.

    Attributes:
        points: number of published results; no figure of the model was fitted on any of them.
        mean_error_pct: mean of the absolute errors, in per cent of the published latency.
        worst_error_pct: the largest absolute error, in per cent of the published latency.
        text: which results, and whose.
    """

    points: int
    mean_error_pct: float
    worst_error_pct: float
    text: str


def read_timing(table: Table, *, has_fpu: bool) -> CoreTiming:
    """The `[timing]` table of a core file.

    Args:
        has_fpu: whether the core has a floating-point unit, whose figures are then demanded.

    Raises:
        DeployError: a key is unknown or missing, or a value out of range.
    """
    classes = _CLASSES + (_FLOAT_CLASSES if has_fpu else ())
    table.check_keys((*classes, "source"), ("pairs",))
    figures: dict[str, int | None] = dict.fromkeys(_FLOAT_CLASSES)
    figures |= {name: table.integer(name, 0, CYCLES_MAX) for name in classes}
    pairs = _read_pairs(table.table("pairs")) if "pairs" in table else None
    return CoreTiming(source=table.text("source"), pairs=pairs, **figures)  # type: ignore[arg-type]


def _read_pairs(table: Table) -> PairTiming:
    table.check_keys((*_PAIR_KEYS, "source"))
    figures = {name: table.integer(name, 0, CYCLES_MAX) for name in _PAIR_KEYS}
    return PairTiming(source=table.text("source"), **figures)


def read_riscv_timing(table: Table) -> CoreTiming:
    """The `[timing]` table of a RISC-V core file; classes that the architecture has not are never used.

    Raises:
        DeployError: a key is unknown or missing, or a value out of range.
    """
    table.check_keys((*_RISCV_CLASSES, "source"))
    figures: dict[str, int | None] = dict.fromkeys((*_CLASSES, *_FLOAT_CLASSES), 0)
    figures |= {name: table.integer(name, 0, CYCLES_MAX) for name in _RISCV_CLASSES}
    figures |= dict.fromkeys(_FLOAT_CLASSES) | {"load_pipelined": figures["load"]}
    return CoreTiming(source=table.text("source"), **figures)  # type: ignore[arg-type]


def read_validation(table: Table) -> Validation:
    """The `[validation]` table of a core or board file.

    Raises:
        DeployError: a key is unknown or missing, a value out of range, or the mean above the worst.
    """
    table.check_keys(tuple(Validation.__dataclass_fields__))
    found = Validation(
        points=table.integer("points", 1, POINTS_MAX),
        mean_error_pct=table.positive("mean_error_pct", PERCENT_MAX),
        worst_error_pct=table.positive("worst_error_pct", PERCENT_MAX),
        text=table.text("text"),
    )
    if found.mean_error_pct > found.worst_error_pct:
        hint = "allowed: mean_error_pct up to worst_error_pct"
        raise table.error("mean_error_pct", "the mean error is above the worst", hint)
    return found
