"""Every trained quantizer on one network: accuracy before and after training, bits and bytes.

    python benchmarks/quantizer_table.py DATA OUT --model resnet8 --source ic_float.tflite
    python benchmarks/quantizer_table.py DATA OUT --model resnet20

DATA is the folder that `benchmarks/prepare.py` wrote. The float network is trained first, or its constants
are read from --float. Then each row and seed is one unit: its epochs are checkpointed in OUT, its result is a
file of its own there, and the next call goes on with what is missing. --print only prints the table of what
there is. First and last layer have eight bits; so do all activations unless the row says otherwise, and what
additions read. Accuracies are those of the integer engine on all test images. A GPU is used where there is
one; the integer engine runs on the processor.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np
import torch
from low_bits import AUGMENT, CALIBRATION, Images, accuracy, keep_constants, tell, with_constants
from quantizer_rows import Row, inner_layers, rows
from torch import Tensor, nn

from tinydeploy import api
from tinydeploy.finetune import TrainOptions, finetune
from tinydeploy.ir.graph import Graph
from tinydeploy.quantize import QuantizeOptions, quantize
from tinydeploy.quantize.qat import make_quantized_trainable
from tinydeploy.quantize.recipe import linear_nodes
from tinydeploy.trainable import make_trainable

FLOAT = {"resnet8": (50, 5e-3), "resnet20": (120, 2e-2)}
"""Epochs and learning rate of the float network: a trained one is fine-tuned, or a fresh one trained."""

Unit = dict[str, float]


class Block(nn.Module):
    """Two convolutions and a shortcut, with a 1x1 projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = 2 if outputs > inputs else 1
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


