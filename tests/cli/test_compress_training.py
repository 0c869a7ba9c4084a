"""`compress` with training: a killed run goes on where it stopped, and options reach the training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_prune import depthwise_separable

from tinydeploy import api
from tinydeploy.compression import CompressOptions
from tinydeploy.errors import DeployError
from tinydeploy.finetune import TrainOptions
from tinydeploy.ir.graph import Graph
from tinydeploy.quantize.recipe_file import make_recipe

pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = ROOT / "fixtures" / "digits" / "digits_float.tflite"
SAMPLES = ROOT / "fixtures" / "digits" / "samples.npz"
BATCH = 50
STEPS = 4
"""200 samples in batches of 50."""

LOSS = """
import os, signal
from torch.nn import functional

calls = 0

def loss(outputs, labels):
    global calls
    calls += 1
    if calls == int(os.environ.get("DIE_AT_STEP", "0")):
        os.kill(os.getpid(), signal.SIGKILL)
    return functional.cross_entropy(outputs, labels)
"""


def run(folder: Path, output: str, *arguments: str, die_at: int = 0) -> subprocess.CompletedProcess[str]:
    given = (
        "--data",
        str(SAMPLES),
        "-o",
        str(folder / output),
        "--batch-size",
        str(BATCH),
        "--prune",
        "0.25",
    )
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "tinydeploy",
            "compress",
            str(MODEL),
            *given,
            "--loss",
            "hooks:loss",
            *arguments,
        ],
        cwd=folder,
        env={**os.environ, "DIE_AT_STEP": str(die_at), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text(LOSS)
    epochs = ("--finetune-epochs", "3", "--qat-epochs", "2", "--qat-ranges", "learned")
    kept = (*epochs, "--checkpoint", "run.safetensors")
    assert run(tmp_path, "straight", *epochs).returncode == 0
    for die_at, expected in (
        (STEPS + 2, {"run.safetensors"}),
        # Two epochs of fine-tuning are left, and the first of QAT is done.
        (2 * STEPS + STEPS + 1, {"run.safetensors", "run.qat.safetensors"}),
    ):
        killed = run(tmp_path, "resumed", *kept, die_at=die_at)
        assert killed.returncode == -signal.SIGKILL
        assert {p.name for p in tmp_path.glob("*.safetensors")} == expected
        assert not (tmp_path / "resumed").exists()
    # What is left is one epoch of QAT: had anything started again, this limit would stop it.
    ended = run(tmp_path, "resumed", *kept, die_at=STEPS + 1)
    assert ended.returncode == 0, ended.stderr
    assert files(tmp_path / "resumed") == files(tmp_path / "straight")


def compressed(**given: Any) -> api.Compression:
    result, _ = api.compress(api.load_model(MODEL), SAMPLES, batch_size=BATCH, learning_rate=0.01, **given)
    return result


def differ(a: api.Compression, b: api.Compression) -> bool:
    return graphs_differ(a.graph, b.graph)


def graphs_differ(a: Graph | None, b: Graph | None) -> bool:
    assert a is not None
    assert b is not None
    pairs = zip(a.constants(), b.constants(), strict=True)
    return any(x.array.tobytes() != y.array.tobytes() or x.quantization != y.quantization for x, y in pairs)


def test_learned_and_running_ranges_are_two_trainings() -> None:
    running, learned = (compressed(qat_epochs=1, qat_ranges=r) for r in ("running", "learned"))
    assert differ(running, learned)
    assert learned.to_json()["qat_ranges"] == "learned"
    with pytest.raises(DeployError, match="no ranges 'guessed'"):
        compressed(qat_epochs=1, qat_ranges="guessed")


def test_quantization_aware_training_has_a_learning_rate_of_its_own() -> None:
    # 0.01 is what `compressed` says for the training in float.
    usual = compressed(qat_epochs=1)
    assert usual.to_json()["qat_learning_rate"] == 0.0003
    assert not differ(usual, compressed(qat_epochs=1, qat_learning_rate=0.0003))
    faster = compressed(qat_epochs=1, qat_learning_rate=0.02)
    assert faster.to_json()["qat_learning_rate"] == 0.02
    assert differ(usual, faster)
    with pytest.raises(DeployError, match="a learning rate of -1"):
        compressed(qat_epochs=1, qat_learning_rate=-1.0)


def test_binary_layers_are_trained_at_ten_times_the_learning_rate() -> None:
    rates = {
        scheme: CompressOptions(recipe=make_recipe(scheme=scheme)).qat_rate
        for scheme in ("binary", "ternary", "linear:2")
    }
    assert rates == {"binary": 0.003, "ternary": 0.0003, "linear:2": 0.0003}
    given = CompressOptions(recipe=make_recipe(scheme="binary"), qat_learning_rate=1e-4)
    assert given.qat_rate == 1e-4


def test_the_weight_and_temperature_of_the_teacher_count() -> None:
    given = {"prune": "0.25", "finetune_epochs": 1, "distill": True}
    usual = compressed(**given)
    assert differ(usual, compressed(**given, distill_weight=0.9))
    assert differ(usual, compressed(**given, distill_temperature=1.0))
    # A teacher without a say is none.
    assert not differ(compressed(**given, distill_weight=0.0), compressed(prune="0.25", finetune_epochs=1))


def test_who_teaches(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinydeploy import finetune

    teachers: list[Graph | None] = []

    def listening(module: Any, x: Any, y: Any, options: TrainOptions, *rest: Any) -> None:
        teachers.append(options.distill_from)
        train(module, x, y, options, *rest)

    train = finetune.finetune
    monkeypatch.setattr(finetune, "finetune", listening)
    given = api.load_model(MODEL).graph
    # Without pruning the trained network does, and nobody teaches it: what was given knows less.
    compressed(finetune_epochs=1, qat_epochs=1, distill=True)
    training, aware = teachers
    assert training is None
    assert graphs_differ(aware, given)
    # With pruning it is the network before it, which has learned for --warmup-epochs.
    teachers.clear()
    compressed(prune="0.25", finetune_epochs=2, warmup_epochs=1, qat_epochs=1, distill=True)
    before, after, aware = teachers
    assert before is None
    assert aware is after
    assert graphs_differ(after, given)


def test_features_are_compared_with_a_teacher_and_in_residual_blocks_only() -> None:
    with pytest.raises(DeployError, match=r"--distill-features.*\n.*add --distill"):
        compressed(distill_features=1.0)
    # Before anything is trained, though only what is pruned would be compared.
    trained: list[str] = []
    given = {"prune": "0.25", "finetune_epochs": 2, "warmup_epochs": 1, "distill": True}
    with pytest.raises(DeployError, match="add --protect-residual"):
        compressed(**given, distill_features=1.0, progress=lambda what, *_: trained.append(what))
    assert not trained
    chain = replace(api.load_model(MODEL), graph=depthwise_separable())
    with pytest.raises(DeployError, match="no residual blocks"):
        api.compress(chain, SAMPLES, qat_epochs=1, distill=True, distill_features=1.0)


@pytest.mark.parametrize("given", [{"finetune_epochs": 1}, {"prune": "0.25"}], ids=["whole", "not trained"])
def test_a_teacher_without_a_pupil_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(DeployError, match=r"--distill: there is nothing to teach\n.*--qat-epochs"):
        compressed(**given, distill=True)


def test_progress_tells_epoch_loss_and_accuracy_step_by_step() -> None:
    seen: list[tuple[str, int, int]] = []
    compressed(finetune_epochs=2, progress=lambda *what: seen.append(what))
    training = [s for s in seen if s[0].startswith("training")]
    assert [done for _, done, _ in training] == list(range(1, 2 * STEPS + 1))
    assert all(total == 2 * STEPS for _, _, total in training)
    assert "epoch 2 of 2, loss " in training[-1][0]
    assert "accuracy " in training[-1][0]


def test_steps_of_pruning_train_in_between() -> None:
    seen: list[str] = []
    result = compressed(
        prune="macs=60%", prune_steps=3, finetune_epochs=2, progress=lambda what, *_: seen.append(what)
    )
    assert sum("epoch 1 of 1" in s for s in seen) == 2 * STEPS
    assert result.stages[-1].macs <= 0.6 * result.stages[0].macs
    assert json.loads(json.dumps(result.to_json()))["prune"]["goal"] == "macs"
