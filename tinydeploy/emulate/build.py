"""Compiles an exported C project and links it, without start-up code, into a firmware for one core."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from tinydeploy.emulate.abi import ModelAbi
from tinydeploy.emulate.arch import architecture_of
from tinydeploy.emulate.image import Image, Symbol, read_image
from tinydeploy.emulate.toolchain import Toolchain, run_tool
from tinydeploy.errors import DeployError
from tinydeploy.targets import Core

_ARENA_SLACK = 3
_COMMON = (
    "-std=c99",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-common",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
)
# No -fno-tree-loop-distribute-patterns: with it GCC 12 copies byte by byte, 4 instructions a byte in a long
# loop where memcpy takes 0.8, and 15 instead of 9 for a row of 12 bytes on a Cortex-M4. A user's own build
# has it not either.
# zig's bare-metal targets imply -ffreestanding, which makes a call of every 4-byte memcpy; -fhosted takes
# that back. It also keeps a frame pointer and traps undefined behaviour, which no release build does.
_ZIG_ONLY = ("-fhosted", "-fomit-frame-pointer", "-fno-sanitize=undefined", "-fno-stack-protector")


@dataclass(frozen=True)
class Function:
    """A function of the linked firmware: code addresses ``start`` (included) to ``end`` (excluded)."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Firmware:
    """A linked model and its sizes, taken from the ELF file; harness and vectors are not in it.

    Attributes:
        elf: the linked file.
        project: the folder of the C project.
        abi, core, toolchain, level: what it was built with.
        objects: the model's own object files.
        image: the ELF file's contents.
        functions: all functions, by address.
        flash_code_bytes: allocated sections that are stored, without the weights.
        flash_weights_bytes: the constants of ``NAME_weights.c`` that the link kept.
        static_ram_bytes: all writable data, the arena included.
        arena: the arena's symbol, None for a model without an arena.
    """

    elf: Path
    project: Path
    abi: ModelAbi
    core: Core
    toolchain: Toolchain
    level: str
    objects: tuple[Path, ...]
    image: Image
    functions: tuple[Function, ...]
    flash_code_bytes: int
    flash_weights_bytes: int
    static_ram_bytes: int
    arena: Symbol | None

    @property
    def compiler(self) -> str:
        """Name and version of the compiler."""
        return self.toolchain.version

    @property
    def flash_bytes(self) -> int:
        """All allocated sections but .bss, of the model and of what it pulls in."""
        return self.flash_code_bytes + self.flash_weights_bytes


def build(
    project: Path, abi: ModelAbi, core: Core, toolchain: Toolchain, out: Path, *, level: str = "-O2"
) -> Firmware:
    """Compiles and links ``project`` for ``core``; nothing is written into ``project``.

    Args:
        project: folder of the exported C project.
        abi: its sources and entry points.
        core: the core to build for, not "host".
        toolchain: the compiler, from find_toolchain.
        out: folder for objects and the ELF file; made where missing.
        level: the optimisation flag.

    Raises:
        DeployError: the compiler or linker failed (its first lines are the hint), or the arena's object has
            not the size that ``abi`` states.
        MissingExtraError: pyelftools is not installed.
    """
    if core.architecture == "host":
        raise DeployError("the host core has no firmware", where=core.name, hint="use build_host")
    out = out.resolve()
    flags = compile_flags(toolchain, core)
    objects = compile_objects(project, abi, toolchain, (*flags, level), out)
    memory = _compile_memory(toolchain, (*flags, level), out)
    elf = _link(abi, toolchain, flags, (*objects, memory), out)
    image = read_image(elf)
    for name in abi.entry_symbols:
        image.symbol(name)
    weights_bytes = _weights_bytes(image)
    return Firmware(
        elf=elf,
        project=project,
        abi=abi,
        core=core,
        toolchain=toolchain,
        level=level,
        objects=objects,
        image=image,
        functions=_functions(image),
        flash_code_bytes=sum(section.size for section in image.sections if section.stored) - weights_bytes,
        flash_weights_bytes=weights_bytes,
        static_ram_bytes=sum(section.size for section in image.sections if section.writable),
        arena=_arena(image, abi),
    )


