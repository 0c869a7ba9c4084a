"""What `tinydeploy profile` takes besides, where MODEL is a firmware that the user linked."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tinydeploy.cli.options import print_json, warn
from tinydeploy.errors import DeployError

# ruff: noqa: PLC0415  (heavy imports wait until the command runs)

_MAX_INSTRUCTIONS = 2_000_000_000


@dataclass(frozen=True)
class FirmwareOptions:
    """The options of a firmware, as they were given."""

    entry: str | None
    arguments: tuple[str, ...]
    inputs: tuple[str, ...]
    setup: tuple[str, ...]
    max_instructions: int

    def mean(self, model: str) -> bool:
        """Whether the command is about a firmware.

        Raises:
            DeployError: options and file do not go together.
        """
        from tinydeploy.emulate.elf_check import is_elf

        if is_elf(Path(model)):
            if self.entry is None:
                hint = "--entry FUNCTION; for a model's own function give its arguments with --arg"
                raise DeployError("this is a firmware, and no function is named", where=model, hint=hint)
            return True
        given = (self.entry, *self.arguments, *self.inputs, *self.setup)
        if any(given):
            hint = "--entry, --arg, --input and --setup are for a linked ELF file"
            raise DeployError("is not an ELF file", where=model, hint=hint)
        return False


def firmware_options(function: Any) -> Any:
    """Adds --entry, --arg, --input, --setup and --max-instructions, given as one `firmware`."""

    @functools.wraps(function)
    def wrapped(
        *,
        entry: str | None,
        arguments: tuple[str, ...],
        inputs: tuple[str, ...],
        setup: tuple[str, ...],
        max_instructions: int,
        **others: Any,
    ) -> Any:
        options = FirmwareOptions(entry, arguments, inputs, setup, max_instructions)
        return function(firmware=options, **others)

    options = (
        click.option("--entry", metavar="SYMBOL", help="Of a firmware: the function whose cost is wanted."),
        click.option(
            "--arg",
            "arguments",
            multiple=True,
            metavar="VALUE",
            help="Of a firmware: r0 (a0), r1, ... of the call, a number or a symbol for its address.",
        ),
        click.option(
            "--input",
            "inputs",
            multiple=True,
            metavar="SYMBOL=FILE",
            help="Of a firmware: FILE.npz (first sample of x), FILE.npz:KEY, or raw bytes, put into SYMBOL.",
        ),
        click.option(
            "--setup",
            multiple=True,
            metavar="SYMBOL",
            help="Of a firmware: a function that runs before, not counted.",
        ),
        click.option(
            "--max-instructions",
            type=click.IntRange(min=1),
            default=_MAX_INSTRUCTIONS,
            show_default=True,
            help="Of a firmware: when to give the call up.",
        ),
    )
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def profile_firmware(path: str, targets: Sequence[str], firmware: FirmwareOptions, *, as_json: bool) -> None:
    """Runs the call and prints what it costs; exit code 1 where a named board is too small."""
    from tinydeploy import api
    from tinydeploy.cli.progress import progress_bar
    from tinydeploy.report.firmware import firmware_report
    from tinydeploy.report.tables import print_report

    call = api.FirmwareCall(
        firmware.entry or "",
        firmware.arguments,
        firmware.inputs,
        firmware.setup,
        firmware.max_instructions,
    )
    with progress_bar() as progress:
        result = api.profile_firmware(path, targets, call, progress=progress)
    warn(result.notes, "note")
    if as_json:
        print_json(result.to_json())
    else:
        print_report(firmware_report(result))
    if not result.all_fit:
        sys.exit(1)
