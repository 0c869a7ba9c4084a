"""Quantization-aware training: the trainable form learns with its integers in sight, and lowers as PTQ.

Training sees quantization simulated in float with straight-through gradients. Evaluation mode does not
simulate: it lowers the module with the function that post-training quantization uses and runs the integer
engine on the result, so what is evaluated is what is deployed, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.quantize.calibrate import calibrate
from tinydeploy.quantize.qat_options import WATCHED, QatOptions
from tinydeploy.quantize.recipe import INT8_RECIPE, Recipe
from tinydeploy.quantize.scales import Range
from tinydeploy.quantize.staircases import few_levels
from tinydeploy.trainable import make_trainable, require_torch

if TYPE_CHECKING:
    from tinydeploy.trainable.module import Trainable


def prepare_qat(
    trainable: Trainable,
    ranges: Mapping[str, Range],
    options: QatOptions | None = None,
    recipe: Recipe = INT8_RECIPE,
) -> None:
    """Switches a module to quantization-aware training, in place.

    Args:
        ranges: where activation ranges start: one per graph input and node output, as `calibrate` gives them.
        recipe: which layer in how many bits and by which scheme; layers that read signs or staircases have
            SIGN or STAIRCASE in front already, see `few_levels`.
        options: those of the recipe by default.

    Raises:
        DeployError: an op without a quantization rule, or options that make no sense.
        MissingExtraError: PyTorch is not installed.
    """
    require_torch("quantization-aware training")
    from tinydeploy.quantize.simulation import QuantizationSimulation  # noqa: PLC0415  # loads PyTorch
    from tinydeploy.trainable.surrogates import SURROGATES  # noqa: PLC0415

    options = options or recipe.training
    options.check()
    recipe = replace(recipe, training=options)
    trainable.simulation = QuantizationSimulation(trainable.graph, ranges, options, recipe)
    trainable.surrogate = SURROGATES[options.signs]


def make_quantized_trainable(
    graph: Graph,
    inputs: Sequence[Array],
    calibration: str = "minmax",
    options: QatOptions | None = None,
    recipe: Recipe = INT8_RECIPE,
) -> Trainable:
    """The trainable form of a float graph, ready for quantization-aware training.

    Its method `to_quantized_graph` gives the integer graph.

    Args:
        inputs: calibration data, one float32 array (samples, *value.shape) per graph input.
        calibration: a name of `observers.CALIBRATORS`; it sets where the ranges start.
        recipe: which layer in how many bits and by which scheme.

    Raises:
        DeployError: the graph cannot be trained or quantized, or the data do not fit.
        MissingExtraError: PyTorch is not installed.
    """
    recipe = recipe if options is None else replace(recipe, training=options)
    graph = few_levels(graph, inputs, recipe)
    trainable = make_trainable(graph)
    prepare_qat(trainable, calibrate(graph, inputs, calibration, recipe.assign(graph).bits), None, recipe)
    return trainable


__all__ = ["WATCHED", "QatOptions", "make_quantized_trainable", "prepare_qat"]
