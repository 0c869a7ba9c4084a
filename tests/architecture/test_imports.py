"""Imports point one way; heavy packages stay out of the way of `--help`."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tinydeploy

PACKAGE = Path(tinydeploy.__file__).parent

# A module may import from its own group and from the groups above it in this list.
GROUPS: tuple[frozenset[str], ...] = (
    frozenset({"__init__", "errors", "hooks", "numerics", "parallel", "targets", "timing", "toml_file"}),
    frozenset({"ir"}),
    frozenset({"ops"}),
    frozenset({"frontends", "passes", "engine", "data", "trainable"}),
    frozenset(
        {
            "prune",
            "quantize",
            "plan",
            "evaluation",
            "finetune",
            "difference",
            "analysis",
            "repair",
            "precision",
        }
    ),
    frozenset({"backends", "emulate"}),
    frozenset(
        {
            *(
                "firmware_profile",
                "estimate",
                "latency",
                "energy",
                "calibration",
                "measure",
                "verification",
                "analyzing",
                "comparison",
                "profiling",
                "export",
                "model",
                "compressing",
                "compression",
                "target_cost",
                "placement",
                "verdict",
                "advice",
                "tuning",
                "jobs",
            ),
            "report",
        }
    ),
    frozenset({"api"}),
    frozenset({"cli", "__main__"}),
)
RANK = {name: rank for rank, group in enumerate(GROUPS) for name in group}

HEAVY = (
    "numpy",
    "onnx",
    "onnxruntime",
    "torch",
    "rich",
    "flatbuffers",
    "ai_edge_litert",
    "unicorn",
    "capstone",
)


def modules() -> dict[str, Path]:
    """Every module of the package by dotted name below `tinydeploy`."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path
    return found


def imported(path: Path, known: set[str], *, lazy: bool) -> set[str]:
    """Modules of the package that a file imports; with `lazy`, those inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.walk(node)
    }
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only or (id(node) in inside and not lazy):
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tinydeploy":
            base = node.module.removeprefix("tinydeploy").lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                names.add(full if full in known else base or "__init__")
        elif isinstance(node, ast.Import):
            names |= {
                a.name.removeprefix("tinydeploy.") for a in node.names if a.name.startswith("tinydeploy.")
            }
    return names


def test_every_module_has_its_place_in_the_order() -> None:
    unplaced = {name.split(".", 1)[0] for name in modules()} - set(RANK)
    assert not unplaced


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_point_one_way(name: str) -> None:
    found = modules()
    own = RANK[name.split(".", maxsplit=1)[0]]
    for other in imported(found[name], set(found), lazy=True):
        assert RANK[other.split(".")[0]] <= own, f"{name} imports {other}, which stands above it"


def test_no_module_imports_itself_through_others() -> None:
    found = modules()
    edges = {name: imported(path, set(found), lazy=False) - {name} for name, path in found.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name in done:
            return
        for other in edges.get(name, ()):
            visit(other, (*trail, name))
        done.add(name)

    for name in edges:
        visit(name, ())


@pytest.mark.parametrize("arguments", [["--help"], ["verify", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "from tinydeploy.cli.main import cli\n"
        f"try:\n    cli({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert done.stdout


def test_only_the_frontends_and_backends_know_the_formats() -> None:
    for name, path in modules().items():
        text = path.read_text(encoding="utf-8")
        if name.split(".")[0] not in ("frontends", "backends"):
            assert "schema_py_generated" not in text, f"{name} reads the TFLite schema"
            assert "import onnx\n" not in text, f"{name} reads ONNX"
