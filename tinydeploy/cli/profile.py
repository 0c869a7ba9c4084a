"""`tinydeploy profile`."""

from __future__ import annotations

import sys

import click

from tinydeploy.cli.firmware import FirmwareOptions, firmware_options, profile_firmware
from tinydeploy.cli.options import (
    TARGET,
    autotune_option,
    codebooks_option,
    compiler_option,
    json_option,
    model_argument,
    name_option,
    optimize_option,
    print_json,
    warn,
)
from tinydeploy.cli.page import Allowed, PageOptions, limit_options, page_options
from tinydeploy.errors import DeployError

# ruff: noqa: PLC0415  (heavy imports wait until the command runs)


@click.command("profile")
@model_argument
@click.option("--target", "targets", required=True, help=f"One or more, with commas. {TARGET}")
@name_option
@optimize_option
@autotune_option
@codebooks_option
@compiler_option
@limit_options
@page_options
@firmware_options
@click.option("--estimate", is_flag=True, help="Cost functions of the kernels; nothing is compiled and run.")
@json_option
def profile_command(
    model: str,
    weights: str | None,
    targets: str,
    name: str | None,
    optimize: str,
    autotune: bool,
    codebooks: str,
    compiler: str | None,
    allowed: Allowed,
    page: PageOptions,
    firmware: FirmwareOptions,
    estimate: bool,
    as_json: bool,
) -> None:
    """Shows what MODEL costs on each target, and whether it fits.

    MACs, parameters, flash and RAM of the linked firmware, executed instructions and modelled cycles a layer,
    counted on an emulated core with one seeded sample, and the same with the weights in RAM. Where it does
    not fit, the cheapest changes that make it fit, each one built and run. Exit code 1 where a named board
    is too small or a limit is exceeded. With --estimate, and where no compiler is found, cycles, code and
    stack come from cost functions, with their error.

    MODEL may also be a firmware that you linked, an ELF file, with --entry FUNCTION: what one call of it
    costs, function by function. Stack, floating point and arguments are set up, and memory is as after
    start-up; no start-up code runs.

    \b
    Example:
      tinydeploy profile kws.tflite --target nucleo-l4r5zi,raspberry-pi-pico
      tinydeploy profile kws.tflite --target nucleo-l4r5zi --max-ram 12000 --max-latency-ms 50
      tinydeploy profile out/model.tflite --target nucleo-l4r5zi --html report.html
      tinydeploy profile app.elf --target nucleo-l4r5zi --entry infer --input samples=test.npz --arg samples
    """
    from tinydeploy import api
    from tinydeploy.cli.progress import progress_bar
    from tinydeploy.report.tables import print_report, profile_report

    names = [t.strip() for t in targets.split(",") if t.strip()]
    if firmware.mean(model):
        if estimate:
            raise click.UsageError("--estimate is for models; a firmware is run")
        if page.html is not None or any(v is not None for v in allowed.values()):
            hint = "leave out --html, --max-flash, --max-ram and --max-latency-ms"
            raise DeployError("is a firmware, which has neither page nor limits", where=model, hint=hint)
        profile_firmware(model, names, firmware, as_json=as_json)
        return
    loaded = api.load_model(model, weights)
    with progress_bar() as progress:
        result = api.profile(
            loaded,
            names,
            name=name,
            optimize=optimize,
            autotune=autotune,
            codebooks=codebooks,
            compiler=compiler,
            **allowed,
            estimate=estimate,
            progress=progress,
        )
    warn(result.notes, "note")
    page.write(result, loaded)
    if as_json:
        print_json(result.to_json())
    else:
        print_report(profile_report(result))
    if not result.all_fit:
        sys.exit(1)
