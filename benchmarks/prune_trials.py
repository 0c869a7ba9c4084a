"""What decides how much a pruned ResNet-8 learns again: widths, optimizer, and what the teacher shows.

    python benchmarks/prune_trials.py MODEL DATA OUT --float WEIGHTS.safetensors [--rows NAME ...]

MODEL is ic_float.tflite, DATA the folder that `benchmarks/prepare.py` wrote. WEIGHTS holds the float
network's constants by name, fine-tuned on the training images; without --float it is trained first. It is
where each row starts, and the teacher. Each row prunes the insides of the three residual blocks at once and
trains for 8 epochs, one thread by default (5 minutes); its result stays in OUT, and the next call goes on
with what is missing. Accuracies are those of the float network on all test images.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from low_bits import AUGMENT, Images, accuracy, float_graph, tell

from tinydeploy.finetune import TrainOptions, batch_gradients, finetune
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.verify import graph_macs
from tinydeploy.prune import find_groups, importance, remove, select_by_ratio
from tinydeploy.prune.residual import residual_sums
from tinydeploy.prune.select import SelectOptions
from tinydeploy.trainable import make_trainable

MUON = {"optimizer": "muon", "learning_rate": 1e-2}


@dataclass(frozen=True)
class Trial:
    """One row.

    Attributes:
        inside: channels that stay inside each residual block.
        options: of `TrainOptions`, beside those that all rows share.
        taught: whether the float network teaches, with nine tenths of the loss.
    """

    inside: tuple[int, int, int] | None
    options: dict[str, Any] = field(default_factory=lambda: dict(MUON))
    taught: bool = True


EVEN, LATE, LATEST = (4, 20, 38), (2, 20, 48), (2, 12, 64)
ROWS = {
    "whole, Adam": Trial(None, {"learning_rate": 5e-3}, taught=False),
    "whole, Muon": Trial(None, taught=False),
    "even, Adam": Trial(EVEN, {"learning_rate": 5e-3}, taught=False),
    "even, Muon": Trial(EVEN, taught=False),
    "even": Trial(EVEN),
    "late": Trial(LATE),
    "latest": Trial(LATEST),
    "even, features": Trial(EVEN, {**MUON, "feature_weight": 5.0}),
    "latest, features": Trial(LATEST, {**MUON, "feature_weight": 5.0}),
}


def pruned(graph: Graph, inside: tuple[int, int, int], data: Images) -> Graph:
    """With so many channels inside each block, the most important by Taylor's criterion."""
    groups = find_groups(graph, tuple(n.name for n in residual_sums(graph)))
    chosen = np.sort(np.random.default_rng(0).permutation(len(data.x))[:4096])
    gradients = batch_gradients(graph, data.x[chosen], data.y[chosen], batch_size=16)
    scores = importance(graph, groups, "taylor", gradients=gradients)
    ratios = {g.name: 1.0 - n / len(g.channels) for g, n in zip(groups.groups, inside, strict=True)}
    return remove(graph, groups, select_by_ratio(groups, scores, ratios, SelectOptions(divisor=2)))


def measure(graph: Graph, trial: Trial, train: Images, test: Images, epochs: int) -> dict[str, float]:
    """Trains one row; its accuracy and its share of the MACs."""
    student = graph if trial.inside is None else pruned(graph, trial.inside, train)
    options = replace(
        TrainOptions(epochs=epochs, batch_size=128, augment=AUGMENT, precision="bfloat16"), **trial.options
    )
    if trial.taught:
        options = replace(options, distill_from=graph, distill_weight=0.9)
    module = make_trainable(student)
    finetune(module, train.x, train.y, options, tell)
    return {"value": accuracy(module.to_graph(), test), "macs": graph_macs(student) / graph_macs(graph)}


def main() -> None:
    """Trains the rows that are missing and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("model", "data", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--float", type=Path, help="weights of the float network, .safetensors")
    parser.add_argument("--float-epochs", type=int, default=50)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--samples", type=int, help="training images; all by default")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    train = Images.load(given.data / "cifar10_train.npz", given.samples)
    test = Images.load(given.data / "cifar10_test.npz", None)
    graph = float_graph(given, train)
    print(f"float: {accuracy(graph, test):.2%}")
    print("| row | inside the blocks | MACs | accuracy |\n|---|---|---|---|")
    for name in given.rows:
        kept = given.out / f"{name.replace(', ', '_').lower()}.json"
        if not kept.exists():
            print(name, file=sys.stderr, flush=True)
            kept.write_text(json.dumps(measure(graph, ROWS[name], train, test, given.epochs)) + "\n")
        row = json.loads(kept.read_text())
        inside = "-" if ROWS[name].inside is None else ", ".join(map(str, ROWS[name].inside))
        print(f"| {name} | {inside} | {row['macs']:.1%} | {row['value']:.2%} |", flush=True)


if __name__ == "__main__":
    main()
