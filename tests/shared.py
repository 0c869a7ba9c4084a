"""The reference data beside the repository, where it is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
MODELS = ("kws", "ic", "vww", "ad", "sww")

needs_data = pytest.mark.skipif(
    not (DATA / "models").is_dir(), reason="the reference data (../shared/data) is not on this machine"
)


def model_path(name: str) -> Path:
    return DATA / "models" / f"{name}_int8.tflite"


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / "golden" / f"{name}_int8.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in ("x", "y_tflm")}


def write_golden_inputs(name: str, folder: Path, *, flip: bool = False) -> Path:
    """The golden x and y as an inputs file; `flip` changes one bit of one y."""
    z = golden(name)
    y = z["y_tflm"].copy()
    if flip:
        y.reshape(-1)[7] ^= 1
    path = folder / f"{name}.npz"
    np.savez(path, x=z["x"], y=y)
    return path
