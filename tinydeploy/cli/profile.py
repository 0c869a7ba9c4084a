"""`tinydeploy profile`."""

from __future__ import annotations

import sys

import click

from tinydeploy.cli.firmware import FirmwareOptions, firmware_options, profile_firmware
from tinydeploy.cli.options import (
    TARGET,
    compiler_option,
    json_option,
    model_argument,
    name_option,
    optimize_option,
    print_json,
)

# ruff: noqa: PLC0415  (heavy imports wait until the command runs)


@click.command("profile")
@model_argument
@click.option("--target", "targets", required=True, help=f"One or more, with commas. {TARGET}")
@name_option
@optimize_option
@compiler_option
@firmware_options
@json_option
def profile_command(
    model: str,
    weights: str | None,
    targets: str,
    name: str | None,
    optimize: str,
    compiler: str | None,
    firmware: FirmwareOptions,
    as_json: bool,
) -> None:
    """Shows what MODEL costs on each target, and whether it fits.

    MACs, parameters, flash and RAM of the linked firmware, and executed instructions a layer, counted on an
    emulated core with one seeded sample. Exit code 1 where a named board is too small.

    MODEL may also be a firmware that you linked, an Arm ELF file, with --entry FUNCTION: what one call of it
    costs, function by function. Stack, floating point and arguments are set up, and memory is as after
    start-up; no start-up code runs.

    \b
    Example:
      tinydeploy profile kws.tflite --target nucleo-l4r5zi,raspberry-pi-pico
      tinydeploy profile app.elf --target nucleo-l4r5zi --entry infer --input samples=test.npz --arg samples
    """
    from tinydeploy import api
    from tinydeploy.cli.progress import progress_bar
    from tinydeploy.report.tables import print_report, profile_report

    names = [t.strip() for t in targets.split(",") if t.strip()]
    if firmware.mean(model):
        profile_firmware(model, names, firmware, as_json=as_json)
        return
    with progress_bar() as progress:
        result = api.profile(
            api.load_model(model, weights),
            names,
            name=name,
            optimize=optimize,
            compiler=compiler,
            progress=progress,
        )
    if as_json:
        print_json(result.to_json())
    else:
        print_report(profile_report(result))
    if not result.all_fit:
        sys.exit(1)
