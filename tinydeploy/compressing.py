"""`compress` of a model file on data: from the options that a user gives to what is written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tinydeploy import compression
from tinydeploy.backends.c.project import exported_arena
from tinydeploy.compression import Compression, CompressOptions, Inputs
from tinydeploy.compression.bits_search import Budget, Search, bits_option
from tinydeploy.compression.pruning import PruneOptions
from tinydeploy.data import DataSource, fit_samples, open_dataset
from tinydeploy.errors import DeployError
from tinydeploy.export import write_files
from tinydeploy.finetune import TrainOptions
from tinydeploy.finetune.options import LEARNING_RATES, Optimizer, Precision
from tinydeploy.ir.graph import Graph
from tinydeploy.jobs import export_options
from tinydeploy.measure import Job, Progress, silent
from tinydeploy.model import Model
from tinydeploy.prune.goal import PruneGoal, parse_goal
from tinydeploy.prune.residual import residual_sums
from tinydeploy.prune.select import Scope, SelectOptions
from tinydeploy.quantize.qat_options import Ranges, Rounding, SignGradient, WeightSteps, overridden
from tinydeploy.quantize.recipe_file import make_recipe
from tinydeploy.repair.steps import parse_repairs
from tinydeploy.report.files import OPTIONAL_FILES, compressed_files
from tinydeploy.target_cost import TargetCost, target_cost
from tinydeploy.targets import load_target


def compress(
    model: Model,
    data: DataSource,
    *,
    output: str | os.PathLike[str] | None = None,
    eval_data: DataSource | None = None,
    bits: str | None = None,
    scheme: str | None = None,
    recipe: str | os.PathLike[str] | None = None,
    bits_budget: str | None = None,
    prune: str | None = None,
    prune_divisor: int = 4,
    prune_steps: int = 1,
    prune_scope: Scope | None = None,
    prune_layers: Mapping[str, float] | None = None,
    cost_aware: bool = False,
    importance: str = "l2",
    protect: Sequence[str] = (),
    protect_residual: bool = False,
    calibration: str = "minmax",
    calibration_samples: int = 500,
    finetune_epochs: int = 0,
    warmup_epochs: int = 0,
    qat_epochs: int = 0,
    optimizer: Optimizer = "adam",
    learning_rate: float | None = None,
    qat_learning_rate: float | None = None,
    batch_size: int = 64,
    loss: str = "auto",
    augment: str | None = None,
    batch_norm: bool = True,
    precision: Precision = "float32",
    qat_ranges: Ranges | None = None,
    qat_weights: WeightSteps | None = None,
    qat_rounding: Rounding | None = None,
    qat_bits_from: int | None = None,
    qat_signs: SignGradient | None = None,
    distill: bool = False,
    distill_weight: float = 0.5,
    distill_temperature: float = 4.0,
    distill_features: float = 0.0,
    checkpoint: str | None = None,
    seed: int = 0,
    repair: str | None = None,
    max_accuracy_drop: float | None = None,
    force: bool = False,
    target: str = "cortex-m4",
    input_scale: float = 1.0,
    input_mean: float = 0.0,
    progress: Progress = silent,
) -> tuple[Compression, tuple[str, ...]]:
    """Prunes, trains and quantizes a float model; writes model.onnx, model.tflite and report.json.

    The arguments are the options of `tinydeploy compress`, whose help describes each.

    Args:
        data: an .npz file, or the arrays themselves by name, with x and y, for calibration and training;
            `eval_data` for the accuracies.
        output: folder; None writes nothing. Nothing is written either where the accuracy or the goal is
            missed, unless `force`. After `prune="auto"` there is a sensitivity.svg too.
        bits: of weights and activations, "4" or "4:8"; "auto" in the place of a number chooses those of each
            layer's weights ("auto", "auto:6"), of each activation ("4:auto") or of both ("auto:auto") by
            `max_accuracy_drop` or by `bits_budget`, such as "flash=64k"; or `scheme`, the scheme of the
            weights, such as "codebook:4"; or `recipe`, a TOML file that says both by layer.
        learning_rate: where it is None, that of the optimizer: 0.02, 0.01 for "muon", 0.003 for "sgd".
        qat_learning_rate: of the quantization-aware training; where it is None 0.0003, with
            binary layers 0.003.
        qat_ranges, qat_weights, qat_rounding, qat_bits_from, qat_signs: see `QatOptions`; what is None is
            as the recipe says it.
        prune: a ratio, "auto" or a goal, as text: "0.3", "macs=50%", "latency=20ms".
        prune_layers: ratios by the name of a layer; they win over `prune`.
        progress: called with what is being done, the steps done, and all steps.

    Returns:
        The result, and warnings about the data.

    Raises:
        DeployError: the model is quantized already, the data does not fit, a goal cannot be reached.
        MissingExtraError: training is asked for without the extra `train`.
    """
    pruning = bool(prune or prune_layers)
    if distill and not (qat_epochs or (pruning and finetune_epochs)):
        raise DeployError(
            "there is nothing to teach",
            where="--distill",
            hint="add --qat-epochs, or --prune with --finetune-epochs",
        )
    if distill_features:
        _check_features(model, distill, protect_residual or not pruning)
    where = load_target(target)
    goal = parse_goal(prune)
    auto, budget = bits_option(bits, max_accuracy_drop, bits_budget)
    chosen = make_recipe(bits if auto is None else "8", scheme, None if recipe is None else Path(recipe))
    qat = overridden(
        chosen.training,
        ranges=qat_ranges,
        weights=qat_weights,
        rounding=qat_rounding,
        bits_from=qat_bits_from,
        signs=qat_signs,
    )
    chosen = replace(chosen, training=qat)
    training = fit_samples(model.graph, open_dataset(data), scale=input_scale, mean=input_mean)
    held = training
    if eval_data is not None:
        held = fit_samples(model.graph, open_dataset(eval_data), scale=input_scale, mean=input_mean)
    options = CompressOptions(
        goal=goal,
        recipe=chosen,
        prune=PruneOptions(
            importance,
            SelectOptions(prune_divisor, scope=prune_scope, cost_aware=cost_aware),
            tuple(protect),
            protect_residual,
            prune_steps,
            ratios=prune_layers or {},
            seed=seed,
        ),
        calibration=calibration,
        calibration_samples=calibration_samples,
        finetune_epochs=finetune_epochs,
        warmup_epochs=warmup_epochs,
        qat_epochs=qat_epochs,
        train=TrainOptions(
            optimizer=optimizer,
            learning_rate=LEARNING_RATES.get(optimizer, 0.0) if learning_rate is None else learning_rate,
            batch_size=batch_size,
            seed=seed,
            loss=loss,
            augment=augment,
            batch_norm=batch_norm,
            precision=precision,
            distill_weight=distill_weight,
            temperature=distill_temperature,
            feature_weight=distill_features,
            checkpoint=None if checkpoint is None else Path(checkpoint),
        ),
        qat_learning_rate=qat_learning_rate,
        qat=qat,
        distill=distill,
        repair=parse_repairs(repair),
        max_accuracy_drop=max_accuracy_drop,
    )
    export = export_options(model, where, None, "latency")

    def job(graph: Graph) -> Job:
        return Job(graph, export, where.core, board=where.board)

    given = Inputs(
        model.graph,
        training,
        held,
        model.path,
        where.name,
        target_cost(goal, where, job),
        lambda graph: exported_arena(graph, export),
        None
        if auto is None
        else Search(max_accuracy_drop, _budget(budget, target_cost(budget, where, job)), auto),
    )
    result = compression.compress(given, options, progress=progress)
    if output is not None and (result.missed is None or force):
        result = replace(result, forced=force)
        result, files = compressed_files(result)
        write_files(files, Path(output), obsolete=OPTIONAL_FILES)
    return result, (*training.warnings, *(held.warnings if eval_data is not None else ()))


def _budget(goal: PruneGoal, cost: TargetCost | None) -> Budget | None:
    if cost is None:
        return None
    return Budget(cost, None, goal.amount) if goal.relative else Budget(cost, goal.amount)


def _check_features(model: Model, distill: bool, kept: bool) -> None:
    """Before anything is trained: a teacher, and residual sums that pruning leaves as they are."""
    option = "--distill-features"
    if not distill:
        raise DeployError("compares with a teacher", where=option, hint="add --distill")
    if not residual_sums(model.graph):
        raise DeployError("has no residual blocks", where=model.path, hint=f"leave {option} out")
    if not kept:
        raise DeployError("compares whole residual sums", where=option, hint="add --protect-residual")
