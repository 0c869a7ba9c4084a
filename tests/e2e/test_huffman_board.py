"""Trained networks with Huffman-coded codebooks: bit-exact on two cores, coded by choice where that pays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from shared import DATA, needs_data

from tinydeploy.cli.main import cli

pytestmark = pytest.mark.slow

pytest.importorskip("unicorn", reason="the extra emulate is not installed")

DIGITS = Path(__file__).resolve().parent.parent.parent / "fixtures" / "digits"


def answer(*arguments: str | Path, exit_code: int = 0) -> dict[str, object]:
    done = CliRunner().invoke(cli, [*map(str, arguments), "--json"])
    assert done.exit_code == exit_code, done.output
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def compressed(model: Path, data: Path, scheme: str, out: Path) -> Path:
    answer("compress", model, "--data", data, "--scheme", scheme, "-o", out)
    return out / "model.onnx"


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m0plus"])
@pytest.mark.parametrize("bits", [3, 4])
def test_digits(bits: int, core: str, tmp_path: Path) -> None:
    model = compressed(DIGITS / "digits_float.tflite", DIGITS / "samples.npz", f"codebook:{bits}", tmp_path)
    for optimize in ("flash", "ram"):
        given = ("verify", model, "--target", core, "--optimize", optimize, "--codebooks", "huffman")
        report = answer(*given)
        assert (report["mismatches"], report["float_symbols"]) == (0, [])
        assert isinstance(report["elements"], int) and report["elements"] > 0


@needs_data
def test_keyword_spotting(tmp_path: Path) -> None:
    """Its clusters are used so evenly that auto leaves them packed; coded by force they are as exact."""
    with np.load(DATA / "kws01.npz", allow_pickle=False) as z:
        x = ((z["x"][::10].astype(np.float32) - 83) * np.float32(0.584702909)).astype(np.float32)
        np.savez(tmp_path / "calibration.npz", x=x, y=z["y"][::10])
    float_model = DATA / "models" / "kws_float32.tflite"
    model = compressed(float_model, tmp_path / "calibration.npz", "codebook:4", tmp_path / "out")
    for core, optimize in (("cortex-m4", "balanced"), ("cortex-m0plus", "flash")):
        given = ("verify", model, "--target", core, "--optimize", optimize)
        coded, chosen = (answer(*given, "--codebooks", how) for how in ("huffman", "auto"))
        assert coded["mismatches"] == chosen["mismatches"] == 0
        assert coded["init_instructions"]
        assert (chosen["huffman"], chosen["init_instructions"]) == (None, None)
        assert isinstance(coded["flash_bytes"], int) and isinstance(chosen["flash_bytes"], int)
        assert chosen["flash_bytes"] < coded["flash_bytes"]
