"""ResNet-8 with the weights of its three stages at 4, 3 and 2 bits, after quantization-aware training.

    python benchmarks/low_bits.py MODEL DATA OUT --float WEIGHTS.safetensors

MODEL is ic_float.tflite, DATA the folder that `benchmarks/prepare.py` wrote. WEIGHTS holds the float
network's constants by name, fine-tuned on the training images; without --float it is trained first.
Steps between integers are learned (LSQ).
Each pair of bits and seed is one unit: its epochs are checkpointed in OUT, its result stays in
OUT/results.json, and the next call goes on with what is missing. First and last layer and all activations
have 8 bits. Accuracies are those of the integer engine on all test images.
"""

from __future__ import annotations

import argparse
import glob
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from tinydeploy import api
from tinydeploy.data import Samples
from tinydeploy.evaluation import evaluate
from tinydeploy.finetune import TrainOptions, finetune
from tinydeploy.finetune.options import TrainProgress
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array, constant
from tinydeploy.ops.quantize import quantize_array
from tinydeploy.quantize.qat import QatOptions, make_quantized_trainable
from tinydeploy.quantize.recipe import LayerRule, Recipe, Treatment, linear_nodes
from tinydeploy.quantize.schemes import Linear
from tinydeploy.trainable import make_trainable

AUGMENT = "tinydeploy.finetune.augment:flip_and_shift"
ALLOWED = {4: 0.7, 3: 1.5, 2: 5.0}
"""Points that the mean of three seeds may lose."""
EPOCHS = {4: 2, 3: 3, 2: 6}
CALIBRATION = 500


@dataclass(frozen=True)
class Images:
    """Images (samples, 1, 32, 32, 3) as float32 of 0 to 255, and their classes."""

    x: Array
    y: Array

    @staticmethod
    def load(path: Path, count: int | None) -> Images:
        with np.load(path, allow_pickle=False) as held:
            x, y = held["x"][:count], held["y"][:count]
        return Images(np.ascontiguousarray(x, np.float32).reshape(-1, 1, *x.shape[1:]), y)


def accuracy(graph: Graph, images: Images) -> float:
    """Fraction of right classes, of a float or an integer graph."""
    value = graph.value(graph.inputs[0])
    x = images.x if value.dtype.is_float else quantize_array(images.x, value.quant, value.dtype)
    return evaluate(graph, Samples((x,), images.y, ()), model=graph.name).value


def stages_at(graph: Graph, bits: int) -> Recipe:
    """All layers with weights but the first and the last, at so many bits."""
    inner = linear_nodes(graph)[1:-1]
    treatment = Treatment(Linear(bits))
    return Recipe(tuple(LayerRule(glob.escape(node.name), treatment) for node in inner))


def tell(p: TrainProgress) -> None:
    if p.step == p.steps or p.step % 100 == 0:
        shown = f"epoch {p.epoch}/{p.epochs} step {p.step}/{p.steps} loss {p.loss:.3f}"
        print(
            f"  {shown} accuracy {p.accuracy or 0.0:.2%} {p.seconds_left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )


def keep_constants(graph: Graph, path: Path) -> None:
    """Writes a float graph's constants by name."""
    save_file({v.name: v.array.copy() for v in graph.constants() if v.dtype.is_float}, path)


def with_constants(graph: Graph, path: Path) -> Graph:
    """The graph with the constants that a file holds."""
    values = dict(graph.values)
    values.update({name: constant(name, data) for name, data in load_file(path).items()})
    return replace(graph, values=values)


def float_graph(given: argparse.Namespace, train: Images) -> Graph:
    """The fine-tuned float network: from the file of weights, or trained and kept in OUT."""
    graph = api.load_model(given.model).graph
    path = given.float or given.out / "float.safetensors"
    if not path.exists():
        module = make_trainable(graph)
        options = TrainOptions(
            epochs=given.float_epochs,
            batch_size=64,
            learning_rate=5e-3,
            augment=AUGMENT,
            precision="bfloat16",
            checkpoint=given.out / "float.training.safetensors",
        )
        finetune(module, train.x, train.y, options, tell)
        keep_constants(module.to_graph(), path)
    return with_constants(graph, path)


def train_unit(
    graph: Graph, bits: int, seed: int, given: argparse.Namespace, train: Images
) -> tuple[Graph, int]:
    """The integer graph of one unit and its epochs; goes on from its checkpoint."""
    recipe = stages_at(graph, bits)
    module = make_quantized_trainable(
        graph, [train.x[:CALIBRATION]], "minmax", QatOptions(weights="lsq", weights_only=True), recipe
    )
    epochs = given.epochs or EPOCHS[bits]
    options = TrainOptions(
        epochs=epochs,
        batch_size=given.batch_size,
        learning_rate=given.learning_rate,
        seed=seed,
        augment=AUGMENT,
        distill_from=graph if given.distill else None,
        precision=given.precision,
        checkpoint=given.out / f"bits{bits}_seed{seed}.safetensors",
    )
    finetune(module, train.x, train.y, options, tell)
    return module.to_quantized_graph(), epochs


def table(results: dict[str, object], bits: list[int], seeds: list[int]) -> str:
    """The rows of the documentation, of the units that are done."""
    base, units = float(str(results["float"])), results["units"]
    assert isinstance(units, dict)
    lines = [
        f"float: {base:.2%}",
        "| bits | accuracy by seed | mean | lost | allowed |",
        "|---|---|---|---|---|",
    ]
    for b in bits:
        found = [units[f"bits{b}_seed{s}"]["value"] for s in seeds if f"bits{b}_seed{s}" in units]
        if found:
            mean = sum(found) / len(found)
            each = ", ".join(f"{v:.2%}" for v in found)
            lines.append(f"| {b} | {each} | {mean:.2%} | {100 * (base - mean):.2f} | {ALLOWED[b]} |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("model", "data", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--float", type=Path, help="weights of the float network, .safetensors")
    parser.add_argument("--float-epochs", type=int, default=50)
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3, 2], choices=[4, 3, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="of each unit; by default 2, 3 and 6")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--distill", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--samples", type=int, help="training images; all by default")
    parser.add_argument("--test-samples", type=int, help="test images; all by default")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Trains the units that are missing and prints the table."""
    given = arguments()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    train = Images.load(given.data / "cifar10_train.npz", given.samples)
    test = Images.load(given.data / "cifar10_test.npz", given.test_samples)
    graph = float_graph(given, train)
    kept = given.out / "results.json"
    results: dict[str, object] = json.loads(kept.read_text()) if kept.exists() else {"units": {}}
    if "float" not in results:
        results["float"] = accuracy(graph, test)
    units = results["units"]
    assert isinstance(units, dict)
    for seed in given.seeds:
        for bits in given.bits:
            name = f"bits{bits}_seed{seed}"
            if name not in units:
                print(name, file=sys.stderr, flush=True)
                trained, epochs = train_unit(graph, bits, seed, given, train)
                units[name] = {"value": accuracy(trained, test), "epochs": epochs}
                kept.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results, given.bits, given.seeds))


if __name__ == "__main__":
    main()
