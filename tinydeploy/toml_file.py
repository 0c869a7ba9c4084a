"""Reads TOML data files strictly: whatever is wrong names the file, the key, the fact and what is allowed."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from tinydeploy.errors import DeployError

FILE_BYTES_MAX = 64 * 1024
TEXT_MAX = 500

_TOML_TYPES = {bool: "boolean", int: "integer", float: "float", str: "string", list: "array", dict: "table"}

_T = TypeVar("_T")


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the known word most like `word`, or an empty text."""
    close = difflib.get_close_matches(word[:80], tuple(known), n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def read_toml(path: Path, hint: str = "docs/targets.md shows a whole board file") -> Table:
    """The file's top table; a file that is missing, too large, not UTF-8 or not TOML is refused."""
    where = str(path)
    try:
        if not path.is_file():
            raise DeployError("there is no such file", where=where, hint=hint)
        with path.open("rb") as stream:
            raw = stream.read(FILE_BYTES_MAX + 1)
        if len(raw) > FILE_BYTES_MAX:
            fact = f"the file is larger than the {FILE_BYTES_MAX} bytes allowed"
            raise DeployError(fact, where=where, hint=hint)
        return Table(tomllib.loads(raw.decode("utf-8")), where)
    except OSError as error:
        raise DeployError(f"the file cannot be read: {error.strerror}", where=where, hint=hint) from error
    except UnicodeDecodeError as error:
        raise DeployError(f"byte {error.start} is not UTF-8", where=where, hint=hint) from error
    except (ValueError, RecursionError) as error:
        # tomllib lets a plain ValueError through for an integer of thousands of digits.
        fact = f"the file is not valid TOML: {str(error)[:200]}"
        raise DeployError(fact, where=where, hint=hint) from error


class Table(dict[str, object]):
    """One table of a file; whatever is wrong with a key names the file, the key and what is allowed."""

    def __init__(self, values: Mapping[str, object], where: str, prefix: str = "") -> None:
        super().__init__(values)
        self._where = where
        self._prefix = prefix

    def error(self, key: str, fact: str, hint: str) -> DeployError:
        # Escaped, so that control characters of a hostile key stay off the terminal.
        shown = f"{self._prefix}{key}"[:80].encode("unicode_escape").decode()
        return DeployError(fact, where=f"{self._where}: {shown}", hint=hint)

    def check_keys(self, required: Iterable[str], optional: Iterable[str] = ()) -> None:
        allowed = (*required, *optional)
        listed = "allowed keys: " + ", ".join(allowed)
        for key in self:
            if key not in allowed:
                raise self.error(key, f"unknown key {key[:80]!r}", nearest(key, allowed) + listed)
        for key in required:
            if key not in self:
                raise self.error(key, f"the key {key!r} is missing", listed)

    def _typed(self, key: str, kind: type[_T], allowed: str) -> _T:
        if key not in self:
            raise self.error(key, f"the key {key!r} is missing", f"allowed: {allowed}")
        value = self[key]
        # A Python bool is an int, but a TOML boolean is no integer.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            found = _TOML_TYPES.get(type(value), "date or time")
            raise self.error(key, f"the value is of the type {found}", f"allowed: {allowed}")
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        allowed = f"the integer {low}" if low == high else f"an integer from {low} to {high}"
        value = self._typed(key, int, allowed)
        if not low <= value <= high:
            raise self.error(key, "the value is out of range", f"allowed: {allowed}")
        return value

    def positive(self, key: str, high: float) -> float:
        allowed = f"a number above 0 and up to {high:g}"
        value: float = self._typed(key, int if isinstance(self.get(key), int) else float, allowed)
        if not 0 < value <= high:  # NaN compares false, so it is refused here too
            raise self.error(key, "the value is out of range", f"allowed: {allowed}")
        return float(value)

    def boolean(self, key: str) -> bool:
        return self._typed(key, bool, "true or false")

    def text(self, key: str) -> str:
        allowed = f"a text of 1 to {TEXT_MAX} printable characters"
        value = self._typed(key, str, allowed)
        if not (value.strip() and value.isprintable() and len(value) <= TEXT_MAX):
            raise self.error(key, "the text is empty, too long or not printable", f"allowed: {allowed}")
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        allowed = ", ".join(map(repr, choices))
        value = self._typed(key, str, allowed)
        if value not in choices:
            hint = f"{nearest(value, choices)}allowed: {allowed}"
            raise self.error(key, f"unknown value {value[:80]!r}", hint)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        values: list[object] = self._typed(key, list, "an array of texts")
        rows = Table({str(i): row for i, row in enumerate(values)}, self._where, f"{self._prefix}{key}.")
        return tuple(rows.text(row) for row in rows)

    def table(self, key: str) -> Table:
        return Table(self._typed(key, dict, "a table"), self._where, f"{self._prefix}{key}.")

    def tables(self, key: str, most: int) -> list[Table]:
        """An array of tables."""
        values: list[object] = self._typed(key, list, "an array of tables")
        if len(values) > most:
            raise self.error(key, f"there are {len(values)} tables", f"allowed: at most {most}")
        rows = Table({str(i): row for i, row in enumerate(values)}, self._where, f"{self._prefix}{key}.")
        return [rows.table(row) for row in rows]

    def flattened(self) -> Table:
        """The same with the keys of a table inside joined by a dot: `a.b = ...` is the key "a.b"."""
        flat: dict[str, object] = {}
        for key, value in self.items():
            flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
        return Table(flat, self._where, self._prefix)
