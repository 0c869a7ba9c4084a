"""--autotune: every candidate kernel of every layer, built and run on the emulated core.

Variant k of the model takes candidate k of each layer, so as many builds as the layer with the most
candidates has measure all of them, each with the data and the flash that it will have.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinydeploy.backends.c.coded import PACKED
from tinydeploy.backends.c.layer import Layer
from tinydeploy.backends.c.project import exported_graph
from tinydeploy.emulate.toolchain import find_toolchain
from tinydeploy.errors import DeployError
from tinydeploy.ir.types import Array
from tinydeploy.ir.verify import site_of
from tinydeploy.measure import Job, Measurement, Progress, measure, silent
from tinydeploy.plan.measured import KernelCost, MeasuredCosts, layer_key
from tinydeploy.plan.select import layer_options

_POINTER_BYTES = 4


def autotuned(job: Job, target: str, sample: tuple[Array, ...], *, progress: Progress = silent) -> Job:
    """The same job with measured costs, by which its kernels are then chosen; deterministic.

    Args:
        target: name of the core or board, for the manifest.
        sample: one array per graph input with one sample each.

    Raises:
        DeployError: the target has no model of cycles, a build failed, or two kernels do not agree.
        MissingExtraError: no compiler or emulator is installed.
    """
    if job.core.architecture == "host" or job.core.timing is None:
        raise DeployError(
            f"there is no model of the cycles of {job.core.name}, so kernels cannot be measured on it",
            where="--autotune",
            hint="name another core or board with --target, or leave --autotune out",
        )
    compiler = find_toolchain(job.core, job.compiler).version
    options = layer_options(exported_graph(job.graph), has_dsp=job.options.dsp, narrow=job.options.narrow)
    count = max((len(found) for found in options.values()), default=1)
    by_kernel: dict[tuple[str, str, int], KernelCost] = {}
    first: tuple[Array, ...] | None = None
    for variant in range(count):
        progress("measuring kernels", variant, count)
        # Coded indices do not change what kernels take, and not every variant has kernels that read them.
        plain = replace(job.options, variant=variant, costs=None, codebooks=PACKED)
        tried = replace(job, options=plain)
        m = measure(tried, sample, prove=False)
        first = m.outputs if first is None else first
        _require_agreement(m, first)
        by_kernel.update(_costs(m))
    progress("measuring kernels", count, count)
    costs = MeasuredCosts(compiler, target, by_kernel)
    return replace(job, options=replace(job.options, costs=costs))


def _require_agreement(m: Measurement, first: tuple[Array, ...]) -> None:
    """Kernels are chosen by cost alone because they give the same outputs; here that is seen to be so."""
    if m.faults or any(not np.array_equal(a, b) for a, b in zip(m.outputs, first, strict=True)):
        what = "; ".join(m.faults) or "the outputs depend on the kernels"
        raise DeployError(what, where="--autotune", hint="leave --autotune out, and report this")


def _costs(m: Measurement) -> dict[tuple[str, str, int], KernelCost]:
    if m.latency.parts is None:
        raise DeployError("; ".join(m.latency.notes), where="--autotune", hint="leave --autotune out")
    model = m.project.model
    found = {}
    for layer in model.layers:
        key = layer_key(layer.node, site_of(model.graph, layer.node))
        found[key, layer.choice.name, layer.choice.block] = _cost(m, layer)
    return found


def _cost(m: Measurement, layer: Layer) -> KernelCost:
    cycles = sum(c.total for symbol, c in m.latency.per_function.items() if layer.owns(symbol))
    code = sum(size for symbol, size in m.code_bytes.items() if layer.owns(symbol))
    body = m.project.model.body_of(layer)
    if body is not None:
        # A layer more that shares it adds nothing to it.
        code += m.code_bytes.get(body.name, 0) // len(body.layers)
    # Each array is reached through a pointer, which lies beside it.
    return KernelCost(cycles, code + layer.weights_bytes + _POINTER_BYTES * len(layer.code.constants))
