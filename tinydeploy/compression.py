"""`compress`: a float network becomes a pruned, fine-tuned, quantized one, measured before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tinydeploy.data import Samples
from tinydeploy.errors import DeployError
from tinydeploy.evaluation import evaluate
from tinydeploy.finetune import TrainOptions
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.ir.verify import graph_macs
from tinydeploy.measure import Progress, silent
from tinydeploy.ops.quantize import quantize_array
from tinydeploy.passes.dead_channels import remove_dead_channels
from tinydeploy.plan import plan_memory
from tinydeploy.profiling import graph_params
from tinydeploy.prune.goal import PruneGoal
from tinydeploy.prune.sensitivity import Sensitivity
from tinydeploy.pruning import Pruned, PruneOptions, prune
from tinydeploy.quantize import LayerError, QuantizeOptions, first_bad_layer, layer_errors, quantize

GraphTest = Callable[[Graph], bool]
"""Whether an int8 graph keeps a flash or RAM limit of the target."""


@dataclass(frozen=True)
class CompressOptions:
    """What to do with a network.

    Attributes:
        goal: how much to prune.
        calibration: name of the calibrator; `calibration_samples` of the data are used.
        finetune_epochs: after pruning; without pruning too, which makes a fair comparison.
        qat_epochs: quantization-aware, after that; 0 quantizes after training.
        train: learning rate, batch size, seed, loss, augmentation; its epochs are ignored.
        qat_learning_rate: a share of the learning rate.
        distill: let the float model teach (KL divergence).
        max_accuracy_drop: largest loss from the float model to the int8 one, as a fraction; None allows any.
    """

    goal: PruneGoal = field(default_factory=lambda: PruneGoal("none"))
    prune: PruneOptions = field(default_factory=PruneOptions)
    calibration: str = "minmax"
    calibration_samples: int = 500
    finetune_epochs: int = 0
    qat_epochs: int = 0
    train: TrainOptions = field(default_factory=TrainOptions)
    qat_learning_rate: float = 0.1
    distill: bool = False
    max_accuracy_drop: float | None = None


@dataclass(frozen=True)
class Stage:
    """A network on its way, measured.

    Attributes:
        value: of the metric, None where the data has no labels.
        weights_bytes: all constants as they are stored.
        arena_bytes: of the memory plan.
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
        missed: why the answer is no, or None.
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
    forced: bool = False

    @property
    def first_bad(self) -> LayerError | None:
        return first_bad_layer(self.errors)

    def to_json(self) -> dict[str, object]:
        o = self.options
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
                "divisor": o.prune.select.divisor,
                "groups": [{"name": n, "before": a, "after": b} for n, a, b in self.widths],
            },
            "calibration": o.calibration,
            "finetune_epochs": o.finetune_epochs,
            "qat_epochs": o.qat_epochs,
            "seed": o.train.seed,
            "layers": [{"name": e.name, "op": e.op, "sqnr_db": _finite(e.sqnr_db)} for e in self.errors],
        }


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if np.isfinite(value) else None


@dataclass(frozen=True)
class Inputs:
    """A float graph with the data to compress it with.

    Attributes:
        training: for calibration and training.
        evaluation: for the accuracies in the report.
        fits: whether an int8 graph keeps the goal, for goals in flash and RAM.
    """

    graph: Graph
    training: Samples
    evaluation: Samples
    model: str
    target: str
    fits: GraphTest | None = None


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
    stages = [_stage("float", given.graph, given)]
    graph = remove_dead_channels(given.graph)
    given = replace(given, graph=graph)
    pruned = _prune(given, options, progress)
    trained = _train(pruned.graph, given, options, progress)
    if trained is not graph:
        stages.append(_stage("pruned" if pruned.widths else "trained", trained, given))
    calibration = [x[: options.calibration_samples] for x in given.training.inputs]
    result = quantize(trained, calibration, QuantizeOptions(options.calibration))
    if options.qat_epochs:
        result, trained = _qat(trained, given, options, progress)
    stages.append(_stage("int8", result, given))
    few = [x[:64] for x in given.evaluation.inputs]
    return Compression(
        model=given.model,
        target=given.target,
        metric=None if given.evaluation.labels is None else _metric(graph, given),
        float_graph=trained,
        graph=result,
        stages=tuple(stages),
        widths=pruned.widths,
        sensitivity=pruned.sensitivity,
        errors=layer_errors(trained, result, few),
        options=options,
        missed=_missed(stages, options, given),
    )


def _prune(given: Inputs, options: CompressOptions, progress: Progress) -> Pruned:
    def score(candidate: Graph) -> float:
        return _score(candidate, given.training, options.prune.scan_samples)

    def quick_fit(candidate: Graph) -> bool:
        assert given.fits is not None
        few = [x[:32] for x in given.training.inputs]
        return given.fits(quantize(candidate, few, QuantizeOptions()))

    def train(candidate: Graph, epochs: int) -> Graph:
        # The checkpoint is that of the training after pruning, whose network is another one.
        train = replace(options.train, epochs=epochs, checkpoint=None)
        return _finetune(candidate, given, train, progress)

    return prune(
        given.graph,
        options.goal,
        options.prune,
        score=score,
        fits=None if given.fits is None else quick_fit,
        train=train,
        drop=options.max_accuracy_drop,
        samples=given.training,
        progress=progress,
    )


