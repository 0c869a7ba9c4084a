"""`tinydeploy compress`."""

from __future__ import annotations

import sys
from typing import Any

import click

from tinydeploy.cli.options import TARGET, data_options, json_option, model_argument, print_json, warn
from tinydeploy.cli.sections import SectionedCommand

# ruff: noqa: PLC0415  (heavy imports wait until the command runs)

SECTIONS = {
    "weights": "Model, data and results",
    "bits": "Quantization",
    "prune": "Pruning",
    "finetune_epochs": "Training",
    "qat_epochs": "Quantization-aware training",
    "as_json": "Others",
}
"""Headings of the help, by the parameter that each stands before."""


def _layer_ratios(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, float]:
    """NAME=RATIO by name; a name may hold = itself."""
    del context, parameter
    ratios: dict[str, float] = {}
    for text in given:
        name, _, ratio = text.rpartition("=")
        try:
            number = float(ratio)
        except ValueError:
            name, number = "", 0.0
        if not name:
            raise click.BadParameter(f"{text!r} is not of the form NAME=RATIO, such as conv1=0.5")
        if ratios.setdefault(name, number) != number:
            raise click.BadParameter(f"two ratios are given for {name!r}")
    return ratios


@click.command("compress", cls=SectionedCommand, sections=SECTIONS)
@model_argument
@click.option("--data", required=True, help="An .npz file with x and y: for calibration and training.")
@click.option("--eval-data", help="An .npz file for the accuracies; --data by default.")
@click.option(
    "-o", "--output", "folder", required=True, help="Folder for model.onnx, model.tflite, report.json."
)
@data_options
@click.option(
    "--max-accuracy-drop",
    type=click.FloatRange(0.0, 1.0),
    help="A fraction; more is exit 1, and nothing is written.",
)
@click.option("--force", is_flag=True, help="Write the files even so.")
@click.option("--target", default="cortex-m4", show_default=True, help=TARGET)
@click.option("--debug-layers", is_flag=True, help="Print the error of every layer.")
@click.option(
    "--bits",
    metavar="W[:A]",
    help="Bits of weights and activations, 2 to 8 each, such as 4:8; A is 8 where it is missing. auto in the"
    " place of a number chooses them by --max-accuracy-drop or --bits-budget: of each layer's weights (auto),"
    " of each activation (4:auto), or of both (auto:auto).",
)
@click.option(
    "--bits-budget",
    help="With --bits auto: flash=64k, ram=24k or latency=20ms on the target, or a share of what eight bits"
    " take, such as flash=60%.",
)
@click.option(
    "--scheme",
    metavar="NAME[:N]",
    help="Of the weights: linear:2..8, codebook:1..7, dynamic:2..7, binary, ternary, ttq or abc:1..8.",
)
@click.option("--recipe", help="A .toml file with bits and schemes by layer.")
@click.option(
    "--calibration",
    default="minmax",
    show_default=True,
    help="minmax, percentile, mse, entropy, aciq or hwgq.",
)
@click.option("--calibration-samples", type=click.IntRange(min=1), default=500, show_default=True)
@click.option(
    "--repair",
    metavar="NAME[,NAME]",
    help="After post-training quantization: equalize, adaround, and bias or bias-analytic; docs/quantizers.",
)
@click.option(
    "--prune",
    help="A ratio such as 0.3; auto; or a goal: macs=50%, params=40%, and flash=64k, ram=24k or latency=20ms,"
    " or a share of them, on the target.",
)
@click.option(
    "--prune-layer",
    "prune_layers",
    multiple=True,
    metavar="NAME=RATIO",
    callback=_layer_ratios,
    help="A ratio for one layer and what goes with it; wins over --prune. May be given again.",
)
@click.option(
    "--prune-scope",
    type=click.Choice(["global", "layer", "measured"]),
    help="Rank the channels of all layers together; take the same share of each layer; or, for goals in"
    " macs and params, try every layer and take what costs the least loss for what it saves. By default"
    " `layer` for a ratio and `global` for a goal.",
)
@click.option(
    "--cost-aware",
    is_flag=True,
    help="Rank channels by importance per saved cost of the goal; better for some networks, not for all.",
)
@click.option("--importance", default="l2", show_default=True, help="l1, l2, bn, taylor or random.")
@click.option(
    "--prune-divisor",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Groups keep a multiple of this many channels.",
)
@click.option(
    "--prune-steps",
    type=click.IntRange(1, 20),
    default=1,
    show_default=True,
    help="More than 1 prunes a part at a time, with an epoch of training in between.",
)
@click.option("--protect", multiple=True, help="A layer that keeps its channels; may be given again.")
@click.option(
    "--protect-residual",
    is_flag=True,
    help="Prune only inside residual blocks: what an addition shares stays.",
)
@click.option(
    "--finetune-epochs",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="In all: those before and between the steps of pruning are part of them.",
)
@click.option(
    "--warmup-epochs",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of those, how many come before pruning.",
)
@click.option(
    "--optimizer",
    type=click.Choice(["adam", "muon", "sgd"]),
    default="adam",
    show_default=True,
    help="muon makes the steps of weight matrices orthogonal, and learns more in as many epochs where a"
    " network is far from its best, such as after pruning; quantization-aware epochs have adam then.",
)
@click.option(
    "--learning-rate",
    type=float,
    help="Relative to the size of each tensor (with sgd: as it is); by default 0.02, with muon 0.01,"
    " with sgd 0.003.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True)
@click.option(
    "--loss",
    default="auto",
    show_default=True,
    help="cross_entropy, mse, or package.module:function(outputs, labels).",
)
@click.option("--augment", help="package.module:function(x, generator), applied to every batch.")
@click.option(
    "--batch-norm/--no-batch-norm",
    default=True,
    show_default=True,
    help="Normalize over the batch while training, and fold that away.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Of the products in training.",
)
@click.option(
    "--distill",
    is_flag=True,
    help="Let the float model teach the pruned one, as it is after --warmup-epochs; without --prune, as it is"
    " after training, the quantized one.",
)
@click.option(
    "--distill-weight",
    type=click.FloatRange(0.0, 1.0),
    default=0.5,
    show_default=True,
    help="The teacher's share of the loss; the labels have the rest.",
)
@click.option(
    "--distill-temperature",
    type=click.FloatRange(min=0.0, min_open=True),
    default=4.0,
    show_default=True,
    help="Softens what the teacher says.",
)
@click.option(
    "--distill-features",
    type=click.FloatRange(min=0.0),
    default=0.0,
    show_default=True,
    help="With --distill, how much the sums of residual blocks are to be like the teacher's; 4 is a start."
    " Needs --protect-residual.",
)
@click.option("--checkpoint", help="A .safetensors file; training goes on from it where it exists.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--qat-epochs",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Quantization-aware; 0 quantizes after training.",
)
@click.option(
    "--qat-learning-rate",
    type=click.FloatRange(min=0.0, min_open=True),
    help="Of the quantization-aware training; by default 0.0003, with binary layers 0.003.",
)
@click.option(
    "--qat-ranges",
    type=click.Choice(
        ["running", "learned", "lsq", "pact", "hwgq", "hwgq-plain", "hwgq-log", "hwgq-lloyd", "abc"]
    ),
    help="Activations in quantization-aware training: running averages of their ends (the default), ends that"
    " are learned, a learned step (lsq), a learned clip (pact), or the step of a rectified Gaussian (hwgq;"
    " -plain and -log have other gradients). Below eight bits, with or without training, hwgq-lloyd takes"
    " levels that are not evenly spaced, and abc as many bases as bits (ABC-Net).",
)
@click.option(
    "--qat-weights",
    type=click.Choice(["auto", "straight", "lsq", "centroids", "centroids-moving"]),
    help="Weights there: scales and codebooks of every batch (straight), learned scales of linear weights"
    " (lsq), learned values of codebooks (centroids), or these and the weights that share them"
    " (centroids-moving). By default lsq for linear weights below eight bits, else straight.",
)
@click.option(
    "--qat-rounding",
    type=click.Choice(["nearest", "stochastic"]),
    help="Of weights and activations there: nearest (the default), or at random in proportion.",
)
@click.option(
    "--qat-bits-from",
    type=click.IntRange(3, 8),
    help="Start there with so many bits and go down by two in the first half of the epochs.",
)
@click.option(
    "--qat-signs",
    type=click.Choice(["wide", "hardtanh", "relu", "polynomial"]),
    help="Gradient of signs there: 2 - 2|u| between the levels (polynomial, the default), 1 there (hardtanh),"
    " 1 within twice the levels (wide), or above the lower one (relu).",
)
@json_option
def compress_command(
    model: str, weights: str | None, folder: str, as_json: bool, debug_layers: bool, **given: Any
) -> None:
    """Makes a float MODEL small: prunes channels, trains, quantizes to int8 or fewer bits, and measures.

    Writes model.onnx (QDQ), model.tflite and report.json into the output folder; `export-c` takes either
    model on. TFLite has weights of 8 and 4 bits only, so other forms leave model.tflite out, as uneven
    levels do. Training needs the extra 'train'.

    \b
    Example:
      tinydeploy compress net.onnx --data train.npz --eval-data test.npz -o out
      tinydeploy compress net.pt2 --data train.npz --eval-data test.npz --prune macs=50% \\
        --finetune-epochs 10 --qat-epochs 3 --max-accuracy-drop 0.01 -o out
    """
    from tinydeploy import api
    from tinydeploy.cli.progress import progress_bar
    from tinydeploy.report.compression import compression_report, layer_error_report
    from tinydeploy.report.tables import print_report

    with progress_bar() as progress:
        result, warnings = api.compress(
            api.load_model(model, weights), output=folder, progress=progress, **given
        )
    warn(warnings)
    if as_json:
        print_json(result.to_json())
    else:
        print_report(compression_report(result, folder))
        if debug_layers:
            print_report(layer_error_report(result))
    if result.missed is not None:
        sys.exit(1)
