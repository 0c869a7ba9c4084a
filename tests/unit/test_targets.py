"""A board is one TOML file and no Python: what a good file gives, what ships, and what stands behind it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tinydeploy import targets
from tinydeploy.errors import DeployError
from tinydeploy.targets import FlashTiming, Target, list_targets, load_target
from tinydeploy.timing import Validation

ROOT = Path(__file__).resolve().parents[2] / "targets"
SHIPPED_CORES = sorted(path.stem for path in (ROOT / "cores").glob("*.toml"))
SHIPPED_BOARDS = sorted(path.stem for path in (ROOT / "boards").glob("*.toml"))

# [validation] lies behind what every file of these tests has.
VALIDATION = """
[validation]
points = 8
mean_error_pct = 3.5
worst_error_pct = 9
text = "MLPerf Tiny"
"""

GOOD = """\
schema = 1
name = "my-board"
title = "My board"
chip = "XYZ123"
core = "cortex-m4"
clock_mhz = 84.5
flash_bytes = 65536
ram_bytes = 16384

[flash]
wait_states = 2
line_bytes = 8
icache_bytes = 1024
dcache_bytes = 0
prefetch = true

[sources]
clock_mhz = "XYZ data sheet, features"
flash_bytes = "XYZ data sheet, memories"
ram_bytes = "XYZ data sheet, memories"
flash.wait_states = "XYZ manual, flash"
flash.line_bytes = "XYZ manual, flash"
flash.icache_bytes = "XYZ manual, flash"
flash.dcache_bytes = "XYZ manual, flash"
flash.prefetch = "XYZ manual, flash"
"""


def write(folder: Path, content: str | bytes, name: str = "my-board.toml") -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def refusal(path: str) -> DeployError:
    with pytest.raises(DeployError) as caught:
        load_target(path)
    return caught.value


def figures(target: Target) -> set[str]:
    board = target.board
    if board is None:
        return {"architecture", "dsp", "fpu"}
    found = {"clock_mhz", "flash_bytes", "ram_bytes"}
    if board.flash:
        found |= {f"flash.{key}" for key in FlashTiming.__dataclass_fields__}
        if not board.flash.unified_cache:
            found.remove("flash.unified_cache")
        if not board.flash.prefetch_enabled:
            found.remove("flash.prefetch_enabled")
    return found | ({"power.active_uw_per_mhz"} if board.power else set())


class TestShippedFiles:
    def test_cores_come_first_and_both_kinds_are_sorted(self) -> None:
        assert [target.name for target in list_targets()] == SHIPPED_CORES + SHIPPED_BOARDS
        assert [target.kind for target in list_targets()] == ["core"] * len(SHIPPED_CORES) + ["board"] * len(
            SHIPPED_BOARDS
        )

    def test_there_are_boards_for_every_core_but_the_host(self) -> None:
        boards = [load_target(name).core.name for name in SHIPPED_BOARDS]
        assert len(boards) >= 25
        assert set(boards) == set(SHIPPED_CORES) - {"host"}

    @pytest.mark.parametrize("name", SHIPPED_CORES + SHIPPED_BOARDS)
    def test_each_loads_by_its_name(self, name: str) -> None:
        target = load_target(name)
        assert target.name == name
        assert target in list_targets()

    @pytest.mark.parametrize("name", SHIPPED_CORES + SHIPPED_BOARDS)
    def test_each_figure_has_a_source(self, name: str) -> None:
        target = load_target(name)
        sources = target.board.sources if target.board else target.core.sources
        assert set(sources) == figures(target)
        assert all(source.strip() for source in sources.values())

    @pytest.mark.parametrize("name", SHIPPED_CORES + SHIPPED_BOARDS)
    def test_to_json_holds_all_facts(self, name: str) -> None:
        target = load_target(name)
        found = json.loads(json.dumps(target.to_json(), allow_nan=False))
        assert found == target.to_json()
        assert found["kind"] == ("board" if target.board else "core")
        assert found["core"]["gcc_flags"] == list(target.core.gcc_flags)
        assert set(found["sources"]) == figures(target)
        assert (found["clock_mhz"] is None) == (target.board is None)

    def test_only_the_host_runs_without_an_emulator(self) -> None:
        assert [target.name for target in list_targets() if not target.core.emulator] == ["host"]
        assert load_target("host").core.gcc_flags == ()

    def test_a_bare_core_has_no_board(self) -> None:
        assert load_target("cortex-m4").board is None

    def test_the_reference_board(self) -> None:
        target = load_target("nucleo-l4r5zi")
        assert target.board is not None
        assert (target.core.name, target.board.clock_mhz) == ("cortex-m4", 120.0)
        assert target.board.flash == FlashTiming(5, 8, 1024, 256, prefetch=True)

    def test_one_cache_for_code_and_data_is_not_counted_twice(self) -> None:
        board = load_target("raspberry-pi-pico").board
        assert board is not None
        assert board.flash is not None
        assert board.flash.unified_cache


class TestOwnBoardFile:
    def test_it_loads_by_its_path(self, tmp_path: Path) -> None:
        target = load_target(write(tmp_path, GOOD))
        assert target.name == "my-board"
        assert target.core == load_target("cortex-m4").core
        assert target.board is not None
        assert target.board.clock_mhz == 84.5
        assert target.board.flash == FlashTiming(2, 8, 1024, 0, prefetch=True)
        assert target.board.sources["flash.line_bytes"] == "XYZ manual, flash"

    def test_a_name_that_ends_in_toml_is_a_path(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path, GOOD)
        monkeypatch.chdir(tmp_path)
        assert load_target("my-board.toml").name == "my-board"

    def test_flash_timing_may_be_left_out(self, tmp_path: Path) -> None:
        head, _, rest = GOOD.partition("[flash]")
        sources = [line for line in rest.partition("[sources]")[2].splitlines() if "flash." not in line]
        board = load_target(write(tmp_path, head + "[sources]" + "\n".join(sources))).board
        assert board is not None
        assert board.flash is None

    def test_what_it_was_compared_with(self, tmp_path: Path) -> None:
        assert load_target(write(tmp_path, GOOD)).validation is None
        found = load_target(write(tmp_path, GOOD + VALIDATION))
        assert found.validation == Validation(8, 3.5, 9.0, "MLPerf Tiny")
        assert found.core.validation is None
        assert found.to_json()["validation"] == asdict(Validation(8, 3.5, 9.0, "MLPerf Tiny"))

    def test_a_prefetch_that_is_on(self, tmp_path: Path) -> None:
        on = GOOD.replace("prefetch = true\n", "prefetch = true\nprefetch_enabled = true\n")
        board = load_target(write(tmp_path, on + 'flash.prefetch_enabled = "XYZ library"\n')).board
        assert board is not None
        assert board.flash is not None
        assert board.flash.prefetch_enabled

    def test_a_whole_number_of_mhz_is_a_clock(self, tmp_path: Path) -> None:
        board = load_target(write(tmp_path, GOOD.replace("84.5", "84"))).board
        assert board is not None
        assert isinstance(board.clock_mhz, float)


# What is wrong, text of GOOD, what replaces it, the key that the message names, what it says is allowed.
class TestTiming:
    """The table of timings of a core, and what cycles were compared with."""

    @staticmethod
    def read(folder: Path, text: str) -> targets.Core:
        path = folder / "cortex-m4.toml"
        path.write_text(text)
        return targets._read_core(path)

    @staticmethod
    def good() -> str:
        return targets._files("cores")["cortex-m4"].read_text().partition("[validation]")[0]

    def test_every_core_but_the_host_has_timings(self) -> None:
        untimed = {t.name for t in list_targets() if t.kind == "core" and t.core.timing is None}
        assert untimed == {"host"}

    def test_only_a_core_with_an_fpu_has_timings_of_it(self) -> None:
        m3, m4 = load_target("cortex-m3").core.timing, load_target("cortex-m4").core.timing
        assert m3 is not None
        assert m4 is not None
        assert (m3.float_divide, m4.float_divide) == (None, 14)

    def test_timings_may_be_left_out(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, self.good().partition("[timing]")[0]).timing is None

    def test_a_core_can_be_validated(self, tmp_path: Path) -> None:
        core = self.read(tmp_path, self.good() + VALIDATION)
        assert core.validation == Validation(8, 3.5, 9.0, "MLPerf Tiny")

    @pytest.mark.parametrize(
        ("old", "new", "key", "allowed"),
        [
            ("load_pipelined = 1\n", "", "timing.load_pipelined", "allowed keys: alu"),
            ("load_pipelined", "load_pipelin", "timing.load_pipelin", "did you mean 'load_pipelined'?"),
            ("divide = 7", "divide = 7.5", "timing.divide", "an integer from 0 to 100"),
            ("divide = 7", "divide = 101", "timing.divide", "an integer from 0 to 100"),
            ("divide = 7", "divide = -1", "timing.divide", "an integer from 0 to 100"),
            ("points = 8", "points = 0", "validation.points", "an integer from 1 to"),
            ("points = 8", "points = 8\nfitted = 1", "validation.fitted", "allowed keys: points"),
            ("mean_error_pct = 3.5", "mean_error_pct = nan", "validation.mean_error_pct", "above 0"),
            ("mean_error_pct = 3.5", "mean_error_pct = 10", "validation.mean_error_pct", "worst_error_pct"),
            ('text = "MLPerf Tiny"', 'text = ""', "validation.text", "printable characters"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, old: str, new: str, key: str, allowed: str) -> None:
        text = self.good() + VALIDATION
        assert text.count(old) == 1 or old == "load_pipelined"
        with pytest.raises(DeployError) as caught:
            self.read(tmp_path, text.replace(old, new, 1))
        assert caught.value.where == f"{tmp_path / 'cortex-m4.toml'}: {key}"
        assert allowed in caught.value.hint

    def test_a_timing_without_a_source(self, tmp_path: Path) -> None:
        text = "\n".join(line for line in self.good().splitlines() if not line.startswith("source = "))
        with pytest.raises(DeployError) as caught:
            self.read(tmp_path, text)
        assert "'source' is missing" in caught.value.fact


class TestUnknownNames:
    @pytest.mark.parametrize(
        ("name", "near"),
        [("cortex-m44", "cortex-m4"), ("nucleo-l4r5z", "nucleo-l4r5zi"), ("Cortex-M7", "cortex-m7")],
    )
    def test_the_nearest_is_named(self, name: str, near: str) -> None:
        error = refusal(name)
        assert repr(name) in error.fact
        assert f"did you mean {near!r}?" in error.hint
        assert "`tinydeploy targets`" in error.hint

    @pytest.mark.parametrize("name", ["", "zzzz", "x" * 10_000, "*", "\x1b[2J"])
    def test_where_none_is_near_all_can_be_listed(self, name: str) -> None:
        error = refusal(name)
        assert "`tinydeploy targets` lists all" in error.hint
        assert error.fact.isprintable()
        assert len(error.fact) < 500


class TestInstalledPackage:
    def test_the_files_inside_the_package_are_used_where_there_is_no_checkout(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shipped = targets._data_dir()
        package = tmp_path / "tinydeploy"
        package.mkdir()
        (package / "_targets").symlink_to(shipped)
        monkeypatch.setattr(targets, "__file__", str(package / "targets.py"))
        assert len(list_targets()) == len(SHIPPED_CORES) + len(SHIPPED_BOARDS)

    def test_without_any_files_the_message_says_what_to_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(targets, "__file__", str(tmp_path / "tinydeploy" / "targets.py"))
        assert "install tinydeploy again" in refusal("host").hint


def test_a_figure_that_could_not_be_looked_up_is_named() -> None:
    found = load_target("nrf52840-dk")
    assert found.board is not None
    assert "flash.wait_states" in found.board.unverified
    assert found.status == "unverified"
    assert found.to_json()["unverified"] == list(found.board.unverified)
    assert load_target("nucleo-l4r5zi").to_json()["unverified"] == []


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("cortex-m4", ""),
        ("nucleo-l4r5zi", "±8 % on 8"),
        ("ek-ra6m4", "no flash timing"),
        ("nucleo-f446re", "unvalidated"),
    ],
)
def test_what_stands_behind_the_latencies(target: str, status: str) -> None:
    assert load_target(target).status == status


def test_no_figure_is_from_memory() -> None:
    for target in list_targets():
        sources = target.board.sources if target.board else target.core.sources
        assert not [text for text in sources.values() if "from memory" in text or "not looked up" in text]
