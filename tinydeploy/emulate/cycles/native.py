"""Counts a run with C callbacks, compiled at first use with the native compiler and kept by their hash."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tinydeploy.emulate.build import runtime_text
from tinydeploy.emulate.cpu import Cpu
from tinydeploy.emulate.cycles.loads import Load
from tinydeploy.emulate.cycles.trace import NOBODY, FlashCount, Plan, Trace, Way
from tinydeploy.emulate.toolchain import Toolchain, cache_folder, native_toolchain, run_tool
from tinydeploy.errors import DeployError

DISABLE_VARIABLE = "TINYDEPLOY_PURE_PYTHON"
_FLAGS = ("-O2", "-std=c99", "-shared", "-fPIC")
_SOURCE, _HEADER = "td_trace.c", "td_cache.h"


class _Block(ctypes.Structure):
    _fields_ = (
        ("address", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("owner", ctypes.c_int32),
        ("pad", ctypes.c_int32),
        ("times", ctypes.c_uint64),
        ("taken", ctypes.c_uint64),
    )


class _Flash(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("fetch_misses", "fetch_next", "reads", "read_misses")
    )


class _Access(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("base", "displacement", "unit", "literal")),
        *((name, ctypes.c_int32) for name in ("index", "shift", "condition", "size")),
    )


class NativeTracer:
    """A Tracer in C; to be made before the first call on its core.

    Args:
        library: what load_library gave.
        way: how reads of the flash are seen.
        loads: the loads of the image, for the way "addresses".
    """

    def __init__(self, library: Any, cpu: Cpu, plan: Plan, way: Way, loads: tuple[Load, ...] = ()) -> None:
        self._library, self._plan = library, plan
        caches = plan.caches
        owners = np.ascontiguousarray(plan.owner_at, np.int16)
        spans = np.array(plan.code, np.uint32).reshape(-1, 2)
        self._handle = library.td_open(
            spans.ctypes.data,
            len(spans),
            owners.ctypes.data,
            len(plan.owners),
            plan.first,
            *plan.flash,
            caches.line_bytes if caches else 0,
            caches.instruction_lines if caches else 0,
            caches.data_lines if caches else 0,
            int(caches is not None and caches.unified),
        )
        if not self._handle:
            raise DeployError("out of memory", where="the trace of a run")
        if plan.limit is not None:
            library.td_set_limit(self._handle, plan.limit, cpu.native_stop())
        cpu.hook_native("block", library.td_on_block, self._handle)
        if way == "reads":
            cpu.hook_native("read", library.td_on_read, self._handle, *plan.flash)
        elif way == "addresses":
            self._set_accesses(cpu, loads)
            for start, end in plan.code:
                cpu.hook_native("instruction", library.td_on_instruction, self._handle, start, end)
        # The core calls into the trace, so it has to outlive it.
        self._cpu = cpu

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.td_close(self._handle)

    def start(self) -> None:
        self._library.td_reset(self._handle)

    def trace(self) -> Trace:
        count = self._library.td_count(self._handle)
        if count < 0:
            raise DeployError("out of memory", where="the trace of a run")
        blocks, flash = (_Block * count)(), (_Flash * len(self._plan.owners))()
        self._library.td_results(self._handle, blocks, flash)
        return Trace(
            self._plan.owners,
            {(b.owner, b.address, b.size): (b.times, b.taken) for b in blocks},
            tuple(FlashCount(f.fetch_misses, f.fetch_next, f.reads, f.read_misses) for f in flash),
        )

    def stopped(self) -> bool:
        return bool(self._library.td_stopped(self._handle))

    def _set_accesses(self, cpu: Cpu, loads: tuple[Load, ...]) -> None:
        plan = self._plan
        at = np.full(len(plan.owner_at), NOBODY, np.int32)
        accesses = (_Access * max(1, len(loads)))()
        for number, load in enumerate(loads):
            at[plan.position(load.address)] = number
            accesses[number] = _Access(
                cpu.register_id(load.base) if load.base else 0,
                load.displacement & 0xFFFFFFFF,
                load.unit,
                load.literal,
                cpu.register_id(load.index) if load.index else 0,
                load.shift,
                load.condition,
                load.size,
            )
        name = cpu.architecture.call.flags
        flags = cpu.register_id(name) if name else 0
        given = (self._handle, at.ctypes.data, accesses, len(loads), cpu.native_register_reader(), flags)
        if not self._library.td_set_accesses(*given):
            raise DeployError("out of memory", where="the trace of a run")


@functools.cache
def load_library() -> Any | None:
    """The compiled callbacks, None where there is no native compiler or it makes nothing that loads.

    The environment variable TINYDEPLOY_PURE_PYTHON, set to anything, leaves them out.
    """
    if os.environ.get(DISABLE_VARIABLE) or sys.platform == "win32":
        return None
    try:
        library = ctypes.CDLL(str(_compiled(native_toolchain())))
    except (DeployError, OSError):
        return None
    pointer, word, number = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int32
    library.td_open.restype = pointer
    sizes = (word, word, word, number, number, number)
    library.td_open.argtypes = (pointer, word, pointer, number, number, *sizes)
    library.td_set_limit.argtypes = (pointer, ctypes.c_uint64, pointer)
    library.td_set_accesses.argtypes = (pointer, pointer, pointer, number, pointer, number)
    library.td_results.argtypes = (pointer, pointer, pointer)
    for function in (library.td_reset, library.td_close, library.td_count, library.td_stopped):
        function.argtypes = (pointer,)
    return library


def _compiled(toolchain: Toolchain) -> Path:
    """The shared library of this source, compiler and machine, compiled where it is not there yet."""
    texts = {name: runtime_text(name) for name in (_SOURCE, _HEADER)}
    identity = "\0".join(
        (*texts.values(), toolchain.version, *toolchain.command, *_FLAGS, os.uname().machine)
    )
    folder = cache_folder("trace")
    target = folder / f"td_trace-{hashlib.sha256(identity.encode()).hexdigest()[:32]}.so"
    if _is_ours(target):
        return target
    with tempfile.TemporaryDirectory(dir=folder) as work:
        built = Path(work) / target.name
        for name, text in texts.items():
            (Path(work) / name).write_text(text, encoding="ascii")
        command = (*toolchain.command, *_FLAGS, _SOURCE, "-o", built.name)
        run_tool(command, cwd=Path(work), doing=f"compiling the trace with {toolchain.version}")
        # Another process may do the same at the same time; a rename is whole or not at all.
        built.replace(target)
    return target


def _is_ours(path: Path) -> bool:
    """Whether the file is there and only we can have written it: it is going to be executed."""
    try:
        status, folder = path.stat(), path.parent.stat()
    except OSError:
        return False
    return all(s.st_uid == os.getuid() and not s.st_mode & 0o022 for s in (status, folder))
