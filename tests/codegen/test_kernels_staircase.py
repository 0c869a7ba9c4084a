"""STAIRCASE in C equals the engine on every element: sanitized on this machine, and on emulated cores."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder, conv_2d
from native import assert_equals_engine, needs_compiler
from sweeps import by_turns

from tinydeploy.backends.c.project import ExportOptions
from tinydeploy.ir.graph import Graph
from tinydeploy.measure import Job
from tinydeploy.ops import Staircase
from tinydeploy.targets import load_target
from tinydeploy.verification import verify

needs_emulator = pytest.mark.skipif(
    importlib.util.find_spec("unicorn") is None
    or (shutil.which("arm-none-eabi-gcc") is None and importlib.util.find_spec("ziglang") is None),
    reason="the extra 'emulate' or a compiler for Arm is not installed",
)
STAIRS = {
    "one step": Staircase((3,), (-128, 127)),
    "three steps": Staircase((-110, -72, -24), (-128, -59, 18, 127)),
    "not ascending": Staircase((-5, 0, 90), (7, -7, 100, -100)),
    "always passed and never": Staircase((-128, 128), (1, 2, 3)),
    "fifteen steps": Staircase(tuple(range(-120, 120, 16)), tuple(range(-128, 128, 16))),
}


def graph_of(name: str, *, between: bool) -> Graph:
    """256 elements through a staircase; or 3x5 pixels with a convolution in front of it and behind it."""
    b = GraphBuilder(len(name))
    x = conv_2d(b, shape=(1, 3, 5, 4), outputs=6) if between else b.input((1, 4, 8, 8))
    y = b.node(STAIRS[name], [x], b.quantization())
    return b.graph(conv_2d(b, x=y, outputs=5) if between else y)


@needs_compiler
@pytest.mark.parametrize(("name", "between"), by_turns(STAIRS, [False, True]))
def test_in_plain_c(name: str, between: bool, tmp_path: Path) -> None:
    assert_equals_engine(graph_of(name, between=between), tmp_path)


@needs_emulator
@pytest.mark.parametrize(("name", "core"), by_turns(STAIRS, ["cortex-m4", "cortex-m0plus"]))
def test_on_a_core(name: str, core: str) -> None:
    described = load_target(core).core
    options = ExportOptions("net", core, "balanced", "0" * 64, dsp=described.dsp, narrow=described.narrow)
    every = np.arange(-128, 128, dtype=np.int8).reshape(1, 1, 4, 8, 8)
    job = Job(graph_of(name, between=False), options, described)
    result = verify(job, core, (every,), None)
    assert result.ok
    assert (result.mismatches, result.elements) == (0, 256)
