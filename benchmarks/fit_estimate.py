"""Fits the cost functions of `profile --estimate` and writes them into the package.

    python benchmarks/fit_estimate.py [--cores cortex-m4,...] [--check ../shared/data/models]

Seeded layers of every kind are exported, built with GCC at -O2 and run on each core with timings, once for
every kind of flash of the shipped boards. For each kernel the cycles, and the lines that each flash misses,
become sums of the features of tinydeploy/estimate/features.py with factors that are not negative, by least
squares of the relative error. The error that is stated is that of whole networks that nothing was fitted on.
To be run again whenever kernels, compiler flags, timings or boards change; it takes some minutes a core.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fit_shapes import layer_graphs, networks

from tinydeploy.backends.c.layer import Layer
from tinydeploy.backends.c.project import ExportOptions, make_project
from tinydeploy.data import random_samples
from tinydeploy.emulate.build import Firmware, build
from tinydeploy.emulate.cycles.model import flash_cycles
from tinydeploy.emulate.cycles.trace import FlashCount
from tinydeploy.emulate.machine import Machine
from tinydeploy.emulate.toolchain import find_toolchain
from tinydeploy.estimate.costs import FILE, cost, flash_key
from tinydeploy.estimate.features import layer_features, read_features
from tinydeploy.ir.graph import Graph
from tinydeploy.measure import model_abi
from tinydeploy.model import load_model
from tinydeploy.targets import Core, FlashTiming, list_targets

OUT = Path(__file__).resolve().parent.parent / "tinydeploy" / "estimate" / FILE
DIGITS = 5
Boards = dict[str, list[FlashTiming]]
FEWEST_LAYERS = 3


@dataclass
class Row:
    """One layer as it was run.

    Attributes:
        cycles: issue and branches.
        lines: missed in each kind of flash by its key.
        reads: the features that missed reads grow with, by the same key.
    """

    kernel: str
    features: Mapping[str, float]
    cycles: tuple[int, int]
    instructions: int
    code_bytes: int
    stack_bytes: int
    lines: dict[str, FlashCount]
    reads: dict[str, Mapping[str, float]]


@dataclass
class Ran:
    """One graph as it was run."""

    name: str
    rows: list[Row]
    base_bytes: int
    compiler: str


def nonnegative(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares with factors that are not negative: Lawson and Hanson, Solving Least Squares Problems."""
    count = a.shape[1]
    x, passive = np.zeros(count), np.zeros(count, bool)
    gradient = a.T @ (y - a @ x)
    for _ in range(10 * count):
        if passive.all() or gradient[~passive].max(initial=-1) <= 1e-9:
            break
        passive[np.flatnonzero(~passive)[np.argmax(gradient[~passive])]] = True
        while True:
            trial = np.zeros(count)
            trial[passive] = np.linalg.lstsq(a[:, passive], y, rcond=None)[0]
            negative = passive & (trial <= 0)
            if not negative.any():
                break
            step = (x[negative] / (x[negative] - trial[negative])).min()
            x += step * (trial - x)
            passive &= x > 1e-12
            x[~passive] = 0
        x = trial
        gradient = a.T @ (y - a @ x)
    return x


def fitted(
    features: list[Mapping[str, float]], values: Iterable[float], scale: Iterable[float]
) -> dict[str, float]:
    """Factors of the features of some layers; `scale` is what an error is relative to."""
    weights = 1 / np.maximum(1.0, np.fromiter(scale, float))
    names = sorted({name for found in features for name in found})
    a = np.array([[found.get(name, 0.0) for name in names] for found in features])
    y = np.fromiter(values, float)
    used = a.any(axis=0)
    units = np.where(used, np.abs(a * weights[:, None]).max(axis=0), 1.0)
    factors = nonnegative(a[:, used] * weights[:, None] / units[used], y * weights) / units[used]
    there = [name for name, there in zip(names, used, strict=True) if there]
    return {n: float(f"{f:.{DIGITS}g}") for n, f in zip(there, factors, strict=True) if f > 0}