def _score(graph: Graph, samples: Samples, count: int) -> float:
    """Accuracy on the first samples, or minus the mean squared error."""
    if samples.labels is None:
        raise DeployError("--prune auto needs labels", where="--data", hint="add an array y")
    few = Samples(tuple(x[:count] for x in samples.inputs), samples.labels[:count], ())
    result = evaluate(graph, few, model=graph.source)
    return result.value if result.metric == "accuracy" else -result.value


def _train(graph: Graph, given: Inputs, options: CompressOptions, progress: Progress) -> Graph:
    if not options.finetune_epochs:
        return graph
    teacher = given.graph if options.distill else None
    train = replace(options.train, epochs=options.finetune_epochs, distill_from=teacher)
    return _finetune(graph, given, train, progress)


def _finetune(graph: Graph, given: Inputs, options: TrainOptions, progress: Progress) -> Graph:
    from tinydeploy.finetune import finetune  # noqa: PLC0415
    from tinydeploy.trainable import make_trainable  # noqa: PLC0415

    trainable = make_trainable(graph)
    x, y = _training_data(given)
    finetune(trainable, x, y, options, training_progress("training", progress))
    return trainable.to_graph()


def _qat(graph: Graph, given: Inputs, options: CompressOptions, progress: Progress) -> tuple[Graph, Graph]:
    from tinydeploy.finetune import finetune  # noqa: PLC0415
    from tinydeploy.quantize.qat import make_quantized_trainable  # noqa: PLC0415

    calibration = [x[: options.calibration_samples] for x in given.training.inputs]
    trainable = make_quantized_trainable(graph, calibration, options.calibration)
    teacher = given.graph if options.distill else None
    rate = options.train.learning_rate * options.qat_learning_rate
    train = replace(
        options.train, epochs=options.qat_epochs, learning_rate=rate, distill_from=teacher, checkpoint=None
    )
    x, y = _training_data(given)
    finetune(trainable, x, y, train, training_progress("quantization-aware training", progress))
    return trainable.to_quantized_graph(), trainable.to_graph()


def _training_data(given: Inputs) -> tuple[Array, Array]:
    if len(given.training.inputs) != 1 or given.training.labels is None:
        raise DeployError(
            "training needs a model with one input, and labels",
            where="--data",
            hint="add an array y to the .npz file, or leave out the epochs",
        )
    return given.training.inputs[0], given.training.labels


def training_progress(what: str, progress: Progress) -> Callable[[object], None]:
    """Shows epoch, loss, accuracy and time left as one Progress."""

    def report(p: object) -> None:
        loss, accuracy = getattr(p, "loss"), getattr(p, "accuracy")  # noqa: B009
        epoch, epochs = getattr(p, "epoch"), getattr(p, "epochs")  # noqa: B009
        step, steps = getattr(p, "step"), getattr(p, "steps")  # noqa: B009
        shown = "" if accuracy is None else f", accuracy {accuracy:.1%}"
        progress(
            f"{what}: epoch {epoch} of {epochs}, loss {loss:.3f}{shown}",
            (epoch - 1) * steps + step,
            epochs * steps,
        )

    return report


def _stage(name: str, graph: Graph, given: Inputs) -> Stage:
    samples = _samples_for(graph, given)
    value = None if samples.labels is None else evaluate(graph, samples, model=given.model).value
    used = {n for node in graph.nodes for n in node.inputs if n is not None}
    return Stage(
        name,
        value,
        graph_macs(graph),
        graph_params(graph),
        sum(v.bytes for v in graph.constants() if v.name in used),
        plan_memory(graph).arena_bytes,
    )


def _samples_for(graph: Graph, given: Inputs) -> Samples:
    """The evaluation data in the types of a float or an int8 graph."""
    inputs = []
    for name, x in zip(graph.inputs, given.evaluation.inputs, strict=True):
        value = graph.value(name)
        inputs.append(x if value.dtype.is_float else quantize_array(x, value.quant, value.dtype))
    return Samples(tuple(inputs), given.evaluation.labels, ())


def _metric(graph: Graph, given: Inputs) -> str:
    few = Samples(
        tuple(x[:1] for x in given.evaluation.inputs),
        None if given.evaluation.labels is None else given.evaluation.labels[:1],
        (),
    )
    return evaluate(graph, few, model=given.model).metric


def _missed(stages: Sequence[Stage], options: CompressOptions, given: Inputs) -> str | None:
    before, after = stages[0].value, stages[-1].value
    drop = options.max_accuracy_drop
    if drop is None or before is None or after is None:
        return None
    lost = before - after if _metric(given.graph, given) == "accuracy" else after - before
    if lost <= drop:
        return None
    return f"{lost:.4f} lost and {drop:.4f} allowed"
