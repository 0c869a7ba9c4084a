"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tinydeploy.errors import DeployError
from tinydeploy.finetune import checkpoint
from tinydeploy.finetune.loss import LossFunction, make_loss, prepare_labels
from tinydeploy.finetune.optimizer import make_optimizer
from tinydeploy.finetune.options import Epoch, Progress, TrainOptions, TrainProgress, TrainResult
from tinydeploy.finetune.teacher import Teacher
from tinydeploy.hooks import load_hook
from tinydeploy.ir.types import Array
from tinydeploy.trainable import require_torch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tinydeploy.trainable.module import Trainable

_MEASURED = 256
_SETTLING = 64

Augment = Callable[["Tensor", "torch.Generator"], "Tensor"]


def finetune(
    trainable: Trainable,
    x: Array,
    y: Array,
    options: TrainOptions | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Trains in place; the module comes back in evaluation mode, on the CPU.

    Two runs with the same arguments give the same weights on the same machine and number of threads, whether
    or not one of them was stopped and resumed.

    Args:
        x: float32 (samples, *shape of the graph's one input), NHWC as the engine takes it.
        y: class numbers (samples,), or values of the output's shape.

    Raises:
        DeployError: data or options that do not fit, a hook that fails, or a loss that is not finite.
        MissingExtraError: PyTorch or safetensors is not installed.
    """
    require_torch("training")
    options = options or TrainOptions()
    options.check()
    return _Run(trainable, x, y, options, progress).run()


@dataclass
class _Tally:
    """Sums over the samples of an epoch so far."""

    loss: float = 0.0
    correct: int = 0
    samples: int = 0

    def epoch(self, *, classes: bool) -> Epoch:
        count = max(self.samples, 1)
        return Epoch(self.loss / count, self.correct / count if classes else None)


class _Run:
    """One training from its start or from a checkpoint to its end."""

    def __init__(
        self, module: Trainable, x: Array, y: Array, options: TrainOptions, progress: Progress | None
    ) -> None:
        self.module, self.options, self.progress = module, options, progress
        check_data(module, x, y)
        outputs = math.prod(module.graph.value(module.graph.outputs[0]).shape)
        # PyTorch warns of arrays that cannot be written, such as those of a file that is mapped.
        self.x = np.require(x, np.float32, ["C", "W"])
        self.y, kind = prepare_labels(y, outputs, options.loss)
        self.classes = self.y.dtype.kind == "i"
        self.loss: LossFunction = make_loss(kind)
        self.augment: Augment | None = None
        if options.augment is not None:
            self.augment = load_hook(options.augment, "the augmentation")
        self.device = _device(options.device)
        self.steps = -(-len(self.x) // options.batch_size)
        self.logits = module.logits_name()
        self.teacher: Teacher | None = None
        if options.distill_from is not None:
            self.teacher = Teacher(options.distill_from, module.graph, options)

    def run(self) -> TrainResult:
        import torch  # noqa: PLC0415  # heavy, and an optional extra

        options, module = self.options, self.module
        history: list[Epoch] = []
        # Hooks and rounding may draw from the global generator: seeded for them, and put back afterwards.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            if options.batch_norm:
                self._normalize()
            mark = checkpoint.fingerprint(module, self.x, self.y, options)
            module.to(self.device)
            if self.teacher is not None:
                self.teacher.to(self.device)
            optimizer = make_optimizer(module, options)
            if options.checkpoint is not None:
                history = checkpoint.load(options.checkpoint, module, optimizer, mark)
            resumed = len(history)
            started = time.monotonic()
            for number in range(resumed, options.epochs):
                history.append(self._epoch(optimizer, number, started, resumed))
                if options.checkpoint is not None:
                    checkpoint.save(options.checkpoint, module, optimizer, history, mark)
            if module.norms and options.epochs:
                torch.manual_seed(options.seed)
                with self._precision():
                    module.settle(self._settling())
        module.to("cpu").eval()
        return TrainResult(tuple(history), resumed, str(self.device))

    def _normalize(self) -> None:
        """Batch normalization; under simulated integers it gives outputs the statistics that float has."""
        import torch  # noqa: PLC0415

        module, simulation = self.module, self.module.simulation
        if simulation is not None and not simulation.normalizes:
            return
        few = torch.from_numpy(self.x[:: max(len(self.x) // _MEASURED, 1)][:_MEASURED])
        module.simulation = None
        module.normalize(few)
        module.simulation = simulation
        if simulation is not None:
            module.normalize(few, module.statistics())

    def _settling(self) -> Iterator[Tensor]:
        """Batches in an order of their own, as they are: augmented ones have statistics that no image has."""
        import torch  # noqa: PLC0415

        generator = torch.Generator().manual_seed(self.options.seed)
        order = torch.randperm(len(self.x), generator=generator).numpy()
        size = self.options.batch_size
        for start in range(0, min(len(order), _SETTLING * size), size):
            yield self._batch(np.sort(order[start : start + size]), None)

    def _batch(self, chosen: Array, generator: torch.Generator | None) -> Tensor:
        import torch  # noqa: PLC0415

        x = torch.from_numpy(self.x[chosen])
        if self.augment is not None and generator is not None:
            x = self.augment(x, generator)
        return x.to(self.device)

    def _epoch(self, optimizer: torch.optim.Optimizer, number: int, started: float, resumed: int) -> Epoch:
        """One pass; everything random in it depends on the seed and the epoch's number only."""
        import torch  # noqa: PLC0415

        self.module.train()
        if self.module.simulation is not None:
            self.module.simulation.begin_epoch(number, self.options.epochs)
        seed = self.options.seed * 1_000_003 + number
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.x), generator=generator).numpy()
        tally = _Tally()
        for step in range(self.steps):
            done = number * self.steps + step
            for group in optimizer.param_groups:
                group["lr"] = self._learning_rate(done) * group["size"]
            chosen = order[step * self.options.batch_size : (step + 1) * self.options.batch_size]
            self._step(optimizer, np.sort(chosen), generator, tally)
            self._tell(tally, number, step, started, done - resumed * self.steps + 1)
        return tally.epoch(classes=self.classes)

    def _learning_rate(self, step: int) -> float:
        if self.options.schedule == "constant":
            return self.options.learning_rate
        total = max(self.options.epochs * self.steps, 1)
        return self.options.learning_rate * 0.5 * (1.0 + math.cos(math.pi * step / total))

    def _step(
        self, optimizer: torch.optim.Optimizer, chosen: Array, generator: torch.Generator, tally: _Tally
    ) -> None:
        import torch  # noqa: PLC0415

        x, y = self._batch(chosen, generator), torch.from_numpy(self.y[chosen]).to(self.device)
        optimizer.zero_grad(set_to_none=True)
        name, factor = self.logits
        with self._precision():
            seen = self.module.values(x)
            answer = None if self.teacher is None else self.teacher.answer(x)
        z = (seen[name] * factor).reshape(len(x), -1).float()
        loss = self.loss(z, y)
        if self.teacher is not None and answer is not None:
            loss = self.teacher.joined(loss, z, seen, answer)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DeployError(
                f"the loss became {value}", where="training", hint="lower the learning rate, or set clip_norm"
            )
        penalty = None if self.module.simulation is None else self.module.simulation.penalty()
        if penalty is not None:
            loss = loss + penalty
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch leaves it without types
        if self.options.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.options.clip_norm)
        optimizer.step()
        tally.loss += value * len(x)
        tally.samples += len(x)
        if self.classes:
            tally.correct += int((_predicted(z.detach()) == y).sum())

    def _precision(self) -> torch.autocast:
        import torch  # noqa: PLC0415

        enabled = self.options.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def _tell(self, tally: _Tally, number: int, step: int, started: float, done: int) -> None:
        if self.progress is None:
            return
        so_far = tally.epoch(classes=self.classes)
        left = (self.options.epochs - number) * self.steps - step - 1
        seconds = (time.monotonic() - started) / done * left
        self.progress(
            TrainProgress(
                number + 1, self.options.epochs, step + 1, self.steps, so_far.loss, so_far.accuracy, seconds
            )
        )


def _predicted(z: Tensor) -> Tensor:
    return (z[:, 0] > 0.0).long() if z.shape[1] == 1 else z.argmax(dim=1)


def check_data(module: Trainable, x: Array, y: Array) -> None:
    """Raises DeployError where samples and labels do not fit the model."""
    graph = module.graph
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise DeployError("training takes a model with one input and one output", where=graph.source)
    shape = graph.value(graph.inputs[0]).shape
    if x.shape[1:] != shape or len(x) == 0 or len(x) != len(y):
        raise DeployError(
            f"x has the shape {x.shape} and y {y.shape}; the model takes [samples, *{list(shape)}]",
            where="training data",
        )


def _device(name: str) -> torch.device:
    import torch  # noqa: PLC0415

    if name != "auto":
        return torch.device(name)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    return torch.device("cuda")
