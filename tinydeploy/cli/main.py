"""The command line: parse, call the API, print, exit code. 0 done, 1 the answer is no, 2 bad input."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from tinydeploy import __version__
from tinydeploy.errors import DeployError

# Every command imports what it needs by itself: `tinydeploy --help` answers in under 0.3 s.
# ruff: noqa: PLC0415

_TARGET = "A core, a board, or the path of a board's TOML file; `tinydeploy targets` lists them."
_GOALS = click.Choice(["latency", "balanced", "flash", "ram"])


class _Failure(click.ClickException):
    """Bad input: the message, and exit code 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        del file
        click.echo(f"error: {self.message}", err=True)


class _Group(click.Group):
    """Turns every DeployError into a message and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DeployError as error:
            raise _Failure(str(error)) from None


def _json_option(function: Any) -> Any:
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")(
        function
    )


def _data_options(function: Any) -> Any:
    scale = click.option(
        "--input-scale",
        type=float,
        default=1.0,
        show_default=True,
        help="Integer data of another type than the input's becomes SCALE * (x - MEAN) in real units.",
    )
    mean = click.option("--input-mean", type=float, default=0.0, show_default=True, help="See --input-scale.")
    return scale(mean(function))


def _optimize_option(function: Any) -> Any:
    return click.option(
        "--optimize", type=_GOALS, default="latency", show_default=True, help="What to spend the target on."
    )(function)


def _name_option(function: Any) -> Any:
    return click.option("--name", help="Prefix of everything in the C; from the file's name by default.")(
        function
    )


def _compiler_option(function: Any) -> Any:
    return click.option(
        "--compiler",
        type=click.Choice(["gcc", "zig"]),
        help="By default arm-none-eabi-gcc where it is on PATH, else zig from the extra 'emulate'.",
    )(function)


def _print_json(document: object) -> None:
    click.echo(json.dumps(document, indent=2))


def _warn(notes: Sequence[str], kind: str = "warning") -> None:
    for note in notes:
        click.echo(f"{kind}: {note}", err=True)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tinydeploy")
def cli() -> None:
    """Takes a trained neural network to a microcontroller.

    MODEL is an int8 .tflite file. A first walk through:

    \b
      tinydeploy inspect  kws.tflite
      tinydeploy export-c kws.tflite --target cortex-m4 -o kws_c
      tinydeploy verify   kws.tflite --target cortex-m4
      tinydeploy profile  kws.tflite --target nucleo-l4r5zi,raspberry-pi-pico

    Exit codes: 0 done; 1 the answer is no; 2 bad input or usage.
    """


@cli.command("export-c")
@click.argument("model")
@click.option("--target", required=True, help=_TARGET)
@click.option("-o", "--output", "folder", required=True, help="Folder for the C project.")
@_name_option
@_optimize_option
@click.option("--max-flash", type=click.IntRange(min=1), help="Bytes; export only what fits (exit 1).")
@click.option("--max-ram", type=click.IntRange(min=1), help="Bytes; export only what fits (exit 1).")
def export_c_command(
    model: str,
    target: str,
    folder: str,
    name: str | None,
    optimize: str,
    max_flash: int | None,
    max_ram: int | None,
) -> None:
    """Writes MODEL as a C project that compiles on its own.

    The folder holds NAME.h with the API, NAME.c with one function a layer, the weights, the kernels, a
    Makefile, an example and a manifest. Nothing in it allocates memory or uses floating point.

    \b
    Example:
      tinydeploy export-c kws.tflite --target cortex-m4 --name kws -o kws_c
      make -C kws_c && kws_c/example
    """
    from tinydeploy import api
    from tinydeploy.report.tables import export_report, print_report

    try:
        result = api.export_c(
            api.load_model(model),
            target,
            folder,
            name=name,
            optimize=optimize,
            max_flash=max_flash,
            max_ram=max_ram,
        )
    except api.DoesNotFitError as error:
        click.echo(f"does not fit: {error}; nothing was written", err=True)
        sys.exit(1)
    print_report(export_report(result))


@cli.command("verify")
@click.argument("model")
@click.option("--target", required=True, help=_TARGET)
@click.option("--inputs", help="An .npz file with x and, where outputs are known, y.")
@_name_option
@_optimize_option
@_compiler_option
@_data_options
@_json_option
def verify_command(
    model: str,
    target: str,
    inputs: str | None,
    name: str | None,
    optimize: str,
    compiler: str | None,
    input_scale: float,
    input_mean: float,
    as_json: bool,
) -> None:
    """Proves that the C computes what the integer engine computes, bit for bit.

    Exports MODEL, compiles it for the target, runs it on an emulated core and compares every output
    element; then the first four samples once more with input and output at odd addresses. Refuses what silicon
    would refuse and any floating point. Without --inputs the inputs are seeded random ones, and all-low
    and all-high ones.

    \b
    Example:
      tinydeploy verify kws.tflite --target cortex-m4 --inputs samples.npz
    """
    from tinydeploy import api
    from tinydeploy.cli.progress import progress_bar
    from tinydeploy.report.tables import print_report, verification_report

    with progress_bar() as progress:
        result = api.verify(
            api.load_model(model),
            target,
            inputs=inputs,
            name=name,
            optimize=optimize,
            compiler=compiler,
            scale=input_scale,
            mean=input_mean,
            progress=progress,
        )
    _warn(result.notes, "note")
    if as_json:
        _print_json(result.to_json())
    else:
        print_report(verification_report(result))
    if not result.ok:
        sys.exit(1)


@cli.command("profile")
@click.argument("model")
@click.option("--target", "targets", required=True, help=f"One or more, with commas. {_TARGET}")
@_name_option
@_optimize_option
@_compiler_option
@_json_option
def profile_command(
    model: str,
    targets: str,
    name: str | None,
    optimize: str,
    compiler: str | None,
    as_json: bool,
) -> None:
    """Shows what MODEL costs on each target, and whether it fits.

    MACs, parameters, flash and RAM of the linked firmware, and executed instructions a layer, counted on an
    emulated core with one seeded sample. Exit code 1 where a named board is too small.

    \b
    Example:
      tinydeploy profile kws.tflite --target nucleo-l4r5zi,raspberry-pi-pico
    """
    from tinydeploy import api
    from tinydeploy.cli.progress import progress_bar
    from tinydeploy.report.tables import print_report, profile_report

    names = [t.strip() for t in targets.split(",") if t.strip()]
    with progress_bar() as progress:
        result = api.profile(
            api.load_model(model), names, name=name, optimize=optimize, compiler=compiler, progress=progress
        )
    if as_json:
        _print_json(result.to_json())
    else:
        print_report(profile_report(result))
    if not result.all_fit:
        sys.exit(1)


@cli.command("evaluate")
@click.argument("model")
@click.option("--data", required=True, help="An .npz file with x and y, samples first.")
@_data_options
@_json_option
def evaluate_command(model: str, data: str, input_scale: float, input_mean: float, as_json: bool) -> None:
    """Measures the accuracy of MODEL with the integer engine.

    Class numbers in y give top-1 accuracy (ties to the lowest index); values of the output's shape give the
    mean squared error.

    \b
    Example:
      tinydeploy evaluate kws.tflite --data test.npz
    """
    from tinydeploy import api
    from tinydeploy.report.tables import evaluation_report, print_report

    result, warnings = api.evaluate(api.load_model(model), data, scale=input_scale, mean=input_mean)
    _warn(warnings)
    if as_json:
        _print_json(result.to_json())
    else:
        print_report(evaluation_report(result))


@cli.command("inspect")
@click.argument("model")
@click.option("--memory", is_flag=True, help="Print the memory plan as a picture.")
@click.option("--groups", is_flag=True, help="Print the channels that can only be pruned together.")
@_json_option
def inspect_command(model: str, memory: bool, groups: bool, as_json: bool) -> None:
    """Prints MODEL as text: one line a tensor and one a layer, stable enough for diff.

    \b
    Example:
      tinydeploy inspect kws.tflite
      tinydeploy inspect kws.tflite --memory
      tinydeploy inspect kws.tflite --groups
    """
    from tinydeploy import api
    from tinydeploy.ir.show import show
    from tinydeploy.plan import plan_memory
    from tinydeploy.prune import find_groups
    from tinydeploy.report.groups import groups_document, groups_text
    from tinydeploy.report.memory import memory_picture
    from tinydeploy.report.summary import graph_summary

    loaded = api.load_model(model)
    if as_json:
        document = graph_summary(loaded.graph, loaded.path)
        if memory:
            document["arena_bytes"] = plan_memory(loaded.graph).arena_bytes
        if groups:
            document["groups"] = groups_document(find_groups(loaded.graph))
        _print_json(document)
    elif groups:
        click.echo(groups_text(find_groups(loaded.graph)), nl=False)
    elif memory:
        click.echo(memory_picture(plan_memory(loaded.graph), len(loaded.graph.nodes)), nl=False)
    else:
        click.echo(show(loaded.graph), nl=False)


@cli.command("targets")
@click.argument("name", required=False)
@_json_option
def targets_command(name: str | None, as_json: bool) -> None:
    """Lists the cores and boards, or shows one with the source of each figure.

    \b
    Example:
      tinydeploy targets
      tinydeploy targets nucleo-l4r5zi
    """
    from tinydeploy.report.tables import print_report, target_report, targets_report
    from tinydeploy.targets import list_targets, load_target

    found = list_targets() if name is None else (load_target(name),)
    if as_json:
        _print_json([t.to_json() for t in found])
    elif name is None:
        print_report(targets_report(found))
    else:
        print_report(target_report(found[0]))


def main() -> None:
    """Entry point of the `tinydeploy` command."""
    cli(prog_name="tinydeploy")
