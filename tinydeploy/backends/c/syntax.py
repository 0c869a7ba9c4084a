"""Small pieces of C text: initialisers, arrays, comments and identifiers."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tinydeploy.errors import DeployError
from tinydeploy.ir.types import Array

WIDTH = 100

_KEYWORDS = frozenset(
    (
        *("auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum"),
        *("extern", "float", "for", "goto", "if", "inline", "int", "long", "main", "register", "restrict"),
        *("return", "short", "signed", "sizeof", "static", "struct", "switch", "typedef", "union"),
        *("unsigned", "void", "volatile", "while"),
    )
)

# Files of the project or of the compiler would be replaced by NAME.h and NAME.c; lower case, as some
# file systems do not tell cases apart.
_TAKEN_FILES = frozenset({"example_main", "stdint", "stddef", "stdio"})

# Stands for a space at which a line is not broken.
_GLUED_SPACE = "\x01"


def _glue(match: re.Match[str]) -> str:
    return match.group().replace(" ", _GLUED_SPACE)


@dataclass(frozen=True)
class Struct:
    """A C structure with named members, for an initialiser."""

    members: tuple[tuple[str, int | tuple[int, ...] | Struct], ...]

    @property
    def bytes(self) -> int:
        """Its size, of members of four bytes."""
        sizes = (
            v.bytes if isinstance(v, Struct) else 4 * len(v) if isinstance(v, tuple) else 4
            for _, v in self.members
        )
        return sum(sizes)

    def initialiser(self) -> str:
        """`{ .a = 1, .b = { 2, 3 } }`"""
        return "{ " + ", ".join(_designated(member) for member in self.members) + " }"

    def lines(self, indent: str) -> Iterator[str]:
        """The members line by line: numbers side by side, each structure on a line of its own."""
        for is_struct, group in itertools.groupby(self.members, lambda m: isinstance(m[1], Struct)):
            if not is_struct:
                yield wrapped(" ".join(_designated(member) + "," for member in group), indent, hang="")
                continue
            for name, value in group:
                line = f"{indent}{_designated((name, value))},"
                if len(line) <= WIDTH or not isinstance(value, Struct):
                    yield line
                else:
                    yield f"{indent}.{name} = {{"
                    yield from value.lines(indent + "    ")
                    yield f"{indent}}},"


class Named(int):
    """A number that an enumerator of the kernels stands for."""

    text: str

    def __new__(cls, value: int, text: str) -> Named:
        made = super().__new__(cls, value)
        made.text = text
        return made


def struct(**members: int | tuple[int, ...] | Struct) -> Struct:
    """A structure from keyword arguments, in their order."""
    return Struct(tuple(members.items()))


def _designated(member: tuple[str, int | tuple[int, ...] | Struct]) -> str:
    return f".{member[0]} = {_member(member[1])}"


def _member(value: int | tuple[int, ...] | Struct) -> str:
    if isinstance(value, Struct):
        return value.initialiser()
    if isinstance(value, tuple):
        return "{ " + ", ".join(map(integer, value)) + " }"
    return integer(value)


def integer(value: int) -> str:
    """A C literal of type int, or the name of an enumerator; the most negative one has no literal."""
    if isinstance(value, Named):
        return value.text
    return "INT32_MIN" if value == -(2**31) else str(int(value))


def wrapped(text: str, indent: str, hang: str = "    ") -> str:
    """Text broken at spaces, with a hanging indent; `.member = value` stays in one piece."""
    pieces = re.sub(r" = (?!\{ \.)|(?<=\{) | (?=\})|(?<=\d), (?=\d|-)| (?=\*)|(?<=const) ", _glue, text)
    return "\n".join(
        line.replace(_GLUED_SPACE, " ")
        for line in textwrap.wrap(
            pieces,
            WIDTH,
            initial_indent=indent,
            subsequent_indent=indent + hang,
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def array(ctype: str, name: str, data: Array) -> str:
    """`static const` definition of a one-dimensional integer array."""
    flat = np.asarray(data).reshape(-1)
    values = ", ".join(integer(v) for v in flat.tolist())
    indent = "    "
    body = textwrap.fill(
        values, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return f"static const {ctype} {name}[{flat.size}] = {{\n{body}\n}};\n"


def comment(text: str) -> str:
    """Text made harmless inside a C comment: no ends of comments, trigraphs, backslashes or controls."""
    # Backslashes first: what they become must not end a comment either.
    printable = "".join(c if " " <= c <= "~" else "?" for c in text).replace("\\", "/")
    return re.sub(r"\?(?=\?)", "? ", printable.replace("*/", "* /").replace("/*", "/ *"))


def _is_taken(name: str) -> bool:
    return name in _KEYWORDS or name.lower() in _TAKEN_FILES or name.startswith("td_")


def check_name(name: str) -> str:
    """Accepts a C identifier that can prefix a whole model, or raises DeployError."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,62}", name) or _is_taken(name):
        raise DeployError(
            f"{name!r} cannot prefix the generated C",
            where="--name",
            hint="a letter, then letters, digits and _, at most 63 characters; no C keyword or header; not"
            " td_...",
        )
    return name


def name_from(stem: str) -> str:
    """A valid name made from a file's stem."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", stem).strip("_").lower()[:63]
    if not name or not name[0].isalpha() or _is_taken(name):
        name = f"model_{name}"[:63].rstrip("_")
    return name
