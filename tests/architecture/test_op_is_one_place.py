"""One op is one place: a new op touches its own file and one table entry a format."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tinydeploy
from tinydeploy.backends.c.lower import LOWER
from tinydeploy.backends.tflite_operators import WRITERS
from tinydeploy.ops import OPS, Dequantize

PACKAGE = Path(tinydeploy.__file__).parent

# Logistic stands for an op without anything special: what it touches, a new op touches.
TABLES = {
    "ops/__init__.py",
    "ops/activation.py",
    "backends/c/lower.py",
    "backends/c/lower_other.py",
    "backends/tflite_operators.py",
    "frontends/tflite_operators.py",
    "quantize/rules.py",
}


def files_that_name(op: str) -> set[str]:
    return {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(rf"\b{op}\b", path.read_text(encoding="utf-8"))
    }


def test_a_plain_op_touches_its_own_file_and_one_table_a_format() -> None:
    touched = files_that_name("Logistic")
    formats = {f for f in touched if re.match(r"(frontends|backends)/(onnx|torch)", f) or "trainable" in f}
    assert touched - formats <= TABLES
    per_format = [re.split(r"[_.]", Path(f).stem)[0] + Path(f).parts[0] for f in formats]
    assert len(per_format) == len(set(per_format)), f"one table a format: {sorted(formats)}"


@pytest.mark.parametrize("kind", sorted(OPS))
def test_every_op_has_its_entry_in_every_table(kind: str) -> None:
    op = OPS[kind]
    assert op in WRITERS
    # DEQUANTIZE is float at one end, and generated C is integer only.
    assert (op in LOWER) == (op is not Dequantize)


@pytest.mark.parametrize("kind", sorted(OPS))
def test_every_op_says_where_its_integer_rule_comes_from(kind: str) -> None:
    if kind not in ("RESHAPE", "DEQUANTIZE"):
        assert "Integer rule:" in (OPS[kind].__doc__ or "")


def test_files_and_functions_stay_small() -> None:
    for path in PACKAGE.rglob("*"):
        if path.suffix in (".py", ".h", ".c"):
            lines = path.read_text(encoding="utf-8").count("\n")
            assert lines <= 400, f"{path.relative_to(PACKAGE)} has {lines} lines"
