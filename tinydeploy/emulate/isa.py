"""Which core has which Thumb instruction, judged by encoding where that is simple and by name where not."""

from __future__ import annotations

from tinydeploy.targets import Core

_PARALLEL = {
    f"{prefix}{operation}"
    for prefix in ("s", "q", "sh", "u", "uq", "uh")
    for operation in ("add16", "add8", "asx", "sax", "sub16", "sub8")
}
_HALVES = ("bb", "bt", "tb", "tt")
_DSP = (
    _PARALLEL
    | {"sel", "usad8", "usada8", "pkhbt", "pkhtb", "ssat16", "usat16", "umaal"}
    | {"qadd", "qsub", "qdadd", "qdsub"}
    | {"sxtab", "sxtab16", "sxtah", "sxtb16", "uxtab", "uxtab16", "uxtah", "uxtb16"}
    | {f"{stem}{half}" for stem in ("smla", "smlal", "smul") for half in _HALVES}
    | {f"{stem}{half}" for stem in ("smlaw", "smulw") for half in ("b", "t")}
    | {f"{stem}{x}" for stem in ("smlad", "smlald", "smlsd", "smlsld", "smuad", "smusd") for x in ("", "x")}
    | {f"{stem}{r}" for stem in ("smmla", "smmls", "smmul") for r in ("", "r")}
)
_FROM_V8M = {"tt", "ttt", "tta", "ttat", "sg", "bxns", "blxns", "vlldm", "vlstm"}
_FROM_V8M_STEMS = ("lda", "stl")
# What the disassembler knows from the other profiles of the architecture.
_IN_NO_M = {"smc", "hvc", "hlt", "bxj", "eret", "setend", "ldrexd", "strexd", "ldaexd", "stlexd"}
_IN_NO_M_STEMS = ("crc32", "dcps", "rfe", "srs")


def is_float(code: bytes) -> bool:
    """Whether the instruction belongs to the floating-point extension (coprocessors 10 and 11)."""
    first, second = _halves(code)
    return first & 0xEC00 == 0xEC00 and first & 0xEF00 != 0xEF00 and (second >> 8) & 0xE == 0xA


def why_unsupported(core: Core, code: bytes, name: str | None, text: str = "") -> str | None:
    """Why ``core`` cannot execute an instruction, or None where it can.

    Args:
        core: the core.
        code: the instruction, 2 or 4 bytes.
        name: its mnemonic without condition and width, or None where the disassembler does not know it.
        text: the whole mnemonic, with its data type (``vadd.f64``).
    """
    first, second = _halves(code)
    is_v8 = core.architecture == "armv8-m.main"
    is_other_profile = name in _IN_NO_M or (name or "").startswith(_IN_NO_M_STEMS)
    needs_v8 = name in _FROM_V8M or (name or "").startswith(_FROM_V8M_STEMS)
    is_vector = first & 0xEC00 == 0xEC00 or first & 0xFF10 == 0xF900
    if is_float(code) and name is not None:
        return _why_no_float(core, first, second, text)
    reasons = (
        (name is None, "not a known instruction"),
        (core.architecture == "armv6-m" and not _in_v6m(code), "not in Armv6-M"),
        (is_other_profile, "not in any M-profile core"),
        (needs_v8 and not is_v8, "not before Armv8-M"),
        (name in _DSP and not core.dsp, "the core has no DSP extension"),
        (is_vector, "the core has no such coprocessor or vector unit"),
    )
    return next((reason for applies, reason in reasons if applies), None)


def _why_no_float(core: Core, first: int, second: int, text: str) -> str | None:
    if core.fpu == "none":
        return "the core has no floating-point unit"
    single = core.fpu.endswith("sp-d16")
    computes = first & 0xEF00 == 0xEE00 and not second & 0x10
    if single and computes and (second >> 8) & 0xF == 0xB and ".f64" in text:
        return "the core has no double precision"
    if core.fpu.startswith("fpv4") and first & 0xFF00 == 0xFE00:
        return "not in FPv4"
    return None


def _in_v6m(code: bytes) -> bool:
    """Armv6-M: Thumb-1 without CBZ, CBNZ and IT, and six 32-bit instructions."""
    first, second = _halves(code)
    if len(code) == 2:
        is_cbz = first & 0xF500 == 0xB100
        is_it = first & 0xFF00 == 0xBF00 and first & 0xF != 0
        return not (is_cbz or is_it)
    is_bl = first & 0xF800 == 0xF000 and second & 0xD000 == 0xD000
    is_msr = first & 0xFFF0 == 0xF380 and second & 0xFF00 == 0x8800
    is_mrs = first == 0xF3EF and second & 0xF000 == 0x8000
    is_barrier = first == 0xF3BF and 0x8F40 <= second <= 0x8F6F
    is_udf = first & 0xFFF0 == 0xF7F0 and second & 0xF000 == 0xA000
    return is_bl or is_msr or is_mrs or is_barrier or is_udf


def _halves(code: bytes) -> tuple[int, int]:
    return int.from_bytes(code[:2], "little"), int.from_bytes(code[2:4], "little")
