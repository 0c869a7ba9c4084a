"""`tinydeploy profile`."""

from __future__ import annotations

import sys

import click

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
@click.option("--max-flash", type=click.IntRange(min=1), help="Bytes; more is exit 1, also on a core.")
@click.option("--max-ram", type=click.IntRange(min=1), help="Bytes; more is exit 1, also on a core.")
@click.option(
    "--max-latency-ms",
    type=click.FloatRange(min=0, min_open=True),
    help="Milliseconds of one inference; more is exit 1. For boards whose cycles are modelled.",
)
@json_option
def profile_command(
    model: str,
    weights: str | None,
    targets: str,
    name: str | None,
    optimize: str,
    compiler: str | None,
    max_flash: int | None,
    max_ram: int | None,
    max_latency_ms: float | None,
    as_json: bool,
) -> None:
    """Shows what MODEL costs on each target, and whether it fits.

    MACs, parameters, flash and RAM of the linked firmware, executed instructions and modelled cycles a layer,
    counted on an emulated core with one seeded sample, and the same with the weights in RAM. Where it does
    not fit, the cheapest changes that make it fit, each one built and run. Exit code 1 where a named board
    is too small or a limit is exceeded.

    \b
    Example:
      tinydeploy profile kws.tflite --target nucleo-l4r5zi,raspberry-pi-pico
      tinydeploy profile kws.tflite --target nucleo-l4r5zi --max-ram 12000 --max-latency-ms 50
    """
    from tinydeploy import api
    from tinydeploy.cli.progress import progress_bar
    from tinydeploy.report.tables import print_report, profile_report

    names = [t.strip() for t in targets.split(",") if t.strip()]
    with progress_bar() as progress:
        result = api.profile(
            api.load_model(model, weights),
            names,
            name=name,
            optimize=optimize,
            compiler=compiler,
            max_flash=max_flash,
            max_ram=max_ram,
            max_latency_ms=max_latency_ms,
            progress=progress,
        )
    if as_json:
        print_json(result.to_json())
    else:
        print_report(profile_report(result))
    if not result.all_fit:
        sys.exit(1)
