"""How each wrong board or core file is refused: by file, key, and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_targets import GOOD, refusal, write

from tinydeploy import targets
from tinydeploy.errors import DeployError

WRONG = [
    ("a later schema", "schema = 1", "schema = 2", "schema", "the integer 1"),
    ("no schema", "schema = 1\n", "", "schema", "the integer 1"),
    ("a schema that is a boolean", "schema = 1", "schema = true", "schema", "the integer 1"),
    ("an unknown key", "chip = ", "chipp = ", "chipp", "did you mean 'chip'? allowed keys: schema, name"),
    ("an unknown key of flash", "line_bytes = 8", "line_size = 8", "flash.line_size", "'line_bytes'"),
    ("a control character in a key", "chip = ", '"\\u001b[2J" = ', "\\x1b[2J", "allowed keys"),
    ("a missing key", 'chip = "XYZ123"\n', "", "chip", "allowed keys: schema, name, title, chip"),
    ("a missing key of flash", "prefetch = true\n", "", "flash.prefetch", "allowed keys: wait_states"),
    ("a number for a text", '"XYZ123"', "123", "chip", "printable characters"),
    ("an empty text", '"XYZ123"', '" "', "chip", "printable characters"),
    ("a text with an escape sequence", '"XYZ123"', '"\\u001b[31m"', "chip", "printable characters"),
    ("a text that is too long", "XYZ123", "X" * 501, "chip", "1 to 500"),
    ("a text for a number", "84.5", '"84"', "clock_mhz", "above 0 and up to 2000"),
    ("a boolean for a number", "84.5", "true", "clock_mhz", "above 0 and up to 2000"),
    ("a date for a number", "84.5", "1979-05-27", "clock_mhz", "above 0 and up to 2000"),
    ("a clock of 0", "84.5", "0", "clock_mhz", "above 0 and up to 2000"),
    ("a clock below 0", "84.5", "-1.0", "clock_mhz", "above 0 and up to 2000"),
    ("a clock that is too fast", "84.5", "2000.1", "clock_mhz", "above 0 and up to 2000"),
    ("a clock that is not a number", "84.5", "nan", "clock_mhz", "above 0 and up to 2000"),
    ("an infinite clock", "84.5", "inf", "clock_mhz", "above 0 and up to 2000"),
    ("a clock of 4000 digits", "84.5", "9" * 4000, "clock_mhz", "above 0 and up to 2000"),
    ("a clock that Python cannot print", "84.5", "0x" + "f" * 9000, "clock_mhz", "above 0"),
    ("a float for an integer", "65536", "65536.0", "flash_bytes", "an integer from 1024 to 1073741824"),
    ("a boolean for an integer", "16384", "true", "ram_bytes", "an integer from 1024 to 1073741824"),
    ("too little flash", "65536", "1023", "flash_bytes", "an integer from 1024 to 1073741824"),
    ("too much RAM", "16384", "1073741825", "ram_bytes", "an integer from 1024 to 1073741824"),
    ("wait states below 0", "wait_states = 2", "wait_states = -1", "flash.wait_states", "from 0 to 1000"),
    ("a line that is no power of 2", "line_bytes = 8", "line_bytes = 12", "flash.line_bytes", "4, 8, 16"),
    ("an integer for a boolean", "prefetch = true", "prefetch = 1", "flash.prefetch", "true or false"),
    ("an array for a table", "[flash]\n", "[[flash]]\n", "flash", "a table"),
    (
        "one cache of two sizes",
        "prefetch = true\n",
        "prefetch = true\nunified_cache = true\n",
        "flash.unified_cache",
        "icache_bytes = dcache_bytes",
    ),
    (
        "a prefetch that is on and not there",
        "prefetch = true\n",
        "prefetch = false\nprefetch_enabled = true\n",
        "flash.prefetch_enabled",
        "only where prefetch is true",
    ),
    ("an unknown core", "cortex-m4", "cortex-m5", "core", "'cortex-m0plus', 'cortex-m3', 'cortex-m33'"),
    ("a core that is no text", '"cortex-m4"', "4", "core", "'cortex-m0plus', 'cortex-m3'"),
    ("another name than the file's", '"my-board"', '"your-board"', "name", "'my-board'"),
    ("a name with capitals", '"my-board"', '"My-Board"', "name", "[a-z0-9][a-z0-9-]*"),
    ("a name that climbs out of its folder", '"my-board"', '"../my-board"', "name", "[a-z0-9][a-z0-9-]*"),
    (
        "a figure without a source",
        'ram_bytes = "XYZ data sheet, memories"\n',
        "",
        "sources.ram_bytes",
        "one source for each figure given",
    ),
    (
        "a flash figure without a source",
        'flash.prefetch = "XYZ manual, flash"\n',
        "",
        "sources.flash.prefetch",
        "one source for each figure given",
    ),
    (
        "a source without a figure",
        "[sources]\n",
        '[sources]\nvoltage = "XYZ"\n',
        "sources.voltage",
        "one source for each figure given",
    ),
    (
        "a power without a source",
        "[sources]\n",
        "[power]\nactive_uw_per_mhz = 300\n\n[sources]\n",
        "sources.power.active_uw_per_mhz",
        "one source for each figure given",
    ),
    (
        "a power of nothing",
        "[sources]\n",
        "[power]\nactive_uw_per_mhz = 0\n\n[sources]\n",
        "power.active_uw_per_mhz",
        "above 0",
    ),
    (
        "a power with an unknown key",
        "[sources]\n",
        "[power]\nactive_mw = 3\n\n[sources]\n",
        "power.active_mw",
        "active_uw_per_mhz",
    ),
    (
        "an empty source",
        'clock_mhz = "XYZ data sheet, features"',
        'clock_mhz = ""',
        "sources.clock_mhz",
        "printable characters",
    ),
]


class TestWrongFiles:
    @pytest.mark.parametrize(
        ("old", "new", "key", "allowed"), [row[1:] for row in WRONG], ids=[r[0] for r in WRONG]
    )
    def test_a_wrong_value_names_file_key_and_what_is_allowed(
        self, tmp_path: Path, old: str, new: str, key: str, allowed: str
    ) -> None:
        assert GOOD.count(old) >= 1
        path = write(tmp_path, GOOD.replace(old, new, 1))
        error = refusal(path)
        assert error.where == f"{path}: {key}"
        assert allowed in error.hint
        assert error.fact
        assert error.fact.isprintable()

    @pytest.mark.parametrize(
        ("content", "fact"),
        [
            (b"\xff\xfe" + GOOD.encode(), "byte 0 is not UTF-8"),
            (b"schema = ", "not valid TOML"),
            (b"schema = 1\nschema = 1\n", "not valid TOML"),
            (b"a = " + b"[" * 20_000, "not valid TOML"),
            (b"a = " + b"1" * 20_000, "not valid TOML"),
            (GOOD.encode() + b"#" * 64 * 1024, "larger than the 65536 bytes"),
        ],
        ids=["not UTF-8", "a syntax error", "a key twice", "deep nesting", "a huge number", "too large"],
    )
    def test_a_file_that_is_no_toml_names_the_file(self, tmp_path: Path, content: bytes, fact: str) -> None:
        path = write(tmp_path, content)
        error = refusal(path)
        assert error.where == path
        assert fact in error.fact
        assert "docs/targets.md" in error.hint

    def test_a_file_that_is_missing(self, tmp_path: Path) -> None:
        error = refusal(str(tmp_path / "none.toml"))
        assert "no such file" in error.fact

    def test_a_folder_is_no_board_file(self, tmp_path: Path) -> None:
        assert "no such file" in refusal(f"{tmp_path}/").fact

    def test_a_path_with_a_zero_byte(self) -> None:
        assert "no such file" in refusal("a\0.toml").fact

    def test_a_core_file_is_no_board_file(self) -> None:
        path = targets._files("cores")["cortex-m4"]
        assert "allowed keys" in refusal(str(path)).hint


class TestWrongCoreFiles:
    @pytest.mark.parametrize(
        ("old", "new", "key", "allowed"),
        [
            ("dsp = true", "dsp = 1", "dsp", "true or false"),
            ('"armv7e-m"', '"armv9"', "architecture", "'armv7e-m', 'armv8-m.main', 'rv32imc', 'host'"),
            ('emulator = "cortex-m4"', 'emulator = ""', "emulator", "'host' and no other"),
            ('"-mthumb"', "4", "gcc_flags.1", "printable characters"),
            ("\ndsp = ", '\ndspp = "Arm"\ndsp = ', "dspp", "did you mean 'dsp'?"),
        ],
    )
    def test_a_wrong_value_names_file_key_and_what_is_allowed(
        self, tmp_path: Path, old: str, new: str, key: str, allowed: str
    ) -> None:
        good = targets._files("cores")["cortex-m4"].read_text()
        path = tmp_path / "cortex-m4.toml"
        path.write_text(good.replace(old, new, 1))
        with pytest.raises(DeployError) as caught:
            targets._read_core(path)
        assert caught.value.where == f"{path}: {key}"
        assert allowed in caught.value.hint