def compile_objects(
    project: Path, abi: ModelAbi, toolchain: Toolchain, flags: Sequence[str], out: Path
) -> tuple[Path, ...]:
    """Compiles the model's sources, one object file each, in the order of ``abi.sources``.

    Raises:
        DeployError: a source is missing or does not compile.
    """
    out.mkdir(parents=True, exist_ok=True)
    for source in abi.sources:
        if not (project / source).is_file():
            raise DeployError(f"the project has no file {source!r}", where=str(project))

    def compile_one(source: str) -> Path:
        target = out / Path(source).with_suffix(".o").name
        command = (*toolchain.command, *flags, *_dialect(toolchain), "-I", ".", "-c", source)
        doing = f"compiling {source} with {toolchain.version}"
        run_tool((*command, "-o", str(target)), cwd=project.resolve(), doing=doing)
        return target

    with ThreadPoolExecutor() as pool:
        return tuple(pool.map(compile_one, abi.sources))


def compile_flags(toolchain: Toolchain, core: Core) -> tuple[str, ...]:
    """The flags that select ``core``, and those that its instruction set needs in this compiler."""
    needed = architecture_of(core).gcc_dialect if toolchain.kind == "gcc" else ()
    return (*toolchain.flags_for(core), *needed)


def _dialect(toolchain: Toolchain) -> tuple[str, ...]:
    return _COMMON + (_ZIG_ONLY if toolchain.kind == "zig" else ())


def _compile_memory(toolchain: Toolchain, flags: Sequence[str], out: Path) -> Path:
    """Compiles memcpy and its kin; in them a loop must not become a call of itself."""
    target, source = out / "td_memory.o", out / "td_memory.c"
    source.write_text(runtime_text("td_memory.c"))
    own = ["-ffreestanding", "-fno-builtin"]
    own += ["-fno-tree-loop-distribute-patterns"] if toolchain.kind == "gcc" else []
    command = (*toolchain.command, *flags, *_dialect(toolchain), *own, "-c", source.name, "-o", str(target))
    run_tool(command, cwd=out, doing=f"compiling the memory functions with {toolchain.version}")
    return target


def _link(
    abi: ModelAbi, toolchain: Toolchain, flags: Sequence[str], objects: Iterable[Path], out: Path
) -> Path:
    script, elf = out / "link.ld", out / f"{abi.name}.elf"
    text = runtime_text("link.ld").replace("@EXTERN@", " ".join(abi.entry_symbols))
    text = text.replace("@WEIGHTS@", Path(abi.weights_source).with_suffix(".o").name)
    script.write_text(text.replace("@ARENA@", abi.arena_symbol))
    command = [*toolchain.command, *flags, "-static", "-T", str(script)]
    # zig ignores the script's ENTRY, so the entry is a flag for both.
    command += ["-Wl,--gc-sections", f"-Wl,-e,{abi.run_symbol}", *map(str, objects)]
    # zig brings its compiler_rt along only without -nostdlib.
    command += ["-nostdlib", "-lgcc"] if toolchain.kind == "gcc" else []
    run_tool([*command, "-o", str(elf)], cwd=out, doing=f"linking with {toolchain.version}")
    return elf


def _weights_bytes(image: Image) -> int:
    """The constants of the weights' section by their symbols; what pads them to their alignment is code."""
    weights = {section.index for section in image.sections if section.name == ".weights"}
    return sum({(s.address, s.size): s.size for s in image.symbols if s.section in weights}.values())


def _functions(image: Image) -> tuple[Function, ...]:
    found = image.functions
    ends = [following.address for following in found[1:]] + [0]
    return tuple(
        Function(symbol.name, symbol.address, symbol.address + symbol.size if symbol.size else end)
        for symbol, end in zip(found, ends, strict=True)
    )


def _arena(image: Image, abi: ModelAbi) -> Symbol | None:
    if abi.arena_bytes == 0 and not image.has_symbol(abi.arena_symbol):
        return None
    arena = image.symbol(abi.arena_symbol)
    if not abi.arena_bytes <= arena.size <= abi.arena_bytes + _ARENA_SLACK:
        fact = f"the arena's object has {arena.size} bytes and the model states {abi.arena_bytes}"
        raise DeployError(fact, where=abi.arena_symbol)
    if image.sections and not any(s.name == ".arena" and s.index == arena.section for s in image.sections):
        raise DeployError("the arena is not a zero-initialised object of its own", where=abi.arena_symbol)
    return arena


def runtime_text(name: str) -> str:
    """The text of a file of the package's ``runtime`` folder."""
    return resources.files("tinydeploy.emulate").joinpath("runtime", name).read_text()
