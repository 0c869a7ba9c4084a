"""`tinydeploy analyze`."""

from __future__ import annotations

import click

from tinydeploy.cli.options import data_options, json_option, model_argument, print_json, warn

# ruff: noqa: PLC0415  (heavy imports wait until the command runs)


@click.command("analyze")
@model_argument
@click.option("--data", help="An .npz file with x, samples first; without it nothing is said of activations.")
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="How many of the data calibrate and are measured on.",
)
@click.option(
    "--weight-bits",
    type=click.IntRange(1, 16),
    default=8,
    show_default=True,
    help="Of the weights that a float MODEL would have; an integer MODEL has its own.",
)
@click.option(
    "--activation-bits",
    type=click.IntRange(1, 16),
    default=8,
    show_default=True,
    help="Of its activations; other bits than 8 and 8 are simulated in float.",
)
@click.option("--calibration", default="minmax", show_default=True, help="As for compress.")
@data_options
@json_option
def analyze_command(
    model: str,
    weights: str | None,
    data: str | None,
    samples: int,
    weight_bits: int,
    activation_bits: int,
    calibration: str,
    input_scale: float,
    input_mean: float,
    as_json: bool,
) -> None:
    """Says what the bits of MODEL cost and what they spoil, layer by layer and tensor by tensor.

    Costs: bits to hold weights and activations, full adders to compute, accumulator width. Noise: the signal
    to quantization noise ratio (SQNR) of each tensor, measured and as formulas predict it, and the divergence
    of its distribution. A float MODEL is compared with its quantized self, an integer MODEL with the float
    network of its own weights.

    \b
    Example:
      tinydeploy analyze kws.tflite
      tinydeploy analyze net.onnx --data train.npz --weight-bits 4
    """
    from tinydeploy import api
    from tinydeploy.report.analysis import analysis_report
    from tinydeploy.report.tables import print_report

    result, warnings = api.analyze(
        api.load_model(model, weights),
        data,
        samples=samples,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        calibration=calibration,
        scale=input_scale,
        mean=input_mean,
    )
    warn(warnings)
    if as_json:
        print_json(result.to_json())
    else:
        print_report(analysis_report(result))
