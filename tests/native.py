"""Builds generated C with the native compiler, every warning an error and sanitizers on, and compares."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graphs import random_inputs

from tinydeploy.backends.c.project import ExportOptions, Project, make_project
from tinydeploy.emulate.host import HostProgram, build_host
from tinydeploy.emulate.toolchain import Toolchain, find_toolchain
from tinydeploy.engine import run
from tinydeploy.ir.forms import Signs
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.ir.verify import verify
from tinydeploy.measure import model_abi
from tinydeploy.targets import load_target

WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wundef", "-Wvla", "-Werror")
PLACES = (("arena", 0), ("outside", 0), ("outside", 3))

needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("cc", "gcc", "clang")),
    reason="no native compiler with sanitizers",
)


def toolchain() -> Toolchain:
    """The native compiler, with warnings as errors."""
    found = find_toolchain(load_target("host").core)
    return replace(found, command=(*found.command, *WARNINGS))


def project_of(graph: Graph, name: str = "net") -> Project:
    return make_project(graph, ExportOptions(name, "host", "latency", "0" * 64))


def write(project: Project, folder: Path) -> Path:
    """The files of a project in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in project.files.items():
        (folder / name).write_text(text, encoding="ascii", newline="\n")
    return folder


def telling_inputs(graph: Graph, samples: int = 3) -> tuple[Array, ...]:
    """A ramp through all values, all low, all high, low and high by turns, then random samples."""
    inputs = []
    for i, (name, noise) in enumerate(zip(graph.inputs, random_inputs(graph, samples, 11), strict=True)):
        value = graph.value(name)
        low, high = value.limits
        ramp = (np.arange(value.elements) % (high - low + 1) + low).reshape(value.shape)
        fixed = [ramp, *(np.full(value.shape, v) for v in (low, high, (low, high)[i % 2]))]
        told = np.concatenate([np.array(fixed, value.dtype.numpy), noise])
        inputs.append(np.where(told > 0, 1, -1).astype(np.int8) if isinstance(value.form, Signs) else told)
    return tuple(inputs)


def build(graph: Graph, folder: Path, level: str = "-O1") -> HostProgram:
    project = project_of(graph)
    written = write(project, folder / "project")
    return build_host(written, model_abi(project), toolchain(), folder / "build", level, sanitize=True)


def assert_equals_engine(graph: Graph, folder: Path, level: str = "-O1") -> None:
    """0 differences to the integer engine, in the arena, in buffers to the byte, and at an odd address."""
    verify(graph)
    program = build(graph, folder, level)
    inputs = telling_inputs(graph)
    samples = [tuple(x[i].tobytes() for x in inputs) for i in range(len(inputs[0]))]
    expected = run(graph, inputs)
    for place, offset in PLACES:
        runs = program.run(samples, place="arena" if place == "arena" else "outside", offset=offset)
        assert {r.status for r in runs} == {0}
        for i, y in enumerate(expected):
            got = np.frombuffer(b"".join(r.outputs[i] for r in runs), y.dtype).reshape(y.shape)
            wrong = np.argwhere(got != y)
            assert not len(wrong), (
                f"{place}+{offset}: output {i} differs in {len(wrong)} of {y.size} elements, first at"
                f" {wrong[0].tolist()}: {got[tuple(wrong[0])]} for {y[tuple(wrong[0])]}"
            )
