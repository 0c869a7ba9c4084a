"""Options that several commands share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

TARGET = "A core, a board, or the path of a board's TOML file; `tinydeploy targets` lists them."
GOALS = click.Choice(["latency", "balanced", "flash", "ram"])


def json_option(function: Any) -> Any:
    """Adds --json."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")(
        function
    )


def model_argument(function: Any) -> Any:
    """Adds MODEL and --weights."""
    weights = click.option("--weights", help="A .safetensors file for a MODEL of the form module:factory.")
    return click.argument("model")(weights(function))


def data_options(function: Any) -> Any:
    """Adds --input-scale and --input-mean."""
    scale = click.option(
        "--input-scale",
        type=float,
        default=1.0,
        show_default=True,
        help="Integer data of another type than the input's becomes SCALE * (x - MEAN) in real units.",
    )
    mean = click.option("--input-mean", type=float, default=0.0, show_default=True, help="See --input-scale.")
    return scale(mean(function))


def optimize_option(function: Any) -> Any:
    """Adds --optimize."""
    return click.option(
        "--optimize", type=GOALS, default="latency", show_default=True, help="What to spend the target on."
    )(function)


def autotune_option(function: Any) -> Any:
    """Adds --autotune."""
    return click.option(
        "--autotune",
        is_flag=True,
        help="Choose kernels by what each takes on the emulated core, in place of stored costs.",
    )(function)


def codebooks_option(function: Any) -> Any:
    """Adds --codebooks."""
    return click.option(
        "--codebooks",
        type=click.Choice(["packed", "huffman", "auto"]),
        default="packed",
        show_default=True,
        help="Codebook indices in flash: packed; Huffman-coded, with RAM for them decoded at start-up; or the"
        " latter for layers where it saves flash and the RAM is there.",
    )(function)


def name_option(function: Any) -> Any:
    """Adds --name."""
    return click.option("--name", help="Prefix of everything in the C; from the file's name by default.")(
        function
    )


def compiler_option(function: Any) -> Any:
    """Adds --compiler."""
    return click.option(
        "--compiler",
        type=click.Choice(["gcc", "zig"]),
        help="By default the core's GNU compiler where it is on PATH, else zig from the extra 'emulate'.",
    )(function)


def print_json(document: object) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(document, indent=2))


def warn(notes: Sequence[str], kind: str = "warning") -> None:
    """Notes on standard error."""
    for note in notes:
        click.echo(f"{kind}: {note}", err=True)
