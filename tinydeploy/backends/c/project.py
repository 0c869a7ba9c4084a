"""Puts the files of a C project together: sources, kernels, Makefile, example and manifest."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from importlib import resources

from tinydeploy import __version__
from tinydeploy.backends.c import sources
from tinydeploy.backends.c.coded import HEADER, PACKED
from tinydeploy.backends.c.layer import Layer
from tinydeploy.backends.c.model import Model, Port, lower_model
from tinydeploy.backends.c.syntax import check_name
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.show import form_text
from tinydeploy.passes.dead_channels import remove_dead_channels
from tinydeploy.passes.outputs import copy_outputs
from tinydeploy.plan import Kernels, Plan, plan_memory
from tinydeploy.plan.coding import STACK_BYTES
from tinydeploy.plan.measured import MeasuredCosts
from tinydeploy.plan.select import GOALS, select_kernels, variant_kernels

KERNEL_COMMON = "td_kernels.h"


@dataclass(frozen=True)
class ExportOptions:
    """What a project is made for; all of it stands in every file.

    Attributes:
        name: C identifier that prefixes everything.
        target: name of the core or board.
        optimize: latency, balanced, flash or ram.
        model_sha256: of the model file.
        dsp: the core has the DSP extension; the code for it runs on any other as well, only slower.
        kernels: the goal by which kernels are chosen, where a limit forces another one than `optimize`.
        narrow: the core has no DSP extension, and kernels for fast 32-bit multiplications alone pay on it.
        costs: what the kernels took on the core, where that counts in place of the stored costs.
        codebooks: how flash holds codebook indices: packed, huffman, or auto.
        ram: with codebooks "auto", bytes of RAM that are there; None for any.
        variant: every layer takes its candidate of this number, so that each can be measured.
    """

    name: str
    target: str
    optimize: str
    model_sha256: str
    dsp: bool = False
    kernels: str = ""
    narrow: bool = False
    costs: MeasuredCosts | None = None
    variant: int | None = None
    codebooks: str = PACKED
    ram: int | None = None

    @property
    def kernel_goal(self) -> str:
        return self.kernels or self.optimize


@dataclass(frozen=True)
class Project:
    """A C project in memory.

    Attributes:
        files: text by file name.
        model: what was written.
        plan: the memory plan.
    """

    files: dict[str, str]
    model: Model
    plan: Plan


def make_project(graph: Graph, options: ExportOptions) -> Project:
    """Writes a graph as C; equal arguments give equal bytes.

    Raises:
        DeployError: the name is no C identifier, the graph is float, or an op has no kernel.
    """
    model = lower_project(graph, options)
    n = options.name
    files = {
        f"{n}.h": sources.header(model, _banner(options, "public API")),
        f"{n}.c": sources.source(model, _banner(options, "layers")),
        f"{n}_weights.h": sources.weights_header(model, _banner(options, "constants")),
        f"{n}_weights.c": sources.weights_source(model, _banner(options, "constants")),
        "example_main.c": _example(model, _banner(options, "example")),
        "Makefile": _makefile(model, options),
    }
    files.update({name: kernel_text(name) for name in kernel_files(model)})
    files["manifest.json"] = _manifest(model, options, files)
    return Project(files, model, model.plan)


def lower_project(graph: Graph, options: ExportOptions) -> Model:
    """What `make_project` writes, with its kernels, plan and constants, before it becomes text.

    Raises:
        DeployError: as `make_project` does.
    """
    check_name(options.name)
    graph = exported_graph(graph)
    kernels = _kernels(graph, options)
    any_shape = GOALS[options.kernel_goal].any_shape
    plan = plan_memory(graph, kernels)
    left = None if options.ram is None else options.ram - plan.arena_bytes - STACK_BYTES
    return lower_model(
        graph, plan, kernels, options.name, any_shape=any_shape, codebooks=options.codebooks, ram=left
    )


def exported_graph(graph: Graph) -> Graph:
    """The graph whose layers are written: without dead channels, and with a place for each output."""
    return remove_dead_channels(copy_outputs(graph))


def exported_arena(graph: Graph, options: ExportOptions) -> int:
    """Bytes of the arena of a graph once it is exported."""
    graph = exported_graph(graph)
    return plan_memory(graph, _kernels(graph, options)).arena_bytes


def _kernels(graph: Graph, options: ExportOptions) -> Kernels:
    if options.variant is not None:
        return variant_kernels(graph, options.variant, has_dsp=options.dsp, narrow=options.narrow)
    goal = GOALS[options.kernel_goal]
    return select_kernels(graph, has_dsp=options.dsp, goal=goal, narrow=options.narrow, costs=options.costs)


def kernel_files(model: Model) -> list[str]:
    """The kernel files that a model needs: those of its layers, and what they include."""
    found: set[str] = set()
    waiting = [
        KERNEL_COMMON,
        *(layer.code.header for layer in model.layers),
        *([HEADER] if model.coding else []),
    ]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += re.findall(r'^#include "(td_\w+\.h)"', kernel_text(name), re.MULTILINE)
    return sorted(found)


def kernel_text(name: str) -> str:
    """The text of a kernel file of this package."""
    return (resources.files(__package__) / "kernels" / name).read_text(encoding="ascii")


def _banner(options: ExportOptions, what: str) -> str:
    return (
        f"/* {options.name}: {what}. Generated by tinydeploy {__version__}; do not edit.\n"
        f" * model sha256 {options.model_sha256}\n"
        f" * target {options.target}, optimize {options.optimize}{_more(options)} */"
    )


def _more(options: ExportOptions) -> str:
    """The options that are not as they are by default."""
    tuned = "" if options.costs is None else ", autotuned"
    return tuned if options.codebooks == PACKED else f"{tuned}, codebooks {options.codebooks}"


def _makefile(model: Model, options: ExportOptions) -> str:
    n = model.name
    return f"""# {n}. Generated by tinydeploy {__version__}; model sha256 {options.model_sha256}
