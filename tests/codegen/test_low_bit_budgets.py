"""What fewer than eight bits cost and save, counted on the emulated core and in the linked ELF."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from form_cases import formed
from graphs import single_op_graph
from shared import model_path, needs_data
from sweeps import thinned
from test_kernels_forms import needs_emulator

from tinydeploy import api
from tinydeploy.backends.c.project import ExportOptions
from tinydeploy.ir.forms import Codebook, Form, Packed
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array, constant
from tinydeploy.ir.verify import verify as verify_graph
from tinydeploy.measure import Job, Measurement, measure
from tinydeploy.plan.forms import Linear
from tinydeploy.targets import load_target
from tinydeploy.verification import verify

BINARY_MACS = 16 * 16 * 64 * 64 * 9
INSTRUCTIONS_PER_BINARY_MAC = 0.33
FOUR_BIT_INSTRUCTIONS = 1.15
FLASH = {"4 bits": 0.75, "codebook of 16": 0.75, "2 bits": 0.60}


@needs_emulator
@pytest.mark.parametrize("name", thinned(["binary", "plain binary"], 2))
def test_a_binary_convolution_takes_a_third_of_an_instruction_a_product(name: str) -> None:
    """3x3, 64 to 64 channels on 16x16; requantization and store are in it, and so is packing the input."""
    given = {"shape": (1, 16, 16, 64), "kernel": (3, 3), "padding": "same", "outputs": 64}
    graph = formed(single_op_graph("CONV_2D", 1, **given), name, 1, signs=True)
    core = load_target("cortex-m4").core
    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), (1, 1, 16, 16, 64))
    job = Job(graph, ExportOptions("net", "cortex-m4", "latency", "0" * 64, dsp=True), core)
    result = verify(job, "cortex-m4", (signs,), None)
    assert result.ok
    assert result.measurement.instructions is not None
    assert result.measurement.instructions <= INSTRUCTIONS_PER_BINARY_MAC * BINARY_MACS


def few_bits(name: str, weights: Array) -> tuple[Array, Form, float]:
    """int8 weights as integers of a form, and by how much their scale grows."""
    if name == "codebook of 16":
        table = np.unique(np.rint(np.quantile(weights, np.linspace(0, 1, 16))).astype(np.int64))
        nearest = np.abs(weights[..., np.newaxis] - table).argmin(axis=-1)
        return table[nearest].astype(np.int8), Codebook(4, tuple(table.tolist())), 1.0
    form = Packed(int(name[0]))
    top = form.limits[1]
    # Two bits that reached the largest weight would leave whole channels of zeros.
    step = 127 / top if top > 1 else 2 * float(np.abs(weights.astype(np.float64)).mean())
    return np.rint(weights / step).clip(-top, top).astype(np.int8), form, step


def lowered(graph: Graph, name: str) -> Graph:
    """The graph with the weights of every layer in a form."""
    values = dict(graph.values)
    for node in graph.nodes:
        if isinstance(node.op, Linear):
            weights = values[str(node.inputs[1])]
            data, form, step = few_bits(name, weights.array)
            quantization = replace(weights.quant, scales=tuple(s * step for s in weights.quant.scales))
            values[weights.name] = constant(weights.name, data, quantization, form)
    result = replace(graph, values=values)
    verify_graph(result)
    return result


@cache
def kws(name: str) -> Measurement:
    graph = api.load_model(model_path("kws")).graph
    graph = graph if name == "int8" else lowered(graph, name)
    core = load_target("cortex-m4").core
    job = Job(graph, ExportOptions("net", "cortex-m4", "balanced", "0" * 64, dsp=True), core)
    return measure(job, (np.zeros((1, *graph.value(graph.inputs[0]).shape), np.int8),), prove=False)


@needs_data
@needs_emulator
def test_four_bits_run_nearly_as_fast_as_eight_on_kws() -> None:
    four, eight = kws("4 bits").instructions, kws("int8").instructions
    assert four is not None and eight is not None
    assert four <= FOUR_BIT_INSTRUCTIONS * eight


@needs_data
@needs_emulator
@pytest.mark.parametrize("name", thinned(FLASH, 3))
def test_the_weights_of_kws_shrink(name: str) -> None:
    few, whole = kws(name).sizes, kws("int8").sizes
    assert few is not None and whole is not None
    assert few.flash_weights <= FLASH[name] * whole.flash_weights