def run_graph(graph: Graph, core: Core, flashes: Mapping[str, FlashTiming], *, fast: bool = True) -> Ran:
    """Builds a graph and runs it, with memory that never waits and with each flash.

    Args:
        fast: with the kernels that the core has beside the portable ones.
    """
    options = ExportOptions("fit", core.name, "latency", "", fast and core.dsp, narrow=fast and core.narrow)
    project = make_project(graph, options)
    abi = model_abi(project)
    inputs = [x[0].tobytes() for x in random_samples(graph, 1, 0)]
    with tempfile.TemporaryDirectory() as folder:
        for name, text in project.files.items():
            (Path(folder) / name).write_text(text, encoding="ascii")
        firmware = build(Path(folder), abi, core, find_toolchain(core, "gcc"), Path(folder) / "out")
        run = Machine(firmware).run(inputs, count=True, cycles=True)
        assert run.cycles is not None and run.cycles.per_function is not None, run.cycles
        missed = {}
        for key, flash in flashes.items():
            found = Machine(firmware, flash=flash).run(inputs, count=True, cycles=True).cycles
            assert found is not None and found.per_function is not None, found
            missed[key] = found.flash
    rows = []
    for layer in project.model.layers:
        cycles = run.cycles.per_function.get(layer.function)
        if cycles is None:
            continue
        features = layer_features(project.model.graph, layer)
        rows.append(
            Row(
                layer.code.kernel,
                features,
                (cycles.issue, cycles.branches),
                run.per_function[layer.function],
                _code_bytes(firmware, layer),
                run.stack_bytes,
                {key: lines[layer.function] for key, lines in missed.items()},
                {key: read_features(features, layer, flash) for key, flash in flashes.items()},
            )
        )
    base = firmware.flash_code_bytes - sum(row.code_bytes for row in rows)
    return Ran(graph.name, rows, base, firmware.compiler)


def _code_bytes(firmware: Firmware, layer: Layer) -> int:
    name = layer.function
    return sum(f.end - f.start for f in firmware.functions if f.name == name or f.name.startswith(f"{name}."))


def fit_core(core: Core, boards: Boards, report: dict[str, object]) -> dict[str, object]:
    """The costs of one core: its part of the file, and `flash` entries put into `report`."""
    kinds = {key: flashes[0] for key, flashes in boards.items()}
    layers = [run_graph(g, core, kinds) for g in layer_graphs(linear_only=False)]
    if core.dsp or core.narrow:
        layers += [run_graph(g, core, kinds, fast=False) for g in layer_graphs(linear_only=True)]
    by_kernel: dict[str, list[Row]] = defaultdict(list)
    for ran in layers:
        for row in ran.rows:
            by_kernel[row.kernel].append(row)
    held = [run_graph(g, core, kinds) for g in networks()]
    kernels: dict[str, dict[str, object]] = {}
    missed: dict[str, dict[str, dict[str, dict[str, float]]]] = {key: {} for key in kinds}
    for name, rows in sorted(by_kernel.items()):
        if len(rows) < FEWEST_LAYERS:
            print(f"  {name}: only {len(rows)} layers, left out", file=sys.stderr)
            continue
        total = [sum(row.cycles) for row in rows]
        counts = [row.features for row in rows]
        kernels[name] = {
            "issue": fitted(counts, (row.cycles[0] for row in rows), total),
            "branches": fitted(counts, (row.cycles[1] for row in rows), total),
            "instructions": fitted(counts, (r.instructions for r in rows), (r.instructions for r in rows)),
            "code_bytes": round(float(np.mean([row.code_bytes for row in rows]))),
            "stack_bytes": max(row.stack_bytes for row in rows),
        }
        for key, flash in kinds.items():
            lines = [row.lines[key] for row in rows]
            waits = [flash_cycles(count, flash).total for count in lines]
            # An error in lines counts as the cycles that it becomes.
            scale = [(t + w) / (flash.wait_states + 1) for t, w in zip(total, waits, strict=True)]
            missed[key][name] = {
                "fetch": fitted(counts, (count.fetch_misses for count in lines), scale),
                "following": fitted(counts, (count.fetch_next for count in lines), scale),
                "read": fitted(
                    [row.reads[key] for row in rows], (count.read_misses for count in lines), scale
                ),
            }
        errors = [abs(predicted(row, kernels) / sum(row.cycles) - 1) for row in rows]
        print(f"  {name}: {len(rows)} layers, mean {np.mean(errors):.1%}, worst {max(errors):.1%}")
    flash_report = report["flash"]
    assert isinstance(flash_report, dict)
    for key, flashes in boards.items():
        found = [held_out(held, kernels, missed[key], key, flash) for flash in flashes]
        flash_report[key] = {"kernels": missed[key], "held_out": max(found, key=_worst)}
    return {
        "kernels": kernels,
        "base_bytes": round(float(np.mean([ran.base_bytes for ran in held]))),
        "compiler": layers[0].compiler,
        "held_out": held_out(held, kernels, None, core.name, None),
    }