# target {options.target}, optimize {options.optimize}{_more(options)}
# `make` builds the example for this machine. For a board: make lib{n}.a CC=... AR=... CFLAGS=...
CC ?= cc
AR ?= ar
CFLAGS ?= -O2
override CFLAGS += -std=c99 -Wall -Wextra

OBJECTS = {n}.o {n}_weights.o

example: example_main.o lib{n}.a
\t$(CC) $(CFLAGS) $(LDFLAGS) -o $@ example_main.o lib{n}.a

lib{n}.a: $(OBJECTS)
\t$(AR) rcs $@ $(OBJECTS)

%.o: %.c $(wildcard *.h)
\t$(CC) $(CFLAGS) -c -o $@ $<

clean:
\trm -f example *.o lib{n}.a

.PHONY: clean
"""


def _example(model: Model, banner: str) -> str:
    n, u = model.name, model.upper
    fill = [
        f"    for (int i = 0; i < {u}_{p.label.upper()}_SIZE; i++) {{\n"
        f"        {n}_{p.label}()[i] = {u}_{p.label.upper()}_ZERO_POINT; /* the real number 0 */\n    }}"
        for p in model.inputs
    ]
    show = [
        f"    for (int i = 0; i < {u}_{p.label.upper()}_SIZE; i++) {{\n"
        f'        printf("%d\\n", {n}_{p.label}()[i]);\n    }}'
        for p in model.outputs
    ]
    if model.single:
        run = f"    if ({n}_run({n}_input(), {n}_output()) != {u}_OK) {{\n        return 1;\n    }}"
    else:
        ports = ", ".join(f".{p.label} = {n}_{p.label}()" for p in (*model.inputs, *model.outputs))
        run = f"    const struct {n}_io io = {{ {ports} }};\n"
        run += f"    if ({n}_run(&io) != {u}_OK) {{\n        return 1;\n    }}"
    body = "\n".join([*fill, run, *show])
    return f"""{banner}
#include <stdio.h>

#include "{n}.h"

int main(void)
{{
{body}
    return 0;
}}
"""


def _manifest(model: Model, options: ExportOptions, files: dict[str, str]) -> str:
    document = {
        "tool": "tinydeploy",
        "version": __version__,
        "name": model.name,
        "model_sha256": options.model_sha256,
        "target": options.target,
        "optimize": options.optimize,
        "kernels_chosen_for": options.kernel_goal,
        "kernels_measured": None
        if options.costs is None
        else {"target": options.costs.target, "compiler": options.costs.compiler},
        "arena_bytes": model.plan.arena_bytes,
        "arena_lower_bound_bytes": model.plan.lower_bound_bytes,
        "weights_bytes": sum(c.bytes for layer in model.layers for c in layer.code.constants),
        **({} if options.codebooks == PACKED else _coding_document(model, options)),
        "macs": sum(layer.macs for layer in model.layers),
        "inputs": [_port_document(p) for p in model.inputs],
        "outputs": [_port_document(p) for p in model.outputs],
        "layers": [
            {
                "function": layer.function,
                "op": layer.node.op.kind,
                "name": layer.node.name,
                "kernel": layer.code.kernel,
                "choice": layer.choice.name,
                "form": _form(model, layer),
                "why": layer.choice.why,
                "cycles_estimated": layer.choice.cycles,
                "measured": None if layer.choice.measured is None else asdict(layer.choice.measured),
                "scratch_bytes": layer.choice.scratch_bytes,
                "macs": layer.macs,
                "weights_bytes": layer.weights_bytes,
                **({"decoded_bytes": layer.decoded_bytes} if layer.decoded_bytes else {}),
            }
            for layer in model.layers
        ],
        "memory": [
            {
                "tensors": list(p.buffer.members) or [p.buffer.name],
                "offset": p.offset,
                "bytes": p.buffer.bytes,
                "first_node": p.buffer.first,
                "last_node": p.buffer.last,
            }
            for p in model.plan.placements
        ],
        "files": sorted([*files, "manifest.json"]),
    }
    return json.dumps(document, indent=2) + "\n"


def _coding_document(model: Model, options: ExportOptions) -> dict[str, object]:
    coding = None if model.coding is None else model.coding.to_json()
    return {"codebooks": options.codebooks, "huffman": coding}


def _form(model: Model, layer: Layer) -> str | None:
    """How the weights of a layer were given; None where they are whole integers, or there are none."""
    forms = (model.graph.value(n).form for n in layer.node.inputs[1:] if n is not None)
    return next((form_text(form) for form in forms if form is not None), None)


def _port_document(port: Port) -> dict[str, object]:
    value, layout = port.value, port.border.layout
    return {
        "name": value.name,
        "dtype": value.dtype.value,
        "shape": list(value.shape),
        "source_shape": list(value.shape if layout is None else layout.shape),
        "scale": value.quant.scale,
        "zero_point": value.quant.zero_point,
        "float_in_source_model": port.border.is_float,
    }
