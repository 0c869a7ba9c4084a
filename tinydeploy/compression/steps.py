"""`compress`: a float network becomes a pruned, fine-tuned, quantized one, measured before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from tinydeploy.compression.bits_search import Found, Search, search_bits
from tinydeploy.compression.pruning import Pruned, PruneOptions, prune
from tinydeploy.compression.repairing import Gain, repair
from tinydeploy.compression.scoring import metric_of, value_of
from tinydeploy.compression.training import Trainer
from tinydeploy.data import Samples
from tinydeploy.errors import DeployError
from tinydeploy.evaluation import evaluate
from tinydeploy.finetune import TrainOptions
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.show import form_text
from tinydeploy.ir.verify import graph_macs
from tinydeploy.measure import Progress, silent
from tinydeploy.passes.dead_channels import remove_dead_channels
from tinydeploy.plan import plan_memory
from tinydeploy.profiling import graph_params
from tinydeploy.prune.goal import PruneGoal
from tinydeploy.prune.sensitivity import Sensitivity
from tinydeploy.quantize import LayerError, QuantizeOptions, first_bad_layer, layer_errors, quantize
from tinydeploy.quantize.qat_options import QatOptions
from tinydeploy.quantize.recipe import Recipe
from tinydeploy.quantize.staircases import few_levels
from tinydeploy.repair.steps import Case
from tinydeploy.target_cost import Reached, TargetCost

ACCURACY = "accuracy"
"""What a message about a missed accuracy starts with."""

QAT_RATE = 3e-4
"""The learning rate of quantization-aware training, where nobody says one."""

BINARY_RATE = 3e-3
"""The same for a recipe with signs, which take the network far from where float training left it."""


@dataclass(frozen=True)
class CompressOptions:
    """What to do with a network.

    Attributes:
        goal: how much to prune.
        recipe: which layer is quantized how.
        calibration: name of the calibrator; `calibration_samples` of the data are used.
        finetune_epochs: in all, those before and between the steps of pruning included; without pruning
            too, which makes a fair comparison.
        warmup_epochs: those before the first step of pruning; the network that they give is the teacher
            where `distill` is set.
        qat_epochs: quantization-aware, after that; 0 quantizes after training.
        train: learning rate, batch size, seed, loss, augmentation; its epochs are ignored.
        qat_learning_rate: of the quantization-aware training; None takes QAT_RATE, or BINARY_RATE for a
            recipe with signs.
        qat: how the quantization-aware training learns scales and ranges; None takes what the recipe says.
        distill: let the float model, as it is after the warm-up, teach what pruning leaves of it; without
            pruning, as it is after training, the quantized one (KL divergence).
        repair: names of `repair.steps.REPAIRS`, in their order; after post-training quantization only.
        max_accuracy_drop: largest loss from the float model to the int8 one, as a fraction; None allows any.
    """

    goal: PruneGoal = field(default_factory=lambda: PruneGoal("none"))
    recipe: Recipe = field(default_factory=Recipe)
    prune: PruneOptions = field(default_factory=PruneOptions)
    calibration: str = "minmax"
    calibration_samples: int = 500
    finetune_epochs: int = 0
    warmup_epochs: int = 0
    qat_epochs: int = 0
    train: TrainOptions = field(default_factory=TrainOptions)
    qat_learning_rate: float | None = None
    qat: QatOptions | None = None
    distill: bool = False
    repair: tuple[str, ...] = ()
    max_accuracy_drop: float | None = None

    @property
    def qat_rate(self) -> float:
        """The learning rate of the quantization-aware training."""
        if self.qat_learning_rate is not None:
            return self.qat_learning_rate
        return BINARY_RATE if self.recipe.binary else QAT_RATE


@dataclass(frozen=True)
class Stage:
    """A network on its way, measured.

    Attributes:
        value: of the metric, None where the data has no labels.
        weights_bytes: all constants as they are stored.
        arena_bytes: of the memory plan; of int8 with the kernels of the target.
    """

    name: str
    value: float | None
    macs: int
    params: int
    weights_bytes: int
    arena_bytes: int

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "value": self.value,
            "macs": self.macs,
            "params": self.params,
            "weights_bytes": self.weights_bytes,
            "arena_bytes": self.arena_bytes,
        }


@dataclass(frozen=True)
class Compression:
    """The result: the int8 graph, and what it cost to get there.

    Attributes:
        metric: what `value` of each stage is; None where the data has no labels.
        stages: float, pruned and trained (where that happened), int8.
        reached: a goal in flash, RAM or latency, measured.
        missed: why the answer is no, or None.
        tflite_refused: why there is no model.tflite, or None.
        gains: what each repair gave; empty where none was asked for.
        bits: what `--bits auto` measured and chose, or None.
    """

    model: str
    target: str
    metric: str | None
    float_graph: Graph
    graph: Graph
    stages: tuple[Stage, ...]
    widths: tuple[tuple[str, int, int], ...]
    sensitivity: Sensitivity | None
    errors: tuple[LayerError, ...]
    options: CompressOptions
    missed: str | None
    reached: Reached | None = None
    forced: bool = False
    tflite_refused: str | None = None
    gains: tuple[Gain, ...] = ()
    bits: Found | None = None

    @property
    def first_bad(self) -> LayerError | None:
        return first_bad_layer(self.errors)

    def to_json(self) -> dict[str, object]:
        o = self.options
        training = o.qat or o.recipe.training
        return {
            "model": self.model,
            "target": self.target,
            "metric": self.metric,
            "before": self.stages[0].to_json(),
            "after": self.stages[-1].to_json(),
            "stages": [s.to_json() for s in self.stages],
            "missed": self.missed,
            "prune": {
                "goal": o.goal.kind,
                "amount": o.goal.amount,
                "importance": o.prune.importance,
                "cost_aware": o.prune.select.cost_aware,
                "scope": o.prune.select.scope,
                "divisor": o.prune.select.divisor,
                "groups": [{"name": n, "before": a, "after": b} for n, a, b in self.widths],
                "reached": None if self.reached is None else self.reached.to_json(),
            },
            "sensitivity": None if self.sensitivity is None else self.sensitivity.to_json(),
            "calibration": o.calibration,
            "forms": _forms(self.graph),
            "tflite": None if self.tflite_refused else "model.tflite",
            "tflite_refused": self.tflite_refused,
            "finetune_epochs": o.finetune_epochs,
            "warmup_epochs": o.warmup_epochs,
            "qat_epochs": o.qat_epochs,
            "qat_learning_rate": o.qat_rate,
            "repair": [gain.to_json() for gain in self.gains],
            "bits": None if self.bits is None else [m.to_json() for m in self.bits.table],
            "qat_ranges": training.ranges,
            "qat": asdict(training),
            "seed": o.train.seed,
            "layers": [{"name": e.name, "op": e.op, "sqnr_db": _finite(e.sqnr_db)} for e in self.errors],
        }


def _forms(graph: Graph) -> dict[str, str]:
    """How each tensor below eight bits is stored, by its name."""
    return {v.name: form_text(v.form) for v in graph.values.values() if v.form is not None}


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if np.isfinite(value) else None


@dataclass(frozen=True)
class Inputs:
    """A float graph with the data to compress it with.

    Attributes:
        training: for calibration and training.
        evaluation: for the accuracies in the report.
        cost: what an int8 graph takes on the target, for goals in flash, RAM and latency.
        arena: bytes of the arena of an int8 graph on the target.
        search: chooses the bits of each layer; the recipe of the options then says the training alone.
    """

    graph: Graph
    training: Samples
    evaluation: Samples
    model: str
    target: str
    cost: TargetCost | None = None
    arena: Callable[[Graph], int] = lambda graph: plan_memory(graph).arena_bytes
    search: Search | None = None


def compress(given: Inputs, options: CompressOptions, *, progress: Progress = silent) -> Compression:
    """Prunes, trains and quantizes a float graph.

    Raises:
        DeployError: the graph is not float, the data does not fit, or a goal cannot be reached.
        MissingExtraError: training is asked for and torch is not installed.
    """
    if given.graph.is_integer:
        raise DeployError(
            "the model is quantized already", where=given.model, hint="tinydeploy export-c takes it as it is"
        )
    replace(options.train, learning_rate=options.qat_rate).check()
    if options.repair and options.qat_epochs:
        raise DeployError(
            "repairs what post-training quantization leaves, and --qat-epochs trains it away",
            where="--repair",
            hint="leave out one of both",
        )
    pruning = options.goal.kind != "none" or bool(options.prune.ratios)
    epochs = _last_epochs(options) if pruning else options.finetune_epochs
    trainer = Trainer(given.training, options.train, options.distill, progress)
    stages = [_stage("float", given.graph, given)]
    graph = remove_dead_channels(given.graph)
    # A pattern that matches no layer is told before anything is trained.
    options.recipe.assign(graph)
    given = replace(given, graph=graph)
    dense = trainer.finetune(graph, options.warmup_epochs) if pruning else graph
    pruned = _prune(given, options, trainer, dense)
    # A network learns nothing from what it was before it learned.
    trained = trainer.finetune(pruned.graph, epochs, teacher=dense if pruning else None, checkpoint="")
    if trained is not graph:
        stages.append(_stage("pruned" if pruned.widths else "trained", trained, given))
    calibration = [x[: options.calibration_samples] for x in given.training.inputs]
    found = None
    if given.search is not None:
        found = search_bits(
            trained,
            calibration,
            given.training.labels,
            given.search,
            given.evaluation,
            QuantizeOptions(options.calibration),
            progress,
        )
        options = replace(options, recipe=replace(found.recipe, training=options.recipe.training))
    trained = few_levels(trained, calibration, options.recipe)
    how = QuantizeOptions(options.calibration, recipe=options.recipe)
    few = [x[:64] for x in given.evaluation.inputs]
    repaired, gains = repair(
        Case(trained, quantize(trained, calibration, how), calibration, how, options.train.seed),
        options.repair,
        few,
        lambda graph: value_of(graph, given.evaluation, given.model),
        progress,
    )
    trained, result = repaired.real, repaired.integer
    if options.qat_epochs:
        result, trained = trainer.quantization_aware(
            trained,
            options.qat_epochs,
            (calibration, options.calibration),
            options.qat or options.recipe.training,
            options.qat_rate,
            dense if pruning else trained,
            options.recipe,
        )
    stages.append(_stage(options.recipe.label, result, given))
    reached = _reached(result, pruned, given)
    return Compression(
        model=given.model,
        target=given.target,
        metric=None if given.evaluation.labels is None else metric_of(graph, given.evaluation, given.model),
        float_graph=trained,
        graph=result,
        stages=tuple(stages),
        widths=pruned.widths,
        sensitivity=pruned.sensitivity,
        errors=layer_errors(trained, result, few),
        options=options,
        missed=_missed(stages, options, given) or (None if reached is None else reached.missed),
        reached=reached,
        bits=found,
        gains=gains,
    )


def _last_epochs(options: CompressOptions) -> int:
    """What is left of the epochs for the time after pruning.

    Raises:
        DeployError: pruning alone takes more.
    """
    between = (options.prune.steps - 1) * options.prune.step_epochs
    left = options.finetune_epochs - options.warmup_epochs - between
    if left < 0:
        raise DeployError(
            f"{options.warmup_epochs} epochs before and {between} between the {options.prune.steps} steps of"
            f" pruning are more than --finetune-epochs {options.finetune_epochs}",
            where="--prune-steps",
            hint="raise --finetune-epochs, which counts them all, or take fewer steps",
        )
    return left


def _reached(result: Graph, pruned: Pruned, given: Inputs) -> Reached | None:
    """The goal once more, of what is written: training may have moved the code by a few bytes or cycles."""
    if given.cost is None or pruned.limit is None:
        return None
    limit = pruned.limit
    return Reached(given.cost.kind, given.cost.unit, limit.allowed, limit.before, given.cost(result))


def _prune(given: Inputs, options: CompressOptions, trainer: Trainer, dense: Graph) -> Pruned:
    def score(candidate: Graph) -> float:
        return _score(candidate, given.training, options.prune.scan_samples)

    def measure(candidate: Graph) -> float:
        assert given.cost is not None
        few = [x[:32] for x in given.training.inputs]
        return given.cost(quantize(candidate, few, QuantizeOptions(recipe=options.recipe)))

    # Without labels there is no loss to judge by; without training nobody may have PyTorch.
    labelled = given.training.labels is not None and len(given.training.inputs) == 1
    wanted = options.finetune_epochs > 0 or options.prune.select.scope == "measured"
    return prune(
        dense,
        options.goal,
        options.prune,
        score=score,
        measure=None if given.cost is None else measure,
        # No checkpoint: it is that of the training after pruning, whose network is another one.
        train=lambda graph, epochs: trainer.finetune(graph, epochs, teacher=dense),
        drop=options.max_accuracy_drop,
        samples=given.training,
        recalibration=trainer.recalibration(options.prune.scan_samples) if labelled and wanted else None,
        progress=trainer.progress,
    )


def _score(graph: Graph, samples: Samples, count: int) -> float:
    """Accuracy on the first samples, or minus the mean squared error."""
    if samples.labels is None:
        raise DeployError("--prune auto needs labels", where="--data", hint="add an array y")
    few = Samples(tuple(x[:count] for x in samples.inputs), samples.labels[:count], ())
    result = evaluate(graph, few, model=graph.source)
    return result.value if result.metric == "accuracy" else -result.value


def _stage(name: str, graph: Graph, given: Inputs) -> Stage:
    used = {n for node in graph.nodes for n in node.inputs if n is not None}
    return Stage(
        name,
        value_of(graph, given.evaluation, given.model),
        graph_macs(graph),
        graph_params(graph),
        sum(v.bytes for v in graph.constants() if v.name in used),
        given.arena(graph) if graph.is_integer else plan_memory(graph).arena_bytes,
    )


def _missed(stages: Sequence[Stage], options: CompressOptions, given: Inputs) -> str | None:
    before, after = stages[0].value, stages[-1].value
    drop = options.max_accuracy_drop
    if drop is None or before is None or after is None:
        return None
    lost = (
        before - after
        if metric_of(given.graph, given.evaluation, given.model) == "accuracy"
        else after - before
    )
    if lost <= drop:
        return None
    return f"{ACCURACY}: {lost:.4f} lost and {drop:.4f} allowed"
