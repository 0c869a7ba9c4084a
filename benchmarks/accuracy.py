"""The accuracy table of the README: quantized as they are, and ResNet-8 trained whole and at half its MACs.

    python benchmarks/accuracy.py MODELS DATA OUT [--epochs 64] [--train]

MODELS is the folder with the float .tflite files, DATA what `benchmarks/prepare.py` wrote. Without --train
only the two quantizations run; with it the two trainings too (40 to 50 minutes of one core each).
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
    *("--augment", "tinydeploy.finetune.augment:flip_and_shift"),
)
HALF = (
    *("--prune", "macs=50%", "--cost-aware", "--protect-residual", "--prune-divisor", "2"),
    *("--warmup-epochs", "36", "--distill", "--distill-weight", "0.9", "--distill-features", "5"),
)


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
    parser.add_argument("--epochs", type=int, default=64)
    parser.add_argument("--train", action="store_true")
    given = parser.parse_args()
    image, speech = str(given.models / "ic_float.tflite"), str(given.models / "kws_float32.tflite")

    def data(kind: str, train: str) -> tuple[str, ...]:
        return (
            "--data",
            str(given.data / f"{kind}_{train}.npz"),
            "--eval-data",
            str(given.data / f"{kind}_test.npz"),
        )

    rows = {
        "kws": (speech, *data("kws", "calibration")),
        "ic": (image, *data("cifar10", "calibration")),
    }
    if given.train:
        trained = (image, *data("cifar10", "train"), "--finetune-epochs", str(given.epochs), *RECIPE)
        rows |= {"ic_trained": trained, "ic_half": (*trained, *HALF)}
    print("| run | " + " | ".join(("float", "trained", "int8", "MACs", "parameters")) + " |")
    for name, arguments in rows.items():
        stages = compress(name, given.out, *arguments)["stages"]
        assert isinstance(stages, list)
        values = [f"{stage['value']:.2%}" for stage in stages]
        middle = values[1] if len(stages) == 3 else "-"
        last = stages[-1]
        print(f"| {name} | {values[0]} | {middle} | {values[-1]} | {last['macs']:,} | {last['params']:,} |")


if __name__ == "__main__":
    main()
