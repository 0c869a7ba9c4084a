"""The five reference models: engine, emulated core and accuracy, against TensorFlow Lite Micro."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from qemu import run_qemu, why_not
from shared import DATA, MODELS, golden, model_path, needs_data, write_golden_inputs

from tinydeploy import api
from tinydeploy.backends.c.project import ExportOptions, make_project
from tinydeploy.cli.main import cli
from tinydeploy.emulate.build import build
from tinydeploy.emulate.machine import Machine
from tinydeploy.emulate.toolchain import find_toolchain
from tinydeploy.engine import run
from tinydeploy.measure import model_abi
from tinydeploy.targets import load_target

pytestmark = needs_data

ARENA_LIMIT = {"kws": 16_500, "ic": 50_000, "vww": 56_000, "ad": 1_300, "sww": 8_000}
INSTRUCTION_LIMIT = {"kws": 20_000_000, "ic": 85_000_000, "vww": 55_000_000, "ad": 1_400_000}


def invoke(*arguments: str) -> tuple[int, dict[str, object]]:
    result = CliRunner().invoke(cli, list(arguments))
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize("name", MODELS)
def test_the_engine_equals_tensorflow_lite_micro(name: str) -> None:
    graph = api.load_model(model_path(name)).graph
    z = golden(name)
    (y,) = run(graph, [z["x"].reshape(-1, *graph.value(graph.inputs[0]).shape)])
    assert np.count_nonzero(y != z["y_tflm"].reshape(y.shape)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_cortex_m4_equals_engine_and_golden(name: str, tmp_path: Path) -> None:
    inputs = write_golden_inputs(name, tmp_path)
    code, report = invoke(
        "verify", str(model_path(name)), "--target", "cortex-m4", "--inputs", str(inputs), "--json"
    )
    assert code == 0
    assert report["mismatches"] == 0
    assert report["float_symbols"] == []
    assert report["unaligned_ok"] is True
    assert report["faults"] == []
    assert report["arena_touched_bytes"] == report["arena_bytes"] <= ARENA_LIMIT[name]
    assert report["instructions"] <= INSTRUCTION_LIMIT.get(name, 10_000_000)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "limit"), [("kws", 9_500_000), ("ic", 33_000_000), ("vww", 17_500_000)])
def test_a_core_without_a_long_multiplication_takes_half_or_less(
    name: str, limit: int, tmp_path: Path
) -> None:
    inputs = write_golden_inputs(name, tmp_path)
    code, report = invoke(
        "verify", str(model_path(name)), "--target", "cortex-m0plus", "--inputs", str(inputs), "--json"
    )
    assert (code, report["mismatches"], report["unaligned_ok"], report["faults"]) == (0, 0, True, [])
    assert report["instructions"] <= limit


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cortex-m0plus", "cortex-m33", "cortex-m7", "cortex-m3", "host"])
@pytest.mark.parametrize("name", ["kws", "ad"])
def test_other_cores_equal_engine_and_golden(name: str, target: str, tmp_path: Path) -> None:
    inputs = write_golden_inputs(name, tmp_path)
    code, report = invoke(
        "verify", str(model_path(name)), "--target", target, "--inputs", str(inputs), "--json"
    )
    assert (code, report["mismatches"], report["unaligned_ok"]) == (0, 0, True)
    assert report["float_symbols"] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_risc_v_equals_engine_and_golden(name: str, tmp_path: Path) -> None:
    inputs = write_golden_inputs(name, tmp_path)
    code, report = invoke(
        "verify", str(model_path(name)), "--target", "rv32imc", "--inputs", str(inputs), "--json"
    )
    assert (code, report["mismatches"], report["unaligned_ok"]) == (0, 0, True)
    assert (report["float_symbols"], report["faults"]) == ([], [])
    assert report["cycles"] > report["instructions"] > 0


@pytest.mark.slow
def test_zig_alone_proves_a_model(tmp_path: Path) -> None:
    inputs = write_golden_inputs("ad", tmp_path)
    code, report = invoke(
        *("verify", str(model_path("ad")), "--target", "cortex-m4", "--inputs", str(inputs)),
        *("--compiler", "zig", "--json"),
    )
    assert (code, report["mismatches"], report["float_symbols"]) == (0, 0, [])
    assert str(report["compiler"]).startswith("zig")


def test_one_flipped_bit_is_one_mismatch(tmp_path: Path) -> None:
    inputs = write_golden_inputs("ad", tmp_path, flip=True)
    code, report = invoke(
        "verify", str(model_path("ad")), "--target", "cortex-m4", "--inputs", str(inputs), "--json"
    )
    assert (code, report["mismatches"]) == (1, 1)


def test_kws_evaluates_to_901_of_1000() -> None:
    code, report = invoke("evaluate", str(model_path("kws")), "--data", str(DATA / "kws01.npz"), "--json")
    assert code == 0
    assert report["value"] == 0.901
    assert report["samples"] == 1000


@pytest.mark.slow
@pytest.mark.skipif(bool(why_not()), reason=str(why_not()))
@pytest.mark.parametrize("name", MODELS)
def test_qemu_gives_the_same_outputs_and_instruction_count(name: str, tmp_path: Path) -> None:
    graph = api.load_model(model_path(name)).graph
    project = make_project(graph, ExportOptions(name, "cortex-m4", "latency", "0" * 64, dsp=True))
    folder = tmp_path / "project"
    folder.mkdir()
    for file, text in project.files.items():
        (folder / file).write_text(text)
    abi, core = model_abi(project), load_target("cortex-m4").core
    firmware = build(folder, abi, core, find_toolchain(core, "gcc"), tmp_path / "build")
    sample = [golden(name)["x"][0].tobytes()]
    ours = Machine(firmware).run(sample, count=True)
    theirs = run_qemu(folder, abi, sample, tmp_path / "qemu", objects=firmware.objects)
    assert theirs.outputs == ours.outputs
    assert ours.instructions is not None
    assert abs(theirs.instructions - ours.instructions) <= 0.001 * ours.instructions
