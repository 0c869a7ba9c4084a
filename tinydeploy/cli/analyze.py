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
@click.option("--bits", metavar="W[:A]", help="That a float MODEL would get, as for compress.")
@click.option("--scheme", help="The scheme of its weights, as for compress.")
@click.option("--recipe", help="Both by layer, as for compress.")
@click.option("--calibration", default="minmax", show_default=True, help="As for compress.")
@click.option(
    "--accuracy-loss",
    type=click.FloatRange(0.0, 1.0, min_open=True),
    default=0.01,
    show_default=True,
    help="A fraction, for which the least bits of each layer of a float MODEL are said.",
)
@data_options
@json_option
def analyze_command(
    model: str,
    weights: str | None,
    data: str | None,
    samples: int,
    bits: str | None,
    scheme: str | None,
    recipe: str | None,
    calibration: str,
    accuracy_loss: float,
    input_scale: float,
    input_mean: float,
    as_json: bool,
) -> None:
    """Says what the bits of MODEL cost and what they spoil, layer by layer and tensor by tensor.

    Costs: bits to hold weights and activations, full adders to compute, accumulator width. Noise: the signal
    to quantization noise ratio (SQNR) of each tensor, measured and as formulas predict it, and the divergence
    of its distribution. A float MODEL is compared with its quantized self, an integer MODEL with the float
    network of its own weights. With the extra 'train' and a float MODEL that classifies: the bits that each
    layer needs by its noise gains (Sakr and Shanbhag), and the trace of the Hessian where there are labels.

    \b
    Example:
      tinydeploy analyze kws.tflite
      tinydeploy analyze net.onnx --data train.npz --bits 4:8
    """
    from tinydeploy import api
    from tinydeploy.report.analysis import analysis_report
    from tinydeploy.report.tables import print_report

    result, warnings = api.analyze(
        api.load_model(model, weights),
        data,
        samples=samples,
        bits=bits,
        scheme=scheme,
        recipe=recipe,
        calibration=calibration,
        accuracy_loss=accuracy_loss,
        scale=input_scale,
        mean=input_mean,
    )
    warn(warnings)
    if as_json:
        print_json(result.to_json())
    else:
        print_report(analysis_report(result))
