"""One exported model, built for a core and run there: what `verify` proves and `profile` reports."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from tinydeploy.backends.c.project import ExportOptions, Project, make_project
from tinydeploy.emulate.abi import ModelAbi
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.latency import Latency, latency_of, no_latency
from tinydeploy.placement import WeightsInRam, weights_in_ram
from tinydeploy.targets import Board, Core

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done, and how many there are."""

Source = Literal["emulated", "estimated"]

OPTIMIZE_LEVELS = {"latency": "-O2", "balanced": "-O2", "flash": "-Os", "ram": "-O2"}
"""The compiler's optimisation for each --optimize; the portable kernels are the same for all four."""

ALIGNMENT_OFFSETS = (1, 2, 3)
ALIGNMENT_SAMPLES = 4


def silent(what: str, done: int, total: int) -> None:
    """A Progress that shows nothing."""
    del what, done, total


@dataclass(frozen=True)
class Job:
    """What is measured: a graph, how it is exported, its core, and the board around that, if any."""

    graph: Graph
    options: ExportOptions
    core: Core
    compiler: str | None = None
    board: Board | None = None


@dataclass(frozen=True)
class Sizes:
    """Bytes of a linked model; the definitions are those of the design."""

    flash_code: int
    flash_weights: int
    static_ram: int
    arena: int

    @property
    def flash(self) -> int:
        return self.flash_code + self.flash_weights


@dataclass(frozen=True)
class Measurement:
    """What a run on a core gave.

    Attributes:
        outputs: one array per model output, (samples, *value.shape), as emulated.
        instructions, per_function, stack_bytes: of the first sample; None and empty on the host.
        init_instructions: of ``NAME_init``, once at start-up; None where there is none, and on the host.
        latency: cycles of the first sample, modelled.
        sizes: None on the host.
        float_symbols: what speaks against integer only; empty where it is proved.
        faults: what silicon would refuse, or what went wrong with memory.
        unaligned_ok: the outputs are equal with input and output at offsets 1, 2 and 3.
        code_bytes: of each function that was linked, by symbol; empty on the host.
        weights_in_ram: the same run with the weights in RAM, where that was asked for and has an answer.
        source: "estimated" where nothing was built and run; figures then come from cost functions, there are
            no outputs, and nothing is proved.
    """

    compiler: str
    project: Project
    outputs: tuple[Array, ...]
    instructions: int | None
    per_function: Mapping[str, int]
    stack_bytes: int | None
    arena_touched: int | None
    sizes: Sizes | None
    float_symbols: tuple[str, ...]
    faults: tuple[str, ...]
    unaligned_ok: bool
    latency: Latency
    code_bytes: Mapping[str, int] = field(default_factory=dict)
    weights_in_ram: WeightsInRam | None = None
    source: Source = "emulated"
    init_instructions: int | None = None

    @property
    def ram_bytes(self) -> int | None:
        """Arena, other static data and peak stack; the inputs and outputs lie in the arena."""
        if self.sizes is None or self.stack_bytes is None:
            return None
        return self.sizes.static_ram + self.stack_bytes


def measure(
    job: Job,
    inputs: tuple[Array, ...],
    *,
    prove: bool,
    placement: bool = False,
    progress: Progress = silent,
) -> Measurement:
    """Exports, builds and runs a model.

    Args:
        inputs: one array per graph input, samples first; the first sample is the one that is counted.
        prove: also run at odd addresses, and look for floating point.
        placement: also run on the board with the weights in RAM.

    Raises:
        DeployError: the build failed, or the code did not come back.
        MissingExtraError: no compiler or emulator is installed.
    """
    project = make_project(job.graph, job.options)
    with _written(project) as folder:
        abi = model_abi(project)
        if job.core.architecture == "host":
            return _on_host(job, project, abi, folder, inputs)
        return _on_core(job, project, abi, folder, inputs, prove, placement, progress)


def model_abi(project: Project) -> ModelAbi:
    """The calling convention of a project."""
    model = project.model
    return ModelAbi(
        name=model.name,
        input_bytes=tuple(p.value.bytes for p in model.inputs),
        output_bytes=tuple(p.value.bytes for p in model.outputs),
        arena_bytes=project.plan.arena_bytes,
        sources=(f"{model.name}.c", f"{model.name}_weights.c"),
        init=model.coding is not None,
    )


@contextmanager
def _written(project: Project) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tinydeploy-") as folder:
        for name, text in project.files.items():
            (Path(folder) / name).write_text(text, encoding="ascii")
        yield Path(folder)


