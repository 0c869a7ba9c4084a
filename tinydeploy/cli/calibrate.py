"""`tinydeploy calibrate`: a board file of the user's own board."""

from __future__ import annotations

import click

from tinydeploy.cli.options import compiler_option, json_option, optimize_option, print_json, warn

# Imports stand where they are needed: `tinydeploy --help` answers in under 0.3 s.
# ruff: noqa: PLC0415


@click.command("calibrate")
@click.argument("board")
@click.option(
    "--measured",
    multiple=True,
    required=True,
    metavar="MODEL=MS,...",
    help="Milliseconds of one call of NAME_run, read off the board; more with commas or the option again.",
)
@click.option("-o", "--output", required=True, help="The board file to write, NAME.toml.")
@optimize_option
@compiler_option
@json_option
def calibrate_command(
    board: str, measured: tuple[str, ...], output: str, optimize: str, compiler: str | None, as_json: bool
) -> None:
    """Fits the model of cycles of BOARD to latencies that you read off your own board.

    One reading fits one factor: how long a wait for the flash is against what the board file says, or, on a
    board whose flash is not known, how dear a taken branch is. Two or more readings fit both. The file that
    is written goes wherever --target does.

    \b
    Example:
      tinydeploy calibrate nucleo-l476rg --measured kws.tflite=161.3,ad.tflite=12.9 -o mine.toml
      tinydeploy profile vww.tflite --target mine.toml
    """
    from tinydeploy import api
    from tinydeploy.calibration import parse_readings
    from tinydeploy.cli.progress import progress_bar
    from tinydeploy.report.calibration import calibration_report
    from tinydeploy.report.tables import print_report

    readings = parse_readings(measured)
    with progress_bar() as progress:
        fit = api.calibrate(board, readings, output, optimize=optimize, compiler=compiler, progress=progress)
    warn(fit.notes, "note")
    if as_json:
        print_json({"board": board, "file": output} | fit.to_json())
    else:
        print_report(calibration_report(fit, board, output))
