"""The contract of the generated files: names, macros, includes, linkage, determinism, comments, manifest."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graphs import every_op_graph, random_inputs, single_op_graph
from kernel_cases import tuned, with_input_scale
from native import WARNINGS, needs_compiler, project_of, toolchain, write
from wiring_cases import WIRING

from tinydeploy.backends.c.project import ExportOptions, Project, make_project
from tinydeploy.backends.c.syntax import check_name, name_from
from tinydeploy.engine import run
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import DType
from tinydeploy.ops.quantize import dequantize_array, quantize_array

SEVERAL = "several inputs and outputs"
MACRO = r"#define \w+_((UNITS_|QUANTIZE|DEQUANTIZE)\(|SCALE )"
CPP = shutil.which("g++") or shutil.which("clang++")


def graphs() -> dict[str, Graph]:
    return {
        "one": single_op_graph("CONV_2D", shape=(2, 5, 4, 3)),
        "all": every_op_graph(),
        "some": WIRING[SEVERAL](),
        "bytes": WIRING["uint8 in and out"](),
    }


def model_sources(project: Project) -> dict[str, str]:
    """Every file of a model but the example, the Makefile and the manifest."""
    return {n: t for n, t in project.files.items() if n.endswith((".c", ".h")) and n != "example_main.c"}


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)


def run_c(folder: Path, main: str, *names: str, stdin: bytes = b"") -> bytes:
    """Compiles `main` with the sources of the named models and gives what it prints."""
    (folder / "main.c").write_text(main, encoding="ascii")
    sources = [f for n in names for f in (f"{n}.c", f"{n}_weights.c")]
    command = [*toolchain().command, "-std=c99", "-O1", "-o", "main", "main.c", *sources]
    subprocess.run(command, cwd=folder, check=True)
    return subprocess.run([folder / "main"], input=stdin, capture_output=True, check=True).stdout


def test_the_files_of_a_project() -> None:
    project = project_of(every_op_graph(), "kws")
    kernels = {n for n in project.files if n.startswith("td_kernels")}
    own = {"kws.h", "kws.c", "kws_weights.h", "kws_weights.c", "Makefile", "example_main.c", "manifest.json"}
    assert set(project.files) == own | kernels
    assert "td_kernels.h" in kernels
    assert all(text.isascii() and text.endswith("\n") for text in project.files.values())


@pytest.mark.parametrize("case", graphs())
def test_only_two_standard_headers(case: str) -> None:
    project = project_of(graphs()[case])
    for name, text in model_sources(project).items():
        assert set(re.findall(r"#\s*include\s*<(.*?)>", text)) <= {"stdint.h", "stddef.h"}, name
        assert set(re.findall(r'#\s*include\s*"(.*?)"', text)) <= set(project.files), name


@pytest.mark.parametrize("case", graphs())
def test_no_heap_no_float_no_jump_no_variable_array(case: str) -> None:
    project = project_of(graphs()[case])
    for name, text in model_sources(project).items():
        # The macros of the public header are the caller's: no function of the model uses them.
        lines = without_comments(text).replace("\\\n", "").splitlines()
        code = "\n".join(v for v in lines if not re.match(MACRO, v))
        found = re.findall(r"\b(?:float|double|malloc|calloc|free|alloca|goto|setjmp)\b|\d\.\d", code)
        assert not found, name
        sizes = re.findall(r"^\s*(?:\w+\s+)+\*?\w+\[(.*?)\]\s*[;=]", code, flags=re.M)
        assert not any(re.search("[a-z]", size) for size in sizes), (name, sizes)


@pytest.mark.parametrize("case", graphs())
def test_nothing_is_recursive(case: str) -> None:
    defined: set[str] = set()
    files = model_sources(project_of(graphs()[case]))
    for name in sorted(files, key=lambda n: (n != "td_kernels.h", not n.endswith(".h"), n)):
        for function, body in re.findall(
            r"^[\w ]*?\*?(\w+)\([^;{}]*\)\n\{\n(.*?)^\}", without_comments(files[name]), flags=re.M | re.S
        ):
            called = set(re.findall(r"\b(\w+)\(", body)) - {"if", "for", "while", "return", "sizeof"}
            called = {c for c in called if not c.isupper()}
            assert called <= defined, f"{function} calls what does not stand before it"
            defined.add(function)
    assert "net_run" in defined


def test_every_layer_is_one_function_called_once_and_in_order() -> None:
    project = project_of(every_op_graph())
    text = without_comments(project.files["net.c"])
    layers = [layer.function for layer in project.model.layers]
    assert len(set(layers)) == len(layers) > 10
    for function in layers:
        assert re.search(rf"^static TD_NOINLINE void {function}\(", text, flags=re.M)
    body = text.split("int net_run(")[1]
    assert re.findall(r"\b(net_\d\d_\w+)\(", body) == layers
    assert [f"net_{i:02d}_" for i in range(len(layers))] == [f[:7] for f in layers]


def test_each_layer_states_shape_macs_and_name() -> None:
    graph = single_op_graph("CONV_2D", shape=(1, 7, 6, 4), outputs=6)
    text = project_of(graph).files["net.c"]
    assert "/* 0: CONV_2D conv_2d_0\n * 1x7x6x4 -> 1x7x6x6" in text
    assert f"{7 * 6 * 6 * 9 * 4:,} MACs */" in text


@needs_compiler
@pytest.mark.parametrize("case", graphs())
def test_macros_have_the_values_of_the_graph(case: str, tmp_path: Path) -> None:
    graph = graphs()[case]
    project = project_of(graph, case)
    model, u = project.model, case.upper()
    lines = [f'printf("%d %d %d\\n", {u}_ARENA_SIZE, {u}_OK, {u}_ERR_NULL);']
    for port in (*model.inputs, *model.outputs):
        p = f"{u}_{port.label.upper()}"
        lines.append(f'printf("%d %d %.9g %s", {p}_SIZE, {p}_ZERO_POINT, (double){p}_SCALE, {p}_LAYOUT);')
        lines.append(
            f"{{ static const int s[] = {p}_SHAPE; for (unsigned i = 0; i < sizeof s / sizeof *s; i++) "
        )
        lines.append('printf(" %d", s[i]); } printf("\\n");')
        lines.append(f"{{ {port.ctype} *place = {case}_{port.label}(); (void)place; }}")
    main = (
        f'#include <stdio.h>\n#include "{case}.h"\nint main(void)\n{{\n'
        + "\n".join(lines)
        + "\nreturn 0;\n}\n"
    )
    first, *ports = run_c(write(project, tmp_path), main, case).decode().splitlines()
    assert first == f"{project.plan.arena_bytes} 0 -1"
    for line, name in zip(ports, (*graph.inputs, *graph.outputs), strict=True):
        size, zero_point, scale, layout, *shape = line.split()
        value = graph.value(name)
        assert (int(size), int(zero_point)) == (value.elements, value.quant.zero_point)
        assert np.float32(scale) == np.float32(value.quant.scale)
        assert layout == ("NHWC" if len(value.shape) == 4 else "row-major")
        assert tuple(map(int, shape)) == value.shape


@needs_compiler
def test_macros_round_as_the_engine_does(tmp_path: Path) -> None:
    cases = [
        (DType.INT8, 0.0625, -128),
        (DType.INT8, 0.1, 127),
        (DType.INT8, 1.0 / 3, 5),
        (DType.INT8, 1e-20, 0),
        (DType.INT8, 20000.0, -7),
        (DType.UINT8, 1.0 / 255, 0),
        (DType.UINT8, 0.0471, 255),
        (DType.UINT8, 1.0, 128),
    ]
    main, expected, reals = ["#include <stdio.h>"], [], []
    body = []
    for i, (dtype, scale, zero_point) in enumerate(cases):
        other = DType.INT8 if dtype is DType.UINT8 else DType.UINT8
        graph = single_op_graph("QUANTIZE", source=dtype, target=other)
        graph = with_input_scale(tuned(graph, inputs=zero_point), scale)
        write(make_project(graph, ExportOptions(f"m{i}", "host", "latency", "")), tmp_path)
        quant = graph.value(graph.inputs[0]).quant
        steps = np.arange(-300, 301, dtype=np.float64)
        fine = (steps[:, None] + [-0.5, -0.49999, -1e-6, 0, 0.25, 0.49999994, 0.5, 0.50001]).reshape(-1)
        real = np.concatenate([fine * quant.scale, [0.0, -0.0, 3e38, -3e38, np.inf, -np.inf, 1e-42, -1e-42]])
        reals.append(real.astype(np.float32))
        expected.append(quantize_array(reals[-1], quant, dtype).astype(np.int64))
        main.append(f'#include "m{i}.h"')
        body.append(
            f"for (int i = 0; i < {len(real)}; i++) {{ float r; if (fread(&r, 4, 1, stdin) != 1) return 1;"
            f' printf("%d\\n", M{i}_INPUT_QUANTIZE(r)); }}'
        )
        low, high = dtype.limits
        body.append(
            f'for (int q = {low}; q <= {high}; q++) printf("%a\\n", (double)M{i}_INPUT_DEQUANTIZE(q));'
        )
    text = "\n".join([*main, "int main(void)\n{", *body, "return 0;\n}\n"])
    lines = run_c(tmp_path, text, stdin=b"".join(r.tobytes() for r in reals)).decode().splitlines()
    for i, (dtype, _, _) in enumerate(cases):
        count = len(reals[i])
        got = np.array([int(v) for v in lines[:count]])
        assert np.array_equal(got, expected[i]), reals[i][got != expected[i]]
        low, high = dtype.limits
        back = [float.fromhex(v) for v in lines[count : count + 256]]
        quant = single_op_graph("QUANTIZE", source=dtype).value("input_0").quantization
        assert quant is not None
        quant = replace(quant, scales=(float(np.float32(cases[i][1])),), zero_points=(cases[i][2],))
        assert back == dequantize_array(np.arange(low, high + 1), quant).astype(np.float64).tolist()
        lines = lines[count + 256 :]


@needs_compiler
def test_null_is_refused(tmp_path: Path) -> None:
    write(project_of(graphs()["one"], "one"), tmp_path)
    several = project_of(graphs()["some"], "some")
    write(several, tmp_path)
    labels = [p.label for p in (*several.model.inputs, *several.model.outputs)]
    places = ", ".join(f"some_{label}()" for label in labels)
    checks = [
        "ok = ok && one_run(NULL, one_output()) == ONE_ERR_NULL;",
        "ok = ok && one_run(one_input(), NULL) == ONE_ERR_NULL;",
        "ok = ok && one_run(one_input(), one_output()) == ONE_OK && some_run(NULL) == SOME_ERR_NULL;",
        f"{{ const struct some_io io = {{ {places} }}; ok = ok && some_run(&io) == SOME_OK; }}",
    ]
    for label in labels:
        checks.append(f"{{ struct some_io io = {{ {places} }}; io.{label} = NULL;")
        checks.append("ok = ok && some_run(&io) == SOME_ERR_NULL; }")
    main = '#include <stddef.h>\n#include "one.h"\n#include "some.h"\nint main(void)\n{\nint ok = 1;\n'
    run_c(tmp_path, main + "\n".join(checks) + "\nreturn !ok;\n}\n", "one", "some")


@needs_compiler
def test_two_models_in_one_program(tmp_path: Path) -> None:
    pair = {"first": every_op_graph(1), "second": every_op_graph(2)}
    expected, main = [], ["#include <stdio.h>"]
    body = []
    fed = b""
    for name, graph in pair.items():
        write(project_of(graph, name), tmp_path)
        x = random_inputs(graph, 1)
        fed += x[0].tobytes()
        expected += [int(v) for y in run(graph, x) for v in y.reshape(-1)]
        main.append(f'#include "{name}.h"')
        u = name.upper()
        body.append(f"if (fread({name}_input_0(), 1, {u}_INPUT_0_SIZE, stdin) != {u}_INPUT_0_SIZE) return 1;")
    for name in pair:
        io = f"{{ {name}_input_0(), {name}_output_0(), {name}_output_1() }}"
        body.append(f"{{ const struct {name}_io io = {io}; if ({name}_run(&io)) return 2; }}")
    for name in pair:
        for i in (0, 1):
            u = f"{name.upper()}_OUTPUT_{i}_SIZE"
            body.append(f'for (int i = 0; i < {u}; i++) printf("%d ", {name}_output_{i}()[i]);')
    text = "\n".join([*main, "int main(void)\n{", *body, "return 0;\n}\n"])
    assert [int(v) for v in run_c(tmp_path, text, *pair, stdin=fed).split()] == expected


@needs_compiler
@pytest.mark.skipif(CPP is None, reason="no C++ compiler")
def test_the_header_is_cpp_too(tmp_path: Path) -> None:
    for name, graph in graphs().items():
        write(project_of(graph, name), tmp_path)
    main = "".join(f'#include "{n}.h"\n' for n in graphs())
    main += "int main() { return one_run(one_input(), one_output()); }\n"
    (tmp_path / "main.cpp").write_text(main)
    c = [*toolchain().command, "-std=c99", "-c", "one.c", "one_weights.c"]
    subprocess.run(c, cwd=tmp_path, check=True)
    flags = ["-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o", "main"]
    subprocess.run([str(CPP), *flags, "main.cpp", "one.o", "one_weights.o"], cwd=tmp_path, check=True)
    subprocess.run([tmp_path / "main"], check=True)


@needs_compiler
@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize("case", graphs())
def test_the_makefile_builds_an_example_that_runs(case: str, tmp_path: Path) -> None:
    graph = graphs()[case]
    folder = write(project_of(graph, case), tmp_path)
    flags = f"CFLAGS={' '.join(WARNINGS)}"
    subprocess.run(["make", "-s", flags], cwd=folder, check=True, env={**os.environ, "MAKEFLAGS": ""})
    shown = subprocess.run([folder / "example"], capture_output=True, check=True).stdout.split()
    zeros = [
        np.full((1, *v.shape), v.quant.zero_point, v.dtype.numpy) for v in map(graph.value, graph.inputs)
    ]
    assert [int(v) for v in shown] == [int(v) for y in run(graph, zeros) for v in y.reshape(-1)]
    subprocess.run(["make", "-s", "clean"], cwd=folder, check=True)
    assert not list(folder.glob("*.o")) and not (folder / "example").exists()


def test_equal_bytes_in_every_process_without_path_or_date() -> None:
    script = (
        "import sys, hashlib; sys.path[:0] = sys.argv[1:]\n"
        "from graphs import every_op_graph\nfrom native import project_of\n"
        "files = project_of(every_op_graph()).files\n"
        "print({n: hashlib.sha256(t.encode()).hexdigest() for n, t in files.items()})"
    )
    tests = str(Path(__file__).resolve().parents[1])
    printed = {
        subprocess.run(
            [sys.executable, "-c", script, tests],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
            capture_output=True,
            check=True,
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }
    assert len(printed) == 1
    for name, text in project_of(every_op_graph()).files.items():
        assert not re.search(
            r"__DATE__|__TIME__|__FILE__|\b20\d\d-\d\d|\d\d:\d\d|/(tmp|home|usr|work)/", text
        ), name


HOSTILE = [
    "*/ #include <stdio.h> /*",
    "*\\ int evil; /\\*",
    "**//**/ /*/ */*",
    "line\nbreak\r\n*/\n#error",
    "??/ ???/ ????/",
    "back\\",
    "ünïcödé \u202e \U0001f600 \x00\x1b[31m",
    "%s {weights} {0} {",
    "// \\",
    "",
]


@needs_compiler
def test_hostile_names_stay_inside_comments(tmp_path: Path) -> None:
    graph = single_op_graph("FULLY_CONNECTED")
    node = graph.nodes[0]
    plain = without_comments(project_of(graph).files["net.c"])
    for i, name in enumerate(HOSTILE):
        hostile = replace(graph, nodes=(Node(name, node.op, node.inputs, node.outputs),))
        project = project_of(hostile)
        text = project.files["net.c"]
        assert without_comments(text) == plain, name
        assert "??" not in text and "\\" not in text
        assert text.count("/*") == text.count("*/")
        assert json.loads(project.files["manifest.json"])["layers"][0]["name"] == name
        folder = write(project, tmp_path / str(i))
        subprocess.run([*toolchain().command, "-std=c99", "-c", "net.c"], cwd=folder, check=True)


BAD_NAMES = ["", "1a", "_a", "a-b", "a b", "a.b", "../a", "ä", "a\n", "int", "while", "td_x", "a" * 64, "x;y"]


@pytest.mark.parametrize("name", [*BAD_NAMES, "example_main", "stdint", "stddef", "stdio"])
def test_a_name_that_cannot_prefix_is_refused(name: str) -> None:
    with pytest.raises(DeployError, match="cannot prefix"):
        project_of(single_op_graph("RELU"), name)


@pytest.mark.parametrize("stem", [*BAD_NAMES, "example_main", "STDINT", "kws", "Model v2 (final)", "__", "ß"])
def test_every_file_name_gives_a_valid_name(stem: str) -> None:
    assert check_name(name_from(stem)) == name_from(stem)


def test_a_float_graph_is_refused() -> None:
    with pytest.raises(DeployError, match="the model is float"):
        project_of(single_op_graph("CONV_2D", is_float=True))


@pytest.mark.parametrize("case", graphs())
def test_the_manifest_agrees_with_the_plan(case: str) -> None:
    graph = graphs()[case]
    options = ExportOptions(case, "cortex-m4", "flash", "ab" * 32)
    project = make_project(graph, options)
    plan, model = project.plan, project.model
    manifest = json.loads(project.files["manifest.json"])
    assert manifest["arena_bytes"] == plan.arena_bytes == max(p.end for p in plan.placements)
    assert manifest["arena_lower_bound_bytes"] == plan.lower_bound_bytes
    assert [(m["offset"], m["bytes"]) for m in manifest["memory"]] == [
        (p.offset, p.buffer.bytes) for p in plan.placements
    ]
    tensors = {t for m in manifest["memory"] for t in m["tensors"] if not t.startswith("scratch of ")}
    assert tensors == {v.name for v in graph.values.values() if not v.is_constant}
    assert [layer["function"] for layer in manifest["layers"]] == [layer.function for layer in model.layers]
    assert manifest["weights_bytes"] == sum(layer["weights_bytes"] for layer in manifest["layers"])
    assert manifest["macs"] == sum(layer["macs"] for layer in manifest["layers"])
    assert manifest["files"] == sorted(project.files)
    for ports, names in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        for port, name in zip(manifest[ports], names, strict=True):
            value = graph.value(name)
            assert (port["shape"], port["dtype"]) == (list(value.shape), value.dtype.value)
            assert (port["scale"], port["zero_point"]) == (value.quant.scale, value.quant.zero_point)
    for key, value in (("target", "cortex-m4"), ("optimize", "flash"), ("model_sha256", "ab" * 32)):
        assert manifest[key] == value
        assert all(value in text for name, text in project.files.items() if not name.startswith("td_"))
