"""Turns the reference data sets into .npz files with x and y, as every tinydeploy command takes them.

    python benchmarks/prepare.py DATA OUT

DATA is the folder with cifar10_jpeg.npz, mnist.npz, har_hapt.npz, kws01.npz and models/. CIFAR-10 is decoded
from JPEG with Pillow (pip install pillow). Integer images stay uint8: give --input-scale where a model
takes another range. Keyword spotting is dequantized, since kws_float32 takes real numbers.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np

SEED = 0


def cifar10(data: Path, out: Path) -> None:
    """x uint8 [n, 32, 32, 3]; shuffled, because the source sorts by class."""
    from PIL import Image  # noqa: PLC0415

    with np.load(data / "cifar10_jpeg.npz", allow_pickle=False) as z:
        header = z["jpeg_header"].tobytes()
        for split in ("train", "test"):
            body, offsets, labels = z[f"{split}_body"], z[f"{split}_offsets"], z[f"{split}_labels"]
            x = np.empty((len(labels), 32, 32, 3), np.uint8)
            for i in range(len(labels)):
                image = header + body[offsets[i] : offsets[i + 1]].tobytes()
                x[i] = np.asarray(Image.open(io.BytesIO(image)))
            order = np.random.default_rng(SEED).permutation(len(labels))
            np.savez(out / f"cifar10_{split}.npz", x=x[order], y=labels[order].astype(np.int64))
            if split == "train":
                np.savez(out / "cifar10_calibration.npz", x=x[order[:500]], y=labels[order[:500]])


def keyword_spotting(data: Path, out: Path) -> None:
    """x float32 [n, 49, 10, 1] in real units; every tenth sample calibrates."""
    with np.load(data / "kws01.npz", allow_pickle=False) as z:
        x = ((z["x"].astype(np.float32) - 83) * np.float32(0.584702909)).astype(np.float32)
        np.savez(out / "kws_test.npz", x=x, y=z["y"])
        np.savez(out / "kws_calibration.npz", x=x[::10], y=z["y"][::10])


def activity(data: Path, out: Path) -> None:
    """x float32 [n, 6, 128]: channels first, as a 1-D PyTorch network takes them."""
    with np.load(data / "har_hapt.npz", allow_pickle=False) as z:
        for split in ("train", "test"):
            x = z[f"x_{split}"].astype(np.float32) * z["scale"]
            np.savez(out / f"har_{split}.npz", x=x.transpose(0, 2, 1).copy(), y=z[f"y_{split}"].astype(np.int64))


def digits(data: Path, out: Path) -> None:
    """x float32 [n, 1, 28, 28] from 0 to 1."""
    with np.load(data / "mnist.npz", allow_pickle=False) as z:
        for split in ("train", "test"):
            x = (z[f"x_{split}"].astype(np.float32) / 255)[:, None]
            np.savez(out / f"mnist_{split}.npz", x=x, y=z[f"y_{split}"].astype(np.int64))


def main() -> None:
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for prepare in (cifar10, keyword_spotting, activity, digits):
        prepare(data, out)


if __name__ == "__main__":
    main()
