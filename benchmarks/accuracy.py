"""The accuracy tables of the README: quantized as they are, and ResNet-8 trained whole and at half its MACs.

    python benchmarks/accuracy.py MODELS DATA OUT [--train] [--row NAME]

MODELS is the folder with the float .tflite files, DATA what `benchmarks/prepare.py` wrote. Without --train
only the two quantizations run; with it the trainings too (minutes to more than an hour of one core each).
Each row is one `tinydeploy compress` as a user types it; its report stays in OUT.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

QAT_EPOCHS = 2
RECIPE = (
    *("--optimizer", "muon", "--batch-size", "128", "--precision", "bfloat16", "--seed", "0"),
    *("--qat-epochs", str(QAT_EPOCHS), "--qat-learning-rate", "0.0001"),
)
HALF = (
    *("--prune", "macs=50%", "--cost-aware", "--protect-residual", "--prune-divisor", "2"),
    *("--distill", "--distill-weight", "0.9", "--distill-features", "5"),
)
FLIP = ("--augment", "tinydeploy.finetune.augment:flip")
FLIP_AND_SHIFT = ("--augment", "tinydeploy.finetune.augment:flip_and_shift")


def epochs(count: int, warmup: int = 0) -> tuple[str, ...]:
    """So many, of them `warmup` before pruning."""
    return ("--finetune-epochs", str(count), "--warmup-epochs", str(warmup))


QUANTIZED = ("kws", "ic")
TRAINED = {
    "ic_6": epochs(6),
    "ic_24": epochs(24),
    "ic_24_half": (*epochs(24, 6), *HALF),
    "ic_64_flip": (*epochs(64), *FLIP),
    "ic_64_flip_half": (*epochs(64, 36), *HALF, *FLIP),
    "ic_64": (*epochs(64), *FLIP_AND_SHIFT),
    "ic_64_half": (*epochs(64, 36), *HALF, *FLIP_AND_SHIFT),
    "ic_100": (*epochs(100), *FLIP_AND_SHIFT),
    "ic_100_half": (*epochs(100, 30), *HALF, *FLIP_AND_SHIFT),
}
"""What follows RECIPE, by row: the training images as they are, mirrored, and mirrored and moved."""


def compress(name: str, out: Path, *arguments: str) -> dict[str, object]:
    """Runs the command and gives its report."""
    command = [sys.executable, "-m", "tinydeploy", "compress", *arguments, "--json", "-o", str(out / name)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    report: dict[str, object] = json.loads(done.stdout)
    return report


def main() -> None:
    """Runs the rows and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("models", "data", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--row", action="append", choices=(*QUANTIZED, *TRAINED), help="only these")
    given = parser.parse_args()
    image, speech = str(given.models / "ic_float.tflite"), str(given.models / "kws_float32.tflite")

    def data(kind: str, train: str) -> tuple[str, ...]:
        names = (f"{kind}_{train}.npz", f"{kind}_test.npz")
        return ("--data", str(given.data / names[0]), "--eval-data", str(given.data / names[1]))

    rows = {
        "kws": (speech, *data("kws", "calibration")),
        "ic": (image, *data("cifar10", "calibration")),
    }
    rows |= {name: (image, *data("cifar10", "train"), *RECIPE, *how) for name, how in TRAINED.items()}
    chosen = given.row or (*QUANTIZED, *(TRAINED if given.train else ()))
    print("| run | " + " | ".join(("float", "trained", "int8", "MACs", "parameters")) + " |")
    for name in chosen:
        stages = compress(name, given.out, *rows[name])["stages"]
        assert isinstance(stages, list)
        values = [f"{stage['value']:.2%}" for stage in stages]
        middle = values[1] if len(stages) == 3 else "-"
        last = stages[-1]
        print(f"| {name} | {values[0]} | {middle} | {values[-1]} | {last['macs']:,} | {last['params']:,} |")


if __name__ == "__main__":
    main()
