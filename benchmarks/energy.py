"""Energies from the boards' power against published ones, as docs/energy.md has them.

    python benchmarks/energy.py PUBLISHED.csv

The file holds results of MLPerf Tiny with the columns board, clock_mhz, model, cycles_per_inference,
energy_uj_per_inf and, where the energy run had a throughput of its own, energy_run_throughput_inf_s. The
cycles are those of the submission, so what is compared is the power alone: no model of cycles is in it.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

from tinydeploy.energy import energy_of
from tinydeploy.targets import load_target

# The -P variant of the NUCLEO-L4R5ZI has another regulator, and so is another board.
BOARDS = {
    "NUCLEO-L4R5ZI": "nucleo-l4r5zi",
    "NUCLEO-U575ZI-Q": "nucleo-u575zi-q",
    "NUCLEO-U385RG-Q": "nucleo-u385rg-q",
    "EK-RA6M4": "ek-ra6m4",
}
# The energy of the streaming wake word is that of a stream of 20 minutes, not of an inference.
MODELS = ("ad", "ic", "kws", "vww")


def compared(row: dict[str, str]) -> tuple[str, str, float, float] | None:
    """Board, who submitted what, and published and predicted microjoules; None for a row that has none."""
    name = BOARDS.get(row["board"])
    if name is None or row["model"] not in MODELS or not row["energy_uj_per_inf"] or row["accelerator"]:
        return None
    board = load_target(name).board
    assert board is not None
    if float(row["clock_mhz"]) != board.clock_mhz:
        return None
    run = row["energy_run_throughput_inf_s"] or row["throughput_inf_s"]
    predicted = energy_of(board.clock_mhz * 1e6 / float(run), board)
    assert predicted is not None
    what = f"{row['round']} {row['organisation']}, {row['framework'].partition(';')[0][:20]}"
    return name, what, float(row["energy_uj_per_inf"]), predicted.microjoules


def main() -> None:
    """Prints each group of rows with its errors, and each board with mean and worst."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    with Path(sys.argv[1]).open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            found = compared(row)
            if found is not None:
                name, what, published, predicted = found
                groups[name, what].append(100 * (predicted - published) / published)
    boards: dict[str, list[float]] = defaultdict(list)
    print("| board | submission | points | error: least | most |\n|---|---|---|---|---|")
    for (name, what), errors in sorted(groups.items()):
        boards[name] += errors
        ordered = sorted(errors, key=abs)
        print(f"| {name} | {what} | {len(errors)} | {ordered[0]:+.0f} % | {ordered[-1]:+.0f} % |")
    for name, errors in sorted(boards.items()):
        mean, worst = sum(map(abs, errors)) / len(errors), max(map(abs, errors))
        print(f"{name}: {len(errors)} points, mean absolute error {mean:.1f} %, worst {worst:.1f} %")


if __name__ == "__main__":
    main()