def _on_core(
    job: Job,
    project: Project,
    abi: ModelAbi,
    folder: Path,
    inputs: tuple[Array, ...],
    prove: bool,
    placement: bool,
    progress: Progress,
) -> Measurement:
    # Imported here: a user who only exports has none of the emulator's packages.
    from tinydeploy.emulate.build import build  # noqa: PLC0415
    from tinydeploy.emulate.machine import Machine  # noqa: PLC0415
    from tinydeploy.emulate.proof import float_symbols, unsupported_instructions  # noqa: PLC0415
    from tinydeploy.emulate.toolchain import find_toolchain  # noqa: PLC0415

    count = inputs[0].shape[0]
    extra = min(count, ALIGNMENT_SAMPLES) * len(ALIGNMENT_OFFSETS) if prove else 0
    total = count + extra + 1
    progress("compiling", 0, total)
    toolchain = find_toolchain(job.core, job.compiler)
    level = OPTIMIZE_LEVELS[job.options.optimize]
    firmware = build(folder, abi, job.core, toolchain, folder / "build", level=level)
    machine = Machine(firmware, flash=job.board.flash if job.board else None)
    faults = list(unsupported_instructions(firmware))
    runs = []
    for i in range(count):
        progress("running", i + 1, total)
        runs.append(machine.run(_bytes(inputs, i), count=i == 0, cycles=i == 0))
    faults += [
        f"sample {i}: {job.options.name}_run returned {r.status}" for i, r in enumerate(runs) if r.status
    ]
    faults += [] if all(r.canary_intact for r in runs) else ["memory around the arena was written"]
    faults += [fault for r in runs for fault in r.faults]
    aligned = True
    if prove:
        for step, (i, offset) in enumerate(_unaligned(count)):
            progress("running at odd addresses", count + step + 1, total)
            run = machine.run(_bytes(inputs, i), place="outside", offset=offset, check_alignment=i == 0)
            faults += [f"input and output at offset {offset}: {fault}" for fault in run.faults]
            aligned = aligned and run.outputs == runs[i].outputs
    first, moved = runs[0], None
    if placement and job.board is not None:
        moved = weights_in_ram(firmware, job.board, _bytes(inputs, 0), first, folder / "weights-in-ram")
    return Measurement(
        compiler=firmware.compiler,
        project=project,
        outputs=_arrays(job.graph, [r.outputs for r in runs]),
        instructions=first.instructions,
        per_function=first.per_function,
        stack_bytes=first.stack_bytes,
        arena_touched=first.arena_touched,
        sizes=Sizes(
            firmware.flash_code_bytes,
            firmware.flash_weights_bytes,
            firmware.static_ram_bytes,
            abi.arena_bytes,
        ),
        float_symbols=float_symbols(firmware) if prove else (),
        faults=tuple(dict.fromkeys(faults)),
        unaligned_ok=aligned,
        latency=no_latency("") if first.cycles is None else latency_of(first.cycles, job.core, job.board),
        code_bytes={f.name: f.end - f.start for f in firmware.functions},
        weights_in_ram=moved,
        init_instructions=first.init_instructions,
    )


def _unaligned(count: int) -> Iterator[tuple[int, int]]:
    for i in range(min(count, ALIGNMENT_SAMPLES)):
        for offset in ALIGNMENT_OFFSETS:
            yield i, offset


def _on_host(
    job: Job, project: Project, abi: ModelAbi, folder: Path, inputs: tuple[Array, ...]
) -> Measurement:
    from tinydeploy.emulate.host import build_host  # noqa: PLC0415
    from tinydeploy.emulate.toolchain import find_toolchain  # noqa: PLC0415

    program = build_host(folder, abi, find_toolchain(job.core, job.compiler), folder / "build")
    samples = [_bytes(inputs, i) for i in range(inputs[0].shape[0])]
    runs = program.run(samples)
    few = samples[:ALIGNMENT_SAMPLES]
    aligned = all(
        a.outputs == b.outputs
        for offset in ALIGNMENT_OFFSETS
        for a, b in zip(program.run(few, place="outside", offset=offset), runs, strict=False)
    )
    bad = [f"sample {i}: {job.options.name}_run returned {r.status}" for i, r in enumerate(runs) if r.status]
    return Measurement(
        compiler=program.compiler,
        project=project,
        outputs=_arrays(job.graph, [r.outputs for r in runs]),
        instructions=None,
        per_function={},
        stack_bytes=None,
        arena_touched=None,
        sizes=None,
        float_symbols=(),
        faults=tuple(bad),
        unaligned_ok=aligned,
        latency=no_latency("the host has no model of cycles"),
    )


def _bytes(inputs: tuple[Array, ...], sample: int) -> tuple[bytes, ...]:
    return tuple(x[sample].tobytes() for x in inputs)


def _arrays(graph: Graph, outputs: list[tuple[bytes, ...]]) -> tuple[Array, ...]:
    arrays = []
    for i, name in enumerate(graph.outputs):
        value = graph.value(name)
        data = b"".join(sample[i] for sample in outputs)
        arrays.append(np.frombuffer(data, value.dtype.numpy).reshape(-1, *value.shape))
    return tuple(arrays)


def require_optimize(optimize: str) -> None:
    """Raises DeployError for an --optimize that does not exist."""
    if optimize not in OPTIMIZE_LEVELS:
        raise DeployError(
            f"{optimize!r} is no optimization goal",
            where="--optimize",
            hint=f"one of {', '.join(OPTIMIZE_LEVELS)}",
        )
