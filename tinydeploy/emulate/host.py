"""Runs an exported model on this machine: the `host` core, and the sanitizers that no emulated core has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tinydeploy.emulate.abi import ModelAbi
from tinydeploy.emulate.build import runtime_text
from tinydeploy.emulate.toolchain import Toolchain, run_tool
from tinydeploy.errors import DeployError

_STATUS_BYTES = 4
_SANITIZE = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
_MESSAGE_LINES = 12


@dataclass(frozen=True)
class HostRun:
    """What ``NAME_run`` returned for one sample, and the bytes of each output."""

    outputs: tuple[bytes, ...]
    status: int


@dataclass(frozen=True)
class HostProgram:
    """A native program that runs one model over any number of samples."""

    executable: Path
    abi: ModelAbi
    compiler: str

    def run(
        self,
        samples: Sequence[Sequence[bytes]],
        *,
        place: Literal["arena", "outside"] = "arena",
        offset: int = 0,
    ) -> tuple[HostRun, ...]:
        """Runs all samples in one process.

        Args:
            samples: for each sample the bytes of each input.
            place: "arena" uses the places that ``NAME_input`` and ``NAME_output`` give; "outside" uses
                buffers that are allocated to the byte.
            offset: bytes that outside buffers lie behind a multiple of 16.

        Raises:
            DeployError: a sample has other sizes than the model's inputs, the program died, or a sanitizer
                found something (its first lines are the hint).
        """
        for sample in samples:
            sizes = tuple(len(data) for data in sample)
            if sizes != self.abi.input_bytes:
                fact = f"inputs of {sizes} bytes, and the model takes {self.abi.input_bytes}"
                raise DeployError(fact, where=self.abi.name)
        fed = b"".join(data for sample in samples for data in sample)
        # Leaks are looked for with ptrace, which containers forbid; the model allocates nothing.
        environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
        command = (str(self.executable), place, str(offset))
        done = subprocess.run(command, input=fed, capture_output=True, env=environment, check=False)
        if done.returncode != 0:
            lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
            raise DeployError(
                f"the model's program ended with status {done.returncode}",
                where=self.abi.name,
                hint="\n        ".join(lines[:_MESSAGE_LINES]),
            )
        return self._parse(done.stdout, len(samples))

    def _parse(self, data: bytes, samples: int) -> tuple[HostRun, ...]:
        each = _STATUS_BYTES + sum(self.abi.output_bytes)
        if len(data) != each * samples:
            raise DeployError(f"{len(data)} bytes of output, not {each * samples}", where=self.abi.name)
        runs = []
        for start in range(0, len(data), each):
            position = start + _STATUS_BYTES
            status = int.from_bytes(data[start:position], sys.byteorder, signed=True)
            outputs = []
            for size in self.abi.output_bytes:
                outputs.append(data[position : position + size])
                position += size
            runs.append(HostRun(tuple(outputs), status))
        return tuple(runs)


def build_host(
    project: Path,
    abi: ModelAbi,
    toolchain: Toolchain,
    out: Path,
    level: str = "-O2",
    *,
    sanitize: bool = False,
) -> HostProgram:
    """Compiles ``project`` with the native compiler into a program; nothing is written into ``project``.

    Args:
        project: folder of the exported C project.
        abi: its sources and entry points.
        toolchain: find_toolchain's answer for the host core.
        out: folder for the program; made where missing.
        level: the optimisation flag.
        sanitize: stop at the first address error or undefined behaviour.

    Raises:
        DeployError: it does not compile.
    """
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    harness, executable = out / "harness.c", out / f"{abi.name}{'-sanitized' if sanitize else ''}"
    harness.write_text(_harness(abi))
    flags = ["-std=c99", level, *(_SANITIZE if sanitize else ()), "-I", "."]
    command = [*toolchain.command, *flags, *abi.sources, str(harness), "-o", str(executable)]
    run_tool(command, cwd=project.resolve(), doing=f"compiling with {toolchain.version}")
    return HostProgram(executable, abi, toolchain.version)


def _harness(abi: ModelAbi) -> str:
    text = runtime_text("host_harness.c")
    values = {
        "NAME": abi.name,
        "INPUTS": str(len(abi.input_bytes)),
        "OUTPUTS": str(len(abi.output_bytes)),
        "SIZES": ", ".join(map(str, (*abi.input_bytes, *abi.output_bytes))),
        "PLACES": ", ".join(f"{symbol}()" for symbol in (*abi.input_symbols, *abi.output_symbols)),
    }
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text
