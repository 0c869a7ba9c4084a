"""Finds a compiler for a core and runs it, with or without an installed GNU toolchain."""

from __future__ import annotations

import functools
import importlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tinydeploy.errors import DeployError, MissingExtraError
from tinydeploy.targets import Core

Kind = Literal["gcc", "zig", "host"]
FORCE_VARIABLE = "TINYDEPLOY_COMPILER"
_MESSAGE_LINES = 8


@dataclass(frozen=True)
class Toolchain:
    """A compiler that was found.

    Attributes:
        kind: "gcc" (the GNU cross compiler), "zig" (the pip package ziglang) or "host" (the native compiler).
        command: the words that start the compiler, before any flag.
        version: name and version, such as ``arm-none-eabi-gcc 12.2.1``.
    """

    kind: Kind
    command: tuple[str, ...]
    version: str

    def flags_for(self, core: Core) -> tuple[str, ...]:
        """The flags that select ``core`` in this compiler."""
        if self.kind == "host":
            return ()
        return core.gcc_flags if self.kind == "gcc" else core.zig_flags


def find_toolchain(core: Core, prefer: str | None = None) -> Toolchain:
    """The compiler to use for ``core``: its GNU cross compiler on PATH, else ziglang from pip.

    Args:
        core: the core to compile for; the "host" architecture gives the native compiler.
        prefer: "gcc" or "zig" to take that one and no other; by default the environment
            variable TINYDEPLOY_COMPILER decides, where it is set.

    Raises:
        MissingExtraError: neither compiler is there.
        DeployError: the compiler that was asked for is unknown or not on PATH.
    """
    if core.architecture == "host":
        return native_toolchain()
    wanted = prefer or os.environ.get(FORCE_VARIABLE) or None
    if wanted not in (None, "gcc", "zig"):
        raise DeployError(f"unknown compiler {wanted!r}", where=FORCE_VARIABLE, hint="gcc or zig")
    gcc = shutil.which(core.gcc)
    if wanted != "zig" and gcc is not None:
        return Toolchain("gcc", (gcc,), f"{core.gcc} {_output(gcc, '-dumpfullversion')}")
    if wanted == "gcc":
        hint = "install it, or choose zig (pip install ziglang)"
        raise DeployError(f"{core.gcc} is not on PATH", hint=hint)
    return _zig_toolchain()


def missing_toolchain(cores: Sequence[Core]) -> MissingExtraError | None:
    """What is said where a core has no compiler here."""
    for core in cores:
        try:
            find_toolchain(core)
        except MissingExtraError as error:
            return error
    return None


def load_extra(module: str, package: str) -> Any:
    """Imports ``module`` of the optional pip package ``package`` when it is needed and not before.

    Raises:
        MissingExtraError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(package, "emulate", "running code for a core") from error


def run_tool(command: Sequence[str], *, cwd: Path, doing: str) -> str:
    """Runs a compiler or linker and returns its standard output.

    Raises:
        DeployError: it failed; the first lines of its message are the hint.
    """
    env = tool_environment()
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, errors="replace", check=False)
    if done.returncode != 0:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise DeployError(f"{doing} failed", where=cwd.name, hint="\n        ".join(lines[:_MESSAGE_LINES]))
    return done.stdout


def tool_environment() -> Mapping[str, str]:
    """The environment for a compiler: zig needs a cache folder even where there is no home."""
    environment = dict(os.environ)
    folder = str(cache_folder("zig"))
    environment.setdefault("ZIG_GLOBAL_CACHE_DIR", folder)
    environment.setdefault("ZIG_LOCAL_CACHE_DIR", folder)
    return environment


def cache_folder(name: str) -> Path:
    """A folder that can be written: in the user's cache, else a private one in the system's temporary folder.

    Args:
        name: what is kept there.

    Raises:
        DeployError: there is none.
    """
    cache, home = os.environ.get("XDG_CACHE_HOME"), os.environ.get("HOME")
    user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    places = [Path(cache) / "tinydeploy" / name] if cache else []
    if home:
        places.append(Path(home) / ".cache" / "tinydeploy" / name)
    places.append(Path(tempfile.gettempdir()) / f"tinydeploy-{user}" / name)
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir(mode=0o700, exist_ok=True)
        except OSError:
            continue
        if os.access(place, os.W_OK):
            return place
    raise DeployError("no folder for the compiler's cache can be written", hint="set XDG_CACHE_HOME")


def _zig_command() -> tuple[str, ...]:
    return (sys.executable, "-m", "ziglang")


def _zig_toolchain() -> Toolchain:
    load_extra("ziglang", "ziglang")
    return Toolchain("zig", (*_zig_command(), "cc"), f"zig cc {_output(*_zig_command(), 'version')}")


def native_toolchain() -> Toolchain:
    """The native compiler: CC, else cc, gcc or clang on PATH, else zig's.

    Raises:
        MissingExtraError: there is none.
        DeployError: CC names one that is not there.
    """
    named = os.environ.get("CC")
    for candidate in (named, "cc", "gcc", "clang"):
        words = shlex.split(candidate) if candidate else []
        found = shutil.which(words[0]) if words else None
        if found is not None:
            command = (found, *words[1:])
            return Toolchain("host", command, _output(*command, "--version").splitlines()[0])
        if named and candidate == named:
            raise DeployError(f"the compiler {named!r} is not on PATH", where="CC")
    zig = _zig_toolchain()
    return Toolchain("host", zig.command, zig.version)


@functools.cache
def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, env=tool_environment(), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise DeployError(f"the compiler does not start: {error}", where=command[0]) from error
    return done.stdout.strip()
