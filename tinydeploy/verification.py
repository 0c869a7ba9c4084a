"""`verify`: the numbers on the core are the numbers of the engine, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinydeploy.engine import run
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.measure import Job, Measurement, Progress, measure, silent


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        mismatches: emulated elements that differ from the engine, plus those that differ from `y`.
        notes: what the user should know, such as a `y` that was not compared.
    """

    target: str
    optimize: str
    samples: int
    elements: int
    mismatches: int
    measurement: Measurement
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        m = self.measurement
        return self.mismatches == 0 and not m.float_symbols and not m.faults and m.unaligned_ok

    def to_json(self) -> dict[str, object]:
        m = self.measurement
        sizes = m.sizes
        return {
            "target": self.target,
            "compiler": m.compiler,
            "optimize": self.optimize,
            "samples": self.samples,
            "elements": self.elements,
            "mismatches": self.mismatches,
            "instructions": m.instructions,
            **m.latency.to_json(),
            "arena_bytes": m.project.plan.arena_bytes,
            "arena_touched_bytes": m.arena_touched,
            "ram_bytes": m.ram_bytes,
            "stack_bytes": m.stack_bytes,
            "flash_bytes": None if sizes is None else sizes.flash,
            "flash_code_bytes": None if sizes is None else sizes.flash_code,
            "flash_weights_bytes": None if sizes is None else sizes.flash_weights,
            "init_instructions": m.init_instructions,
            "huffman": None if m.project.model.coding is None else m.project.model.coding.to_json(),
            "float_symbols": list(m.float_symbols),
            "unaligned_ok": m.unaligned_ok,
            "faults": list(m.faults),
            "ok": self.ok,
        }


def verify(
    job: Job,
    target: str,
    inputs: tuple[Array, ...],
    expected: Array | None,
    *,
    progress: Progress = silent,
) -> Verification:
    """Runs a model on its core and compares every output element.

    Args:
        inputs: one array per graph input, samples first.
        expected: `y` of the inputs file, compared where it has the output's shape and integer type.

    Raises:
        DeployError: the build failed, or the code did not come back.
    """
    measurement = measure(job, inputs, prove=True, progress=progress)
    engine = run(job.graph, inputs)
    pairs = zip(measurement.outputs, engine, strict=True)
    mismatches = sum(int(np.count_nonzero(a != b)) for a, b in pairs)
    notes: list[str] = []
    if expected is not None:
        comparable = _comparable(job.graph, expected, measurement.outputs[0])
        if comparable is None:
            notes.append(
                f"y ({expected.dtype}{list(expected.shape)}) was not compared: it has not the output's shape"
                " and integer type"
            )
        else:
            mismatches += int(np.count_nonzero(measurement.outputs[0] != comparable))
            notes.append("compared with the engine and with y")
    return Verification(
        target=target,
        optimize=job.options.optimize,
        samples=int(inputs[0].shape[0]),
        elements=sum(int(y.size) for y in engine),
        mismatches=mismatches,
        measurement=measurement,
        notes=tuple(notes),
    )


def _comparable(graph: Graph, y: Array, output: Array) -> Array | None:
    """`y` in the shape of the output, or None where it is something else, such as labels."""
    value = graph.value(graph.outputs[0])
    if len(graph.outputs) != 1 or y.dtype != value.dtype.numpy:
        return None
    if y.shape not in (output.shape, (output.shape[0], *value.shape[1:])):
        return None
    return y.reshape(output.shape)


def with_notes(result: Verification, notes: tuple[str, ...]) -> Verification:
    """The same result with more notes."""
    return replace(result, notes=(*result.notes, *notes))
