"""The weights in RAM: the same instructions and outputs, and no waits for weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sweeps import thinned

from tinydeploy import api
from tinydeploy.backends.c.project import ExportOptions, make_project
from tinydeploy.data import random_samples
from tinydeploy.emulate.build import build, relink_weights_in_ram
from tinydeploy.emulate.toolchain import find_toolchain
from tinydeploy.errors import DeployError
from tinydeploy.measure import Job, Measurement, measure, model_abi
from tinydeploy.targets import Target, load_target

MODEL = Path(__file__).resolve().parent.parent.parent / "fixtures" / "digits" / "digits_int8.tflite"
BOARDS = ("nucleo-l4r5zi", "raspberry-pi-pico")


def measured(target: Target, compiler: str | None = None) -> Measurement:
    graph = api.load_model(MODEL).graph
    options = ExportOptions("digits", target.name, "latency", "0" * 64, target.core.dsp)
    job = Job(graph, options, target.core, compiler, target.board)
    return measure(job, random_samples(graph, 1, 0), prove=False, placement=True)


@pytest.mark.parametrize("board", thinned(BOARDS, 2))
def test_only_the_waits_for_weights_go(board: str) -> None:
    m = measured(load_target(board))
    before, moved = m.latency.parts, m.weights_in_ram
    assert before is not None
    assert moved is not None
    after = moved.latency.parts
    assert after is not None
    assert (after.issue, after.branches) == (before.issue, before.branches)
    assert after.flash_read < before.flash_read
    assert moved.saved == before.total - after.total > 0
    assert m.sizes is not None
    assert moved.ram_bytes == m.ram_bytes + m.sizes.flash_weights  # type: ignore[operator]
    layers = [layer.function for layer in m.project.model.layers]
    assert moved.cycles_of(layers).total <= after.total
    assert moved.cycles_of(layers[:1]).total > 0


def test_what_the_board_has_no_room_for_is_said() -> None:
    target = load_target(BOARDS[0])
    assert target.board is not None
    m = measured(replace(target, board=replace(target.board, ram_bytes=4096)))
    assert m.weights_in_ram is not None
    assert not m.weights_in_ram.fits


def test_without_a_modelled_flash_there_is_nothing_to_compare() -> None:
    assert measured(load_target("cortex-m4")).weights_in_ram is None
    assert measured(load_target("nrf5340-dk")).weights_in_ram is None


@pytest.mark.parametrize("compiler", thinned(["gcc", "zig"], 2))
def test_the_weights_are_all_that_moves(compiler: str, tmp_path: Path) -> None:
    target = load_target("cortex-m4")
    try:
        toolchain = find_toolchain(target.core, compiler)
    except DeployError as error:
        pytest.skip(str(error))
    graph = api.load_model(MODEL).graph
    project = make_project(graph, ExportOptions("digits", "cortex-m4", "latency", "0" * 64, True))
    for name, text in project.files.items():
        (tmp_path / name).write_text(text)
    before = build(tmp_path, model_abi(project), target.core, toolchain, tmp_path / "a")
    after = relink_weights_in_ram(before, tmp_path / "b")
    where = [{s.name: s.address for s in f.image.sections} for f in (before, after)]
    assert where[0][".weights"] < 0x2000_0000 <= where[1][".weights"]
    assert where[0][".text"] == where[1][".text"]
    assert after.flash_weights_bytes == before.flash_weights_bytes
    assert sum(s.size for s in after.image.sections if s.name == ".weights") >= before.flash_weights_bytes
    assert [f.name for f in after.functions] == [f.name for f in before.functions]
