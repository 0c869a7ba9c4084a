"""`tinydeploy diff`."""

from __future__ import annotations

import sys

import click

from tinydeploy.cli.options import data_options, json_option, print_json, warn

# ruff: noqa: PLC0415  (heavy imports wait until the command runs)


@click.command("diff")
@click.argument("model_a")
@click.argument("model_b")
@click.option("--data", required=True, help="An .npz file with x, samples first, for both models.")
@click.option("--samples", type=click.IntRange(min=1), help="Take only the first so many; all by default.")
@click.option(
    "--threshold-db",
    type=float,
    help="SQNR below which a layer differs, where its integers cannot be compared; by default 10 dB, and"
    " 60 dB between two float models.",
)
@click.option("--weights-a", help="A .safetensors file for a MODEL_A of the form module:factory.")
@click.option("--weights-b", help="The same for MODEL_B.")
@data_options
@json_option
def diff_command(
    model_a: str,
    model_b: str,
    data: str,
    samples: int | None,
    threshold_db: float | None,
    weights_a: str | None,
    weights_b: str | None,
    input_scale: float,
    input_mean: float,
    as_json: bool,
) -> None:
    """Finds the first layer in which two forms of one network differ.

    A float model and the int8 one made of it, or the .onnx and the .tflite of one compression: layers are
    paired by name and by their place in the network, and run on the same data. For each pair it prints the
    signal to quantization noise ratio (MODEL_A is the signal), the largest difference in real units, and,
    where both are integers of one scale, how many elements differ. Errors add up from layer to layer.

    Exit code 1 where a layer differs: in one element of two integer models, else below --threshold-db.

    \b
    Example:
      tinydeploy diff net.onnx out/model.tflite --data test.npz --samples 100
      tinydeploy diff out/model.onnx out/model.tflite --data test.npz
    """
    from tinydeploy import api
    from tinydeploy.report.difference import difference_report
    from tinydeploy.report.tables import print_report

    result, warnings = api.diff(
        api.load_model(model_a, weights_a),
        api.load_model(model_b, weights_b),
        data,
        samples=samples,
        threshold_db=threshold_db,
        scale=input_scale,
        mean=input_mean,
    )
    warn(warnings)
    if as_json:
        print_json(result.to_json())
    else:
        print_report(difference_report(result))
    if not result.same:
        sys.exit(1)
