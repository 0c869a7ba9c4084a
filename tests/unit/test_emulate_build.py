"""Compilers are found, projects compile and link, and sizes come from the ELF file."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest
from emulate_support import BOTH_COMPILERS, COMPILERS, CORES, NO_GCC, NO_ZIG, ODD, PROJECT, TINY, odd_firmware

from tinydeploy.emulate.abi import ModelAbi
from tinydeploy.emulate.build import build
from tinydeploy.emulate.machine import Machine
from tinydeploy.emulate.toolchain import find_toolchain
from tinydeploy.errors import DeployError, MissingExtraError

M4 = CORES["cortex-m4"]


@NO_GCC
def test_gcc_on_path_is_taken_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINYDEPLOY_COMPILER", raising=False)
    assert find_toolchain(M4).version.startswith("arm-none-eabi-gcc ")


@NO_ZIG
def test_zig_is_taken_where_gcc_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINYDEPLOY_COMPILER", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert find_toolchain(M4).version.startswith("zig cc ")


@NO_ZIG
def test_the_environment_forces_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYDEPLOY_COMPILER", "zig")
    assert find_toolchain(M4).kind == "zig"
    monkeypatch.setenv("TINYDEPLOY_COMPILER", "tcc")
    with pytest.raises(DeployError, match="unknown compiler 'tcc'"):
        find_toolchain(M4)


def _hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    real = importlib.import_module

    def refuse(name: str) -> object:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", refuse)


def test_without_any_compiler_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINYDEPLOY_COMPILER", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    _hide(monkeypatch, "ziglang")
    with pytest.raises(MissingExtraError, match=r"tinydeploy\[emulate\]"):
        find_toolchain(M4)


@NO_GCC
@pytest.mark.parametrize("package", ["unicorn", "elftools"])
def test_without_the_emulator_the_extra_is_named(
    package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    firmware = odd_firmware(tmp_path, "output[0] = input[0];")
    _hide(monkeypatch, package)
    with pytest.raises(MissingExtraError, match=r"tinydeploy\[emulate\]"):
        if package == "unicorn":
            Machine(firmware)
        else:
            odd_firmware(tmp_path, "output[0] = input[0];")


@NO_ZIG
@pytest.mark.parametrize("home", [None, *(pytest.param(h, marks=pytest.mark.slow) for h in ("", "empty"))])
def test_zig_needs_no_home(home: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("XDG_CACHE_HOME", "ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR", "HOME"):
        monkeypatch.delenv(name, raising=False)
    if home == "empty":
        (tmp_path / "home").mkdir()
    if home is not None:
        monkeypatch.setenv("HOME", str(tmp_path / "home") if home else "")
    found = find_toolchain(M4, "zig")
    build(PROJECT, TINY, M4, found, tmp_path / "out")


@pytest.mark.parametrize("compiler", BOTH_COMPILERS)
@pytest.mark.parametrize("core", CORES)
def test_sizes_are_those_of_the_linked_file(core: str, compiler: str, tmp_path: Path) -> None:
    firmware = build(PROJECT, TINY, CORES[core], find_toolchain(CORES[core], compiler), tmp_path)
    assert firmware.flash_weights_bytes == 512 + 256  # the unused array is gone
    assert 200 < firmware.flash_code_bytes < 1000
    assert firmware.flash_bytes == firmware.flash_code_bytes + firmware.flash_weights_bytes
    assert firmware.static_ram_bytes == 321 + 4
    names = {function.name.partition(".")[0] for function in firmware.functions}
    assert {"tiny_run", "tiny_input", "tiny_output", "tiny_00_scale", "tiny_01_dense"} <= names
    assert all(function.start < function.end for function in firmware.functions)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_copy_pulls_in_memcpy_and_nothing_else_does(compiler: str, tmp_path: Path) -> None:
    without = odd_firmware(tmp_path / "a", "output[0] = input[0];", compiler=compiler)
    declared = "#include <stddef.h>\nvoid *memcpy(void *to, const void *from, size_t count);"
    layer = "memcpy(output, input, (size_t)(uint8_t)input[0]);"
    copying = odd_firmware(tmp_path / "b", layer, globals_=declared, compiler=compiler)
    assert not any("mem" in function.name for function in without.functions)
    assert copying.flash_code_bytes > without.flash_code_bytes + 20
    assert Machine(copying).run([bytes([16, *range(15)])]).outputs == (bytes([16, *range(15)]),)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_small_fixed_copies_are_inlined(compiler: str, tmp_path: Path) -> None:
    declared = "#include <stddef.h>\nvoid *memcpy(void *to, const void *from, size_t count);"
    layer = "int32_t word; memcpy(&word, input, 4); output[0] = (int8_t)(word >> 7);"
    firmware = odd_firmware(tmp_path, layer, globals_=declared, compiler=compiler)
    assert not any("mem" in function.name for function in firmware.functions)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_compilers_message_is_the_hint(compiler: str, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"compiling odd\.c") as caught:
        odd_firmware(tmp_path, "this is not C;", compiler=compiler)
    assert "odd.c:" in caught.value.hint


@pytest.mark.parametrize("compiler", COMPILERS)
def test_an_arena_of_another_size_is_refused(compiler: str, tmp_path: Path) -> None:
    abi = ModelAbi("tiny", (256,), (64,), 317, TINY.sources)
    with pytest.raises(DeployError, match="the arena's object has 321 bytes and the model states 317"):
        build(PROJECT, abi, M4, find_toolchain(M4, compiler), tmp_path)


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"the project has no file 'odd\.c'"):
        build(PROJECT, ODD, M4, find_toolchain(M4), tmp_path)
