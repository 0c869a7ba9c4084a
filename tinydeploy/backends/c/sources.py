"""The C files of a model: header, layers, weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tinydeploy.backends.c.bodies import Body
from tinydeploy.backends.c.coded import HEADER, decoded_arrays
from tinydeploy.backends.c.layer import Constant, Layer
from tinydeploy.backends.c.model import Model, Port
from tinydeploy.backends.c.syntax import WIDTH, array, comment, wrapped
from tinydeploy.ir.show import attributes, layout_text, shape_text
from tinydeploy.ir.types import Array

_CTYPES = {"int8": "int8_t", "uint8": "uint8_t"}


def header(model: Model, banner: str) -> str:
    """NAME.h: the public API."""
    u = model.upper
    lines = [banner, f"#ifndef {u}_H", f"#define {u}_H", "", "#include <stdint.h>", ""]
    lines += ["#ifdef __cplusplus", 'extern "C" {', "#endif", ""]
    lines += [
        f"#define {u}_OK 0",
        f"#define {u}_ERR_NULL (-1) /* a pointer is NULL */",
        "",
        "/* Bytes of the one static arena, inputs and outputs included. */",
        f"#define {u}_ARENA_SIZE {model.plan.arena_bytes}",
        "",
        "/* Sizes count elements. Images are NHWC: row by row, the channels of a pixel side by side.",
        " * real = SCALE * (element - ZERO_POINT); QUANTIZE rounds half away from zero and saturates, and",
        " * names its argument more than once. */",
    ]
    for port in (*model.inputs, *model.outputs):
        lines += [*_port_macros(u, port), ""]
    lines += [*_api(model), "", "#ifdef __cplusplus", "}", "#endif", "", "#endif", ""]
    return "\n".join(lines)


def _port_macros(upper: str, port: Port) -> Iterator[str]:
    prefix = f"{upper}_{port.label.upper()}"
    value = port.value
    quant = value.quant
    layout = "NHWC" if len(value.shape) == 4 else "row-major"
    low, high = value.dtype.limits
    if port.border.layout is not None:
        source = layout_text(port.border.layout)
        yield f"/* {source} in the source model; {shape_text(value.shape)} {layout} here. */"
    if port.border.is_float:
        yield f"/* The source model takes real numbers here: use {prefix}_QUANTIZE and _DEQUANTIZE. */"
    yield f"#define {prefix}_SIZE {value.elements}"
    yield f"#define {prefix}_SHAPE {{ {', '.join(map(str, value.shape))} }}"
    yield f'#define {prefix}_LAYOUT "{layout}"'
    yield f"#define {prefix}_SCALE {_float_literal(quant.scale)}"
    yield f"#define {prefix}_ZERO_POINT ({quant.zero_point})"
    # Macros, so that a model that never sees a real number holds no floating-point instruction.
    yield f"#define {prefix}_UNITS_(real) ((float)(real) / {prefix}_SCALE)"
    yield f"#define {prefix}_QUANTIZE(real) (({port.ctype})( \\"
    yield f"    {prefix}_UNITS_(real) <= {low - quant.zero_point}.0f ? {low} : \\"
    yield f"    {prefix}_UNITS_(real) >= {high - quant.zero_point}.0f ? {high} : \\"
    yield f"    (int)({prefix}_UNITS_(real) + ((real) < 0 ? -0.5f : 0.5f)) + {prefix}_ZERO_POINT))"
    yield f"#define {prefix}_DEQUANTIZE(element) ({prefix}_SCALE * (float)((element) - {prefix}_ZERO_POINT))"


def _float_literal(value: float) -> str:
    text = f"{value:.9g}"
    return f"{text}f" if any(c in text for c in ".e") else f"{text}.0f"


def _api(model: Model) -> Iterator[str]:
    n = model.name
    yield "/* Places in the arena. A run may overwrite the input's place: fill it before every run. */"
    for port in (*model.inputs, *model.outputs):
        yield f"{port.ctype} *{n}_{port.label}(void);"
    yield ""
    if model.coding is not None:
        yield f"/* Decodes weights into {model.decoded_bytes} B of RAM. {n}_run does so at its first call;"
        yield " * call this at start-up where that call may not take longer than others. */"
        yield f"void {n}_init(void);"
        yield ""
    if model.single:
        x, y = model.inputs[0], model.outputs[0]
        yield f"/* Runs the model once. Any alignment; {n}_input() and {n}_output() may be passed and are not"
        yield f" * copied; other buffers must not overlap. Returns {model.upper}_OK or a negative error. */"
        yield f"int {n}_run(const {x.ctype} *input, {y.ctype} *output);"
        return
    yield f"struct {n}_io {{"
    for port in model.inputs:
        yield f"    const {port.ctype} *{port.label};"
    for port in model.outputs:
        yield f"    {port.ctype} *{port.label};"
    yield "};"
    yield ""
    yield f"/* Runs the model once. Any alignment; {n}_input_0() and so on may be used and are not copied;"
    yield f" * other buffers must not overlap. Returns {model.upper}_OK or a negative error. */"
    yield f"int {n}_run(const struct {n}_io *io);"


def source(model: Model, banner: str) -> str:
    """NAME.c: one function a layer, and the run."""
    n = model.name
    lines = [banner, f'#include "{n}.h"', ""]
    headers = sorted({layer.code.header for layer in model.layers} | ({HEADER} if model.coding else set()))
    lines += [f'#include "{h}"' for h in headers] or ['#include "td_kernels.h"']
    lines += [f'#include "{n}_weights.h"', ""]
    lines += [
        "/* The union gives the arena the alignment of a word. */",
        f"static union {{\n    int32_t word;\n    int8_t bytes[{model.upper}_ARENA_SIZE];\n}} {n}_arena;",
        "",
    ]
    if model.coding is not None:
        lines += [
            wrapped(line, "") if len(line) > WIDTH else line for line in decoded_arrays(n, model.layers)
        ]
    for layer in model.layers:
        lines += [*_layer(model, layer), ""]
    for port in (*model.inputs, *model.outputs):
        offset = model.plan.offset_of(port.value.name)
        expression = f"{n}_arena.bytes" + (f" + {offset}" if offset else "")
        cast = f"({port.ctype} *)({expression})" if port.ctype == "uint8_t" else expression
        lines += [f"{port.ctype} *{n}_{port.label}(void)", "{", f"    return {cast};", "}", ""]
    return "\n".join([*lines, *_run(model)])


def _layer(model: Model, layer: Layer) -> Iterator[str]:
    body = model.body_of(layer)
    if body is not None and layer.index == body.layers[0]:
        yield from _body(layer, body)
        yield ""
    ins = ", ".join(shape_text(v.shape) for _, v in layer.inputs)
    details = "".join(f", {k} {v}" for k, v in attributes(layer.node.op).items())
    macs = f"; {layer.macs:,} MACs" if layer.macs else ""
    yield f"/* {layer.index}: {layer.node.op.kind} {_short(layer.node.name)}"
    yield f" * {ins or 'constants'} -> {shape_text(layer.output.shape)}{comment(details)}{macs} */"
    yield _signature(layer.function, _activations(layer, scratch=layer.scratch))
    yield "{"
    constants = {c.role: layer.expression(model.name, c) for c in layer.code.constants}
    if body is None or body.any_shape:
        yield from _shapes(layer)
    if body is None:
        names = {**constants, "scratch": "scratch" if layer.scratch else "NULL"}
        for statement in layer.code.calls:
            yield wrapped(statement.format(**names), "    ")
    else:
        shapes = [f"&{shape.name}" for shape in layer.code.shapes] if body.any_shape else []
        activations = [f"x{index}" for index, _ in layer.inputs]
        last = ["scratch" if layer.scratch else "NULL"] if body.scratch else []
        arguments = [*shapes, *constants.values(), *activations, "y", *last]
        yield wrapped(f"{body.name}({', '.join(arguments)});", "    ")
    yield "}"


def _shapes(layer: Layer) -> Iterator[str]:
    for shape in layer.code.shapes:
        yield f"    static const {shape.ctype} {shape.name} = {{"
        yield from shape.value.lines("        ")
        yield "    };"


def _body(layer: Layer, body: Body) -> Iterator[str]:
    """The function that several layers share, after the pattern of the first."""
    numbers = ", ".join(map(str, body.layers[:-1])) + f" and {body.layers[-1]}"
    what = "Any shape" if body.any_shape else "One shape"
    yield f"/* {what}: {layer.node.op.kind} of the layers {numbers}. */"
    shapes = [f"const {s.ctype} *{s.name}" for s in layer.code.shapes] if body.any_shape else []
    constants = [f"const {c.ctype} *{c.role}" for c in layer.code.constants]
    yield _signature(body.name, [*shapes, *constants, *_activations(layer, scratch=body.scratch)])
    yield "{"
    if not body.any_shape:
        yield from _shapes(layer)
    names = {c.role: c.role for c in layer.code.constants}
    for statement in layer.code.calls:
        text = statement.format(**names, scratch="scratch" if body.scratch else "NULL")
        for shape in layer.code.shapes if body.any_shape else ():
            text = re.sub(rf"&{shape.name}\b", shape.name, text)
        yield wrapped(text, "    ")
    yield "}"


def _signature(name: str, parameters: Iterable[str]) -> str:
    return wrapped(f"static TD_NOINLINE void {name}({', '.join(parameters)})", "")


def _short(name: str) -> str:
    """The first of the names that a converter joined when it fused layers; the manifest has them all."""
    first, *rest = name.split(";")
    return comment(first) + (f" (and {len(rest)} fused into it)" if rest else "")


def _activations(layer: Layer, *, scratch: bool) -> Iterator[str]:
    for index, value in layer.inputs:
        yield f"const {_CTYPES[value.dtype.value]} *x{index}"
    yield f"{_CTYPES[layer.output.dtype.value]} *y"
    if scratch:
        yield "int8_t *scratch"


def _run(model: Model) -> Iterator[str]:
    n = model.name
    if model.single:
        pointers = [p.label for p in (*model.inputs, *model.outputs)]
        yield f"int {n}_run(const {model.inputs[0].ctype} *input, {model.outputs[0].ctype} *output)"
    else:
        pointers = ["io", *(f"io->{p.label}" for p in (*model.inputs, *model.outputs))]
        yield f"int {n}_run(const struct {n}_io *io)"
    calls = [wrapped(_call(model, layer), "    ") for layer in model.layers]
    yield "{"
    if any("arena +" in c for c in calls):
        yield f"    int8_t *const arena = {n}_arena.bytes;"
        yield ""
    yield wrapped(f"if ({' || '.join(f'{p} == NULL' for p in pointers)}) {{", "    ")
    yield f"        return {model.upper}_ERR_NULL;"
    yield "    }"
    if model.coding is not None:
        yield from (f"    if (!{n}_ready) {{", f"        {n}_init();", "    }")
    yield from calls
    yield f"    return {model.upper}_OK;"
    yield "}"
    yield ""


def _call(model: Model, layer: Layer) -> str:
    arguments = [_argument(model, v.name, v.dtype.value) for _, v in layer.inputs]
    arguments.append(_argument(model, layer.output.name, layer.output.dtype.value))
    scratch = model.plan.scratch_offset(layer.node.name)
    if scratch is not None:
        arguments.append(f"arena + {scratch}")
    return f"{layer.function}({', '.join(arguments)});"


def _argument(model: Model, value: str, dtype: str) -> str:
    place = model.place(value)
    return f"(uint8_t *)({place})" if dtype == "uint8" and place.startswith("arena") else place


def weights_header(model: Model, banner: str) -> str:
    """NAME_weights.h: the structure that leads to every constant."""
    n = model.name
    lines = [banner, f"#ifndef {model.upper}_WEIGHTS_H", f"#define {model.upper}_WEIGHTS_H", ""]
    lines += ["#include <stdint.h>", "", "/* The constants of every layer, by layer number. */"]
    lines += [f"struct {n}_weights {{"]
    members = [
        f"    const {_flash(c)[0]} *{layer.member(c)};"
        for layer in model.layers
        for c in layer.code.constants
    ]
    lines += members or ["    const int8_t *none;"]
    lines += ["};", "", f"extern const struct {n}_weights {n}_weights;", "", "#endif", ""]
    return "\n".join(lines)


def weights_source(model: Model, banner: str) -> str:
    """NAME_weights.c: the arrays."""
    n = model.name
    lines = [banner, f'#include "{n}_weights.h"', ""]
    entries = []
    for layer in model.layers:
        for c in layer.code.constants:
            member = layer.member(c)
            lines.append(array(_flash(c)[0], f"{n}_{member}", _flash(c)[1]))
            entries.append(f"    .{member} = {n}_{member},")
    lines += [f"const struct {n}_weights {n}_weights = {{"]
    lines += entries or ["    .none = 0,"]
    lines += ["};", ""]
    return "\n".join(lines)


def _flash(constant: Constant) -> tuple[str, Array]:
    """The type and the numbers of a constant in flash."""
    return (constant.ctype, constant.data) if constant.coded is None else ("uint8_t", constant.coded)