def predicted(
    row: Row,
    kernels: Mapping[str, Mapping],
    missed: Mapping[str, Mapping] | None = None,
    key: str = "",
    flash: FlashTiming | None = None,
) -> float:
    """The cycles of one layer by the cost functions."""
    own = sum(cost(kernels[row.kernel][part], row.features) for part in ("issue", "branches"))
    if missed is None or flash is None:
        return own
    parts = missed[row.kernel]
    fetch, following = (round(cost(parts[part], row.features)) for part in ("fetch", "following"))
    read = round(cost(parts["read"], row.reads[key]))
    return own + flash_cycles(FlashCount(fetch, following, 0, read), flash).total


def held_out(
    held: list[Ran],
    kernels: Mapping[str, Mapping],
    missed: Mapping[str, Mapping] | None,
    key: str,
    flash: FlashTiming | None,
) -> dict[str, float]:
    """The errors on networks that nothing was fitted on."""
    errors = []
    for ran in held:
        guess = sum(predicted(row, kernels, missed, key, flash) for row in ran.rows)
        truth = sum(sum(row.cycles) for row in ran.rows)
        if flash is not None:
            truth += sum(flash_cycles(row.lines[key], flash).total for row in ran.rows)
        errors.append(100 * (guess / truth - 1))
    shown = ", ".join(f"{e:+.1f}" for e in errors)
    print(f"  {key} {'' if flash is None else flash.wait_states}: held-out networks {shown} %")
    size = np.abs(errors)
    return {
        "networks": len(errors),
        "mean_error_pct": round(float(size.mean()), 1),
        # Upwards, and a tenth for the calls between the layers: what is stated holds for each of them.
        "worst_error_pct": round(math.ceil(10 * float(size.max())) / 10 + 0.1, 1),
    }


def _worst(found: Mapping[str, float]) -> float:
    return found["worst_error_pct"]


def check(folder: Path) -> None:
    """Prints the error on other models, layer sums only; nothing of it goes into the file."""
    from tinydeploy import api  # noqa: PLC0415

    for path in sorted(folder.glob("*_int8.tflite")):
        for target in ("nucleo-l4r5zi", "nucleo-g0b1re"):
            model = load_model(str(path))
            pair = [api.profile(model, [target], estimate=e).to_json()["targets"][0] for e in (True, False)]
            guess, truth = (int(t["cycles"]) for t in pair)
            print(f"{path.stem} on {target}: {guess:,} for {truth:,}, {100 * (guess / truth - 1):+.1f} %")


def main() -> None:
    """Fits, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", help="only these, with commas; the others stay as they are in the file")
    parser.add_argument("--check", type=Path, help="a folder of int8 models to compare with afterwards")
    options = parser.parse_args()
    report = json.loads(OUT.read_text()) if OUT.exists() and options.cores else {"cores": {}, "flash": {}}
    report.pop("features", None)
    targets = list_targets()
    for core in (t.core for t in targets if t.board is None and t.core.timing is not None):
        if options.cores and core.name not in options.cores.split(","):
            continue
        boards: Boards = defaultdict(list)
        for target in targets:
            if target.board is not None and target.board.core == core.name and target.board.flash is not None:
                boards[flash_key(core.name, target.board.flash)].append(target.board.flash)
        start = time.monotonic()
        print(f"{core.name}: {len(boards)} kinds of flash")
        report["flash"] = {k: v for k, v in report["flash"].items() if not k.startswith(f"{core.name}/")}
        report["cores"][core.name] = fit_core(core, boards, report)
        print(f"  {time.monotonic() - start:.0f} s", flush=True)
        OUT.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    if options.check:
        check(options.check)


if __name__ == "__main__":
    main()
