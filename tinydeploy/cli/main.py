"""The command line: parse, call the API, print, exit code. 0 done, 1 the answer is no, 2 bad input."""

from __future__ import annotations

import sys
from typing import Any

import click

from tinydeploy import __version__
from tinydeploy.cli.analyze import analyze_command
from tinydeploy.cli.calibrate import calibrate_command
from tinydeploy.cli.compress import compress_command
from tinydeploy.cli.diff import diff_command
from tinydeploy.cli.options import (
    TARGET,
    autotune_option,
    codebooks_option,
    compiler_option,
    data_options,
    json_option,
    model_argument,
    name_option,
    optimize_option,
    print_json,
    warn,
)
from tinydeploy.cli.profile import profile_command
from tinydeploy.errors import DeployError

# Every command imports what it needs by itself: `tinydeploy --help` answers in under 0.3 s.
# ruff: noqa: PLC0415


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


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tinydeploy")
def cli() -> None:
    """Takes a trained neural network to a microcontroller.

    MODEL is a .tflite, .onnx or .pt2 file, or package.module:factory with --weights FILE.safetensors. A
    first walk through:

    \b
      tinydeploy inspect  kws.tflite
      tinydeploy export-c kws.tflite --target cortex-m4 -o kws_c
      tinydeploy verify   kws.tflite --target cortex-m4
      tinydeploy profile  kws.tflite --target nucleo-l4r5zi,raspberry-pi-pico

    Exit codes: 0 done; 1 the answer is no; 2 bad input or usage.
    """


@cli.command("export-c")
@model_argument
@click.option("--target", required=True, help=TARGET)
@click.option("-o", "--output", "folder", required=True, help="Folder for the C project.")
@name_option
@optimize_option
@autotune_option
@codebooks_option
@click.option("--max-flash", type=click.IntRange(min=1), help="Bytes; export only what fits (exit 1).")
@click.option("--max-ram", type=click.IntRange(min=1), help="Bytes; export only what fits (exit 1).")
def export_c_command(
    model: str,
    weights: str | None,
    target: str,
    folder: str,
    name: str | None,
    optimize: str,
    autotune: bool,
    codebooks: str,
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
    from tinydeploy.cli.progress import progress_bar
    from tinydeploy.report.tables import export_report, print_report

    try:
        with progress_bar() as progress:
            result = api.export_c(
                api.load_model(model, weights),
                target,
                folder,
                name=name,
                optimize=optimize,
                autotune=autotune,
                codebooks=codebooks,
                max_flash=max_flash,
                max_ram=max_ram,
                progress=progress,
            )
    except api.DoesNotFitError as error:
        click.echo(f"does not fit: {error}; nothing was written", err=True)
        sys.exit(1)
    print_report(export_report(result))


@cli.command("verify")
@model_argument
@click.option("--target", required=True, help=TARGET)
@click.option("--inputs", help="An .npz file with x and, where outputs are known, y.")
@name_option
@optimize_option
@autotune_option
@codebooks_option
@compiler_option
@data_options
@json_option
def verify_command(
    model: str,
    weights: str | None,
    target: str,
    inputs: str | None,
    name: str | None,
    optimize: str,
    autotune: bool,
    codebooks: str,
    compiler: str | None,
    input_scale: float,
    input_mean: float,
    as_json: bool,
) -> None:
    """Proves that the C computes what the integer engine computes, bit for bit.

    Exports MODEL, compiles it for the target, runs it on an emulated core and compares every output
    element; then the first four samples once more with input and output at odd addresses. Refuses what
    silicon would refuse and any floating point. Without --inputs the inputs are seeded random ones, and
    all-low and all-high ones.

    \b
    Example:
      tinydeploy verify kws.tflite --target cortex-m4 --inputs samples.npz
    """
    from tinydeploy import api
    from tinydeploy.cli.progress import progress_bar
    from tinydeploy.report.tables import print_report, verification_report

    with progress_bar() as progress:
        result = api.verify(
            api.load_model(model, weights),
            target,
            inputs=inputs,
            name=name,
            optimize=optimize,
            autotune=autotune,
            codebooks=codebooks,
            compiler=compiler,
            scale=input_scale,
            mean=input_mean,
            progress=progress,
        )
    warn(result.notes, "note")
    if as_json:
        print_json(result.to_json())
    else:
        print_report(verification_report(result))
    if not result.ok:
        sys.exit(1)


@cli.command("evaluate")
@model_argument
@click.option("--data", required=True, help="An .npz file with x and y, samples first.")
@data_options
@json_option
def evaluate_command(
    model: str, weights: str | None, data: str, input_scale: float, input_mean: float, as_json: bool
) -> None:
    """Measures the accuracy of MODEL with the integer engine.

    Class numbers in y give top-1 accuracy (ties to the lowest index); values of the output's shape give the
    mean squared error.

    \b
    Example:
      tinydeploy evaluate kws.tflite --data test.npz
    """
    from tinydeploy import api
    from tinydeploy.report.tables import evaluation_report, print_report

    result, warnings = api.evaluate(api.load_model(model, weights), data, scale=input_scale, mean=input_mean)
    warn(warnings)
    if as_json:
        print_json(result.to_json())
    else:
        print_report(evaluation_report(result))


@cli.command("inspect")
@model_argument
@click.option("--memory", is_flag=True, help="Print the memory plan as a picture.")
@click.option("--groups", is_flag=True, help="Print the channels that can only be pruned together.")
@click.option("--target", help=f"With --memory: the plan for it, not that of the portable kernels. {TARGET}")
@optimize_option
@json_option
def inspect_command(
    model: str,
    weights: str | None,
    memory: bool,
    groups: bool,
    target: str | None,
    optimize: str,
    as_json: bool,
) -> None:
    """Prints MODEL as text: one line a tensor and one a layer, stable enough for diff.

    \b
    Example:
      tinydeploy inspect kws.tflite
      tinydeploy inspect kws.tflite --memory --target nucleo-l4r5zi
      tinydeploy inspect kws.tflite --groups
    """
    from tinydeploy import api
    from tinydeploy.ir.show import show
    from tinydeploy.jobs import memory_plan
    from tinydeploy.prune import find_groups
    from tinydeploy.report.groups import groups_document, groups_text
    from tinydeploy.report.memory import memory_picture
    from tinydeploy.report.summary import graph_summary, transposes

    loaded = api.load_model(model, weights)
    if as_json:
        document = graph_summary(loaded.graph, loaded.path)
        if memory:
            plan, _ = memory_plan(loaded, target, optimize)
            document["arena_bytes"] = plan.arena_bytes
            document["arena_lower_bound_bytes"] = plan.lower_bound_bytes
        if groups:
            document["groups"] = groups_document(find_groups(loaded.graph))
        print_json(document)
    elif groups:
        click.echo(groups_text(find_groups(loaded.graph)), nl=False)
    elif memory:
        click.echo(memory_picture(*memory_plan(loaded, target, optimize)), nl=False)
    else:
        click.echo(show(loaded.graph), nl=False)
        count = transposes(loaded.graph)
        click.echo(f"transpositions: {count['layers']} between layers, {count['borders']} at the borders")


@cli.command("targets")
@click.argument("name", required=False)
@json_option
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
        print_json([t.to_json() for t in found])
    elif name is None:
        print_report(targets_report(found))
    else:
        print_report(target_report(found[0]))


cli.add_command(analyze_command)
cli.add_command(calibrate_command)
cli.add_command(compress_command)
cli.add_command(diff_command)
cli.add_command(profile_command)


def main() -> None:
    """Entry point of the `tinydeploy` command."""
    cli(prog_name="tinydeploy")