class ResNet20(nn.Module):
    """ResNet-20 for 32x32 images with 1x1 projections: 270,896 weights, biases not counted.

    Batch normalization is what training puts in. Source: K. He et al., "Deep Residual Learning for Image
    Recognition" (CVPR 2016), section 4.2, with projection shortcuts (option B).
    """

    def __init__(self) -> None:
        super().__init__()
        widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in pairwise(widths)))
        self.classify = nn.Linear(64, 10)
        for m in self.modules():
            if isinstance(m, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                assert m.bias is not None
                nn.init.zeros_(m.bias)
        # Normalization keeps the size of what it finds, so nine blocks that add up must not grow.
        with torch.no_grad():
            self.classify.weight /= 10.0
            for block in self.blocks:
                if isinstance(block, Block):
                    block.second.weight /= 3.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(torch.relu(self.stem(x)))
        return torch.softmax(self.classify(x.mean(dim=(2, 3))), dim=1)


def untrained(given: argparse.Namespace) -> Graph:
    """The network that the float training starts from; images are 0 to 255."""
    if given.model == "resnet8":
        return api.load_model(given.source).graph
    torch.manual_seed(0)
    module = ResNet20()
    with torch.no_grad():
        module.stem.weight /= 128.0
    graph = api.from_torch(module.eval(), (1, 3, 32, 32), "resnet20").graph
    assert sum(graph.value(str(n.inputs[1])).elements for n in linear_nodes(graph)) == 270_896
    return graph


def float_graph(given: argparse.Namespace, train: Images) -> Graph:
    """The trained float network: from a file of weights, or trained and kept in OUT."""
    graph = untrained(given)
    path = given.float or given.out / "float.safetensors"
    if not path.exists():
        epochs, rate = FLOAT[given.model]
        module = make_trainable(graph)
        options = TrainOptions(
            epochs=epochs if given.float_epochs is None else given.float_epochs,
            batch_size=given.batch_size,
            learning_rate=rate,
            weight_decay=1e-4,
            augment=AUGMENT,
            precision=given.precision,
            checkpoint=given.out / "float.training.safetensors",
        )
        finetune(module, train.x, train.y, options, tell)
        keep_constants(module.to_graph(), path)
    return with_constants(graph, path)


def sizes(graph: Graph) -> Unit:
    """Mean stored bits of a weight of the inner layers, and bytes of all constants."""
    inner = {name for name, _, _ in inner_layers(graph)}
    values = [graph.value(str(n.inputs[1])) for n in graph.nodes if n.name in inner]
    stored = sum(8 * v.bytes for v in values) / sum(v.elements for v in values)
    return {"weight_bits": stored, "bytes": float(sum(v.bytes for v in graph.constants()))}


def train_unit(
    graph: Graph, name: str, row: Row, seed: int, given: argparse.Namespace, train: Images, test: Images
) -> Unit:
    """What one row and seed come to; goes on from its checkpoint."""
    calibration = train.x[:CALIBRATION]
    recipe = row.recipe(graph, calibration)
    result: Unit = {}
    if row.before:
        result["before"] = accuracy(quantize(graph, [calibration], QuantizeOptions(recipe=recipe)), test)
    module = make_quantized_trainable(graph, [calibration], "minmax", row.training, recipe)
    epochs = row.epochs if given.epochs is None else given.epochs
    options = TrainOptions(
        epochs=epochs,
        batch_size=given.batch_size,
        learning_rate=given.learning_rate or row.learning_rate,
        seed=seed,
        augment=AUGMENT,
        distill_from=graph if given.distill else None,
        precision=given.precision,
        checkpoint=given.out / f"{name}_seed{seed}.safetensors",
    )
    finetune(module, train.x, train.y, options, tell)
    trained = module.to_quantized_graph()
    return result | sizes(trained) | {"after": accuracy(trained, test), "epochs": epochs}


def table(base: float, done: dict[str, list[Unit]]) -> str:
    """The rows of the documentation, of the units that are done."""
    lines = [
        f"float: {base:.2%}",
        "| quantizer | bits a weight, inner layers | constants B | before training, points |"
        " after, points | spread over seeds | seeds | epochs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows().items():
        units = done.get(name, [])
        if not units:
            continue
        after = [u["after"] for u in units]
        spread = f"{100 * pstdev(after):.2f}" if len(after) > 1 else ""
        before = f"{100 * (units[0]['before'] - base):+.2f}" if row.before else ""
        lines.append(
            f"| {row.title} | {units[0]['weight_bits']:.2f} | {units[0]['bytes']:,.0f} | {before} |"
            f" {100 * (fmean(after) - base):+.2f} | {spread} | {len(units)} | {units[0]['epochs']:.0f} |"
        )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("data", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--model", choices=sorted(FLOAT), default="resnet8")
    parser.add_argument("--source", type=Path, help="ic_float.tflite, which resnet8 starts from")
    parser.add_argument("--float", type=Path, help="weights of the float network, .safetensors")
    parser.add_argument("--float-epochs", type=int, help="50 and 120 by default")
    parser.add_argument("--rows", nargs="+", default=list(rows()), choices=list(rows()), metavar="ROW")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, help="of each unit; by default 2 or 4, by the row")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, help="by default 0.002 or 0.003, by the row")
    parser.add_argument("--distill", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--samples", type=int, help="training images; all by default")
    parser.add_argument("--test-samples", type=int, help="test images; all by default")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--print", action="store_true", help="only print the table of what there is")
    given = parser.parse_args()
    if given.model == "resnet8" and given.source is None:
        parser.error("--model resnet8 starts from a file: --source ic_float.tflite")
    return given


def kept(path: Path) -> Unit:
    result: Unit = json.loads(path.read_text())
    return result


def main() -> None:
    """Trains the units that are missing and prints the table."""
    given = arguments()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    float_file = given.out / "float.json"
    if not given.print:
        train = Images.load(given.data / "cifar10_train.npz", given.samples)
        test = Images.load(given.data / "cifar10_test.npz", given.test_samples)
        graph = float_graph(given, train)
        if not float_file.exists():
            float_file.write_text(json.dumps({"accuracy": accuracy(graph, test)}))
        # Seed by seed, so that a table of all rows is there early.
        for seed in given.seeds:
            for name in given.rows:
                file = given.out / f"{name}_seed{seed}.json"
                if file.exists():
                    continue
                print(f"{name} seed {seed}", file=sys.stderr, flush=True)
                unit = train_unit(graph, name, rows()[name], seed, given, train, test)
                file.write_text(json.dumps(unit, indent=2) + "\n")
    done = {
        name: [kept(p) for s in given.seeds if (p := given.out / f"{name}_seed{s}.json").exists()]
        for name in rows()
    }
    base = kept(float_file)["accuracy"] if float_file.exists() else float(np.nan)
    print(table(base, done))


if __name__ == "__main__":
    main()
