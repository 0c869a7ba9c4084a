"""200 truncated or bit-flipped copies of a model each end in exit code 0, 1 or 2, never a traceback."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from graphs import every_op_graph
from onnx_models import source_inputs

from tinydeploy.backends.tflite import write_tflite
from tinydeploy.cli.main import cli
from tinydeploy.ir.graph import Border, Layout

COPIES = 200


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path]:
    """A model with every op that takes NCHW, and labelled data for it."""
    layout = Layout((1, 4, 12, 10), (1, 4, 12, 10), (0, 2, 3, 1))
    graph = replace(every_op_graph(seed=3), input_borders=(Border("image", layout=layout),))
    path = tmp_path_factory.mktemp("data") / "data.npz"
    (x, *rest) = source_inputs(graph, 4, seed=5)
    arrays = {"x": x} if not rest else {f"x_{i}": a for i, a in enumerate((x, *rest))}
    np.savez(path, **arrays, y=np.zeros(4, np.int64))
    return write_tflite(graph), path


def damaged(data: bytes, seed: int) -> bytes:
    """A truncated copy, or one with up to 16 flipped bits, or one with a stretch of noise."""
    rng = random.Random(seed)
    copy = bytearray(data)
    match rng.randrange(3):
        case 0:
            return bytes(copy[: rng.randrange(len(copy))])
        case 1:
            for _ in range(rng.randint(1, 16)):
                copy[rng.randrange(len(copy))] ^= 1 << rng.randrange(8)
        case _:
            start = rng.randrange(len(copy))
            for i in range(start, min(start + 12, len(copy))):
                copy[i] = rng.randrange(256)
    return bytes(copy)


def test_damaged_copies_end_in_an_exit_code(original: tuple[bytes, Path], tmp_path: Path) -> None:
    data, samples = original
    model = tmp_path / "damaged.tflite"
    out = tmp_path / "out"
    commands = (
        ("inspect", str(model), "--json"),
        ("inspect", str(model), "--memory"),
        ("evaluate", str(model), "--data", str(samples), "--json"),
        ("export-c", str(model), "--target", "cortex-m4", "-o", str(out)),
    )
    refused = 0
    for seed in range(COPIES):
        model.write_bytes(damaged(data, seed))
        result = CliRunner().invoke(cli, list(commands[seed % len(commands)]))
        assert isinstance(result.exception, SystemExit | None), f"copy {seed}: {result.exception!r}"
        assert result.exit_code in (0, 1, 2), f"copy {seed}"
        if result.exit_code == 2:
            refused += 1
            assert result.stderr.startswith("error: "), f"copy {seed}: {result.stderr}"
            assert "Traceback" not in result.stderr
    assert refused > COPIES // 4
