"""`tinydeploy profile`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tinydeploy.cli.options import (
    TARGET,
    compiler_option,
    json_option,
    model_argument,
    name_option,
    optimize_option,
    print_json,
    warn,
)

if TYPE_CHECKING:
    from tinydeploy.model import Model
    from tinydeploy.profiling import Profile

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
@click.option("--html", type=click.Path(dir_okay=False), help="Also write the report as one page of HTML.")
@click.option(
    "--compress-report",
    type=click.Path(dir_okay=False),
    help="The report.json of `compress`, for the page; by default the one beside MODEL.",
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
    html: str | None,
    compress_report: str | None,
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
      tinydeploy profile out/model.tflite --target nucleo-l4r5zi --html report.html
    """
    from tinydeploy import api
    from tinydeploy.cli.progress import progress_bar
    from tinydeploy.report.tables import print_report, profile_report

    loaded = api.load_model(model, weights)
    names = [t.strip() for t in targets.split(",") if t.strip()]
    with progress_bar() as progress:
        result = api.profile(
            loaded,
            names,
            name=name,
            optimize=optimize,
            compiler=compiler,
            max_flash=max_flash,
            max_ram=max_ram,
            max_latency_ms=max_latency_ms,
            progress=progress,
        )
    if html is not None:
        _write_page(result, loaded, html, compress_report)
    if as_json:
        print_json(result.to_json())
    else:
        print_report(profile_report(result))
    if not result.all_fit:
        sys.exit(1)


def _write_page(result: Profile, model: Model, html: str, compress_report: str | None) -> None:
    from tinydeploy.report.page import html_report, write_page
    from tinydeploy.report.page.accuracy import find_accuracy, read_accuracy

    if compress_report is None:
        accuracy, note = find_accuracy(model.path, result.macs, result.params)
        warn([note] if note else [], "note")
    else:
        accuracy = read_accuracy(Path(compress_report), result.macs, result.params)
    write_page(html_report(result, sha256=model.sha256, accuracy=accuracy), Path(html))
