"""Two small networks from nothing to int8: human activity from a phone's motion, and handwritten digits.

    python benchmarks/train_small.py DATA OUT [--task har] [--task mnist] [--seed 0] [--threads 1]

DATA is the folder that `benchmarks/prepare.py` wrote. Each float network is trained with plain PyTorch,
written as .pt2 into OUT, and goes through `tinydeploy compress` twice: quantized as it is (PTQ), and pruned
to half of its multiply-accumulates, fine-tuned and trained quantization-aware. OUT gets the models, the
reports and results.json; printed is a table, all accuracies on the test split. Some minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tinydeploy import api

PRUNE = "macs=50%"


def _block(inputs: int, outputs: int, kernel: int, stride: int, dims: int) -> nn.Sequential:
    convolution, norm = (nn.Conv1d, nn.BatchNorm1d) if dims == 1 else (nn.Conv2d, nn.BatchNorm2d)
    return nn.Sequential(
        convolution(inputs, outputs, kernel, stride, kernel // 2, bias=False), norm(outputs), nn.ReLU()
    )


def activity_network() -> nn.Module:
    """Six motion channels, 128 steps (2.56 s), six activities: one-dimensional convolutions."""
    return nn.Sequential(
        _block(6, 24, 5, 2, 1),
        _block(24, 32, 5, 2, 1),
        _block(32, 48, 3, 2, 1),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(48, 6),
    )


def digit_network() -> nn.Module:
    """Images of 28x28, ten digits."""
    return nn.Sequential(
        _block(1, 12, 3, 2, 2),
        _block(12, 24, 3, 1, 2),
        nn.MaxPool2d(2),
        _block(24, 32, 3, 2, 2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )


@dataclass(frozen=True)
class Task:
    """One data set with its network.

    Attributes:
        samples: of the training split that are used, drawn by the seed; None takes all.
        epochs: of the float network; `finetune_epochs` and `qat_epochs` of the pruned one.
    """

    name: str
    network: Callable[[], nn.Module]
    samples: int | None
    epochs: int
    finetune_epochs: int
    qat_epochs: int


TASKS = (
    Task("har", activity_network, None, epochs=20, finetune_epochs=10, qat_epochs=2),
    Task("mnist", digit_network, 20_000, epochs=5, finetune_epochs=3, qat_epochs=1),
)


@dataclass(frozen=True)
class Row:
    """One line of the table: a network in one form.

    Attributes:
        accuracy: of the test split, a fraction, by tinydeploy's engine.
    """

    task: str
    form: str
    accuracy: float
    macs: int
    params: int
    weights_bytes: int
    arena_bytes: int


def train(task: Task, x: Any, y: Any, seed: int) -> nn.Module:
    """The float network after `task.epochs` of Adam with a cosine schedule."""
    torch.manual_seed(seed)
    module, batch = task.network(), 64
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(module.parameters(), 3e-3, weight_decay=1e-4)
    steps = task.epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    for epoch in range(task.epochs):
        module.train()
        for part in torch.randperm(len(x), generator=order).split(batch):
            loss = nn.functional.cross_entropy(module(images[part]), labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"{task.name}: epoch {epoch + 1} of {task.epochs}, loss {loss.item():.3f}", flush=True)
    return module.eval()


def run(task: Task, data: Path, out: Path, seed: int) -> list[Row]:
    """Trains one network and compresses it in both ways."""
    out.mkdir(parents=True, exist_ok=True)
    with np.load(data / f"{task.name}_train.npz", allow_pickle=False) as z:
        chosen = np.random.default_rng(seed).permutation(len(z["y"]))[: task.samples]
        x, y = z["x"][chosen], z["y"][chosen]
    given = out / "train.npz"
    np.savez(given, x=x, y=y)
    module = train(task, x, y, seed)
    path = out / f"{task.name}.pt2"
    with torch.no_grad():
        torch.export.save(torch.export.export(module, (torch.zeros(1, *x.shape[1:]),)), path)
    test = data / f"{task.name}_test.npz"
    model = api.load_model(path)
    plain, _ = api.compress(model, given, output=out / "ptq", eval_data=test, seed=seed)
    pruned, _ = api.compress(
        model,
        given,
        output=out / "pruned",
        eval_data=test,
        prune=PRUNE,
        finetune_epochs=task.finetune_epochs,
        qat_epochs=task.qat_epochs,
        seed=seed,
    )
    forms = [("float", plain.stages[0]), ("int8 (PTQ)", plain.stages[-1])]
    forms += [(f"float, {PRUNE}", pruned.stages[1]), (f"int8, {PRUNE} (QAT)", pruned.stages[-1])]
    return [
        Row(task.name, form, s.value or 0.0, s.macs, s.params, s.weights_bytes, s.arena_bytes)
        for form, s in forms
    ]


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| task | form | accuracy | MACs | parameters | weights B | arena B |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.task} | {r.form} | {r.accuracy:.2%} | {r.macs:,} | {r.params:,} | {r.weights_bytes:,}"
        f" | {r.arena_bytes:,} |"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--task", action="append", choices=[t.name for t in TASKS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch; the same ones give the same bits")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows: list[Row] = []
    for task in TASKS:
        if given.task is None or task.name in given.task:
            start = time.perf_counter()
            rows += run(task, given.data, given.out / task.name, given.seed)
            print(f"{task.name}: {time.perf_counter() - start:.0f} s", flush=True)
    print(table(rows))
    document = {"seed": given.seed, "threads": given.threads, "rows": [asdict(r) for r in rows]}
    (given.out / "results.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
