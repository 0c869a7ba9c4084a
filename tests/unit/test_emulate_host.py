"""A model on this machine: the same outputs as on the emulated cores, and sanitizers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from emulate_support import ODD, PROJECT, TINY, odd_firmware, tiny_expected, tiny_input

from tinydeploy.emulate.host import HostProgram, build_host
from tinydeploy.emulate.toolchain import find_toolchain
from tinydeploy.errors import DeployError
from tinydeploy.targets import load_target

HOST = load_target("host").core
NO_CC = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("cc", "gcc", "clang")),
    reason="no native compiler with sanitizers",
)


@pytest.mark.parametrize("sanitize", [False, pytest.param(True, marks=NO_CC)])
def test_all_samples_in_one_go(sanitize: bool, tmp_path: Path) -> None:
    program = build_host(PROJECT, TINY, find_toolchain(HOST), tmp_path, sanitize=sanitize)
    samples = [[tiny_input(seed)] for seed in range(5)]
    for runs in (program.run(samples), *(program.run(samples, place="outside", offset=n) for n in range(4))):
        assert [run.outputs for run in runs] == [(tiny_expected(data),) for (data,) in samples]
        assert {run.status for run in runs} == {0}


def odd_program(layer: str, folder: Path) -> HostProgram:
    odd_firmware(folder, layer)
    return build_host(folder / "project", ODD, find_toolchain(HOST), folder / "host", sanitize=True)


@NO_CC
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("output[(int)input[0] + 16] = 1;", "heap-buffer-overflow"),
        ("output[0] = (int8_t)(0x7fffffff + (int)input[0] >> 24);", "signed integer overflow"),
    ],
)
def test_sanitizers_stop_the_program(layer: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="ended with status") as caught:
        odd_program(layer, tmp_path).run([[bytes([1] * 16)]], place="outside")
    assert message in caught.value.hint


def test_a_sample_of_another_size_is_refused(tmp_path: Path) -> None:
    program = build_host(PROJECT, TINY, find_toolchain(HOST), tmp_path)
    with pytest.raises(DeployError, match=r"inputs of \(3,\) bytes"):
        program.run([[b"abc"]])
