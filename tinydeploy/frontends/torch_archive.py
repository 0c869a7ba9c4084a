"""`.pt2` files (torch.export archives) without trust.

`torch.export.load` is not used, on purpose. In torch 2.13 it offers no `weights_only`, and it
- unpickles, without restriction, the sample inputs, every weight and constant whose entry says `use_pickle`,
  and every custom or opaque object of the archive;
- hands the archive's expression strings to `sympy.sympify`, which evaluates them as Python;
- loads the compiled libraries that lie in `data/aotinductor`.
Each of these runs what a hostile file says. The archive's two useful parts need none of it: the graph is
JSON (torch/_export/serde/schema.py states its fields), and weights are raw bytes beside a JSON that gives
type, sizes and strides. Both are read here, with numpy; whatever else the archive holds is never opened,
and a weight that exists only as a pickle is refused.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinydeploy.errors import DeployError
from tinydeploy.frontends.torch_program import Call, Program, Tensor, require_plain_output
from tinydeploy.ir import limits
from tinydeploy.ir.types import Array

_SAVE_AGAIN = "write the file again with torch.export.save of torch 2.8 or newer"
_SCHEMA_MAJOR = 8
_MAX_JSON = 1 << 26

# torch/_export/serde/schema.py, class ScalarType. numpy has no bfloat16; it is widened below.
_DTYPES = {
    1: "<u1",
    2: "<i1",
    3: "<i2",
    4: "<i4",
    5: "<i8",
    6: "<f2",
    7: "<f4",
    8: "<f8",
    12: "|b1",
    13: "<u2",
}
_FLOAT32, _BFLOAT16 = 7, 13

_LISTS = frozenset({"as_ints", "as_floats", "as_bools"})
_PLAIN = frozenset({"as_int", "as_float", "as_bool", "as_string"})


def read_archive(path: Path) -> Program:
    """The program of a `.pt2` file.

    Raises:
        DeployError: the file cannot be read, is damaged, of another version, or holds pickled weights.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Archive(archive).program()
    except DeployError as error:
        raise DeployError(error.fact, where=error.where or str(path), hint=error.hint) from None
    except FileNotFoundError:
        raise DeployError("no such file", where=str(path), hint="check the path") from None
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise DeployError(
            f"is not a readable .pt2 file ({error})", where=str(path), hint=_SAVE_AGAIN
        ) from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise DeployError(
            f"is damaged, or of a version that is not known ({type(error).__name__}: {str(error)[:200]})",
            where=str(path),
            hint=_SAVE_AGAIN,
        ) from None


class _Archive:
    """The members of the zip, by their path below the archive's one top folder."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._members: dict[str, zipfile.ZipInfo] = {}
        total = 0
        for info in archive.infolist():
            total += info.file_size
            if total > limits.MAX_FILE_BYTES:
                raise DeployError(f"its contents are over {limits.MAX_FILE_BYTES} bytes, which is the limit")
            self._members[info.filename.partition("/")[2]] = info

    def _bytes(self, name: str) -> bytes:
        info = self._members.get(name)
        if info is None:
            raise DeployError(f"has no member {name!r}", hint=_SAVE_AGAIN)
        return self._archive.read(info)

    def _json(self, name: str) -> Any:
        info = self._members.get(name)
        if info is not None and info.file_size > _MAX_JSON:
            raise DeployError(f"{name} has {info.file_size} bytes; the limit is {_MAX_JSON}")
        return json.loads(self._bytes(name))

    def program(self) -> Program:
        if "byteorder" in self._members and self._bytes("byteorder") != b"little":
            raise DeployError("its weights are not little-endian", hint=_SAVE_AGAIN)
        models = [n for n in self._members if n.startswith("models/") and n.endswith(".json")]
        if len(models) != 1:
            raise DeployError(
                f"holds {len(models)} exported programs, and one is supported", hint=_SAVE_AGAIN
            )
        name = models[0].removeprefix("models/").removesuffix(".json")
        model = self._json(models[0])
        if model["schema_version"]["major"] != _SCHEMA_MAJOR:
            raise DeployError(
                f"schema version {model['schema_version']['major']}, and {_SCHEMA_MAJOR} is supported",
                hint=_SAVE_AGAIN,
            )
        stored = dict(self._tensors("weights", name))
        stored.update(self._tensors("constants", name))
        return _Reader(model["graph_module"]).program(stored)

    def _tensors(self, folder: str, model: str) -> Iterator[tuple[str, Array]]:
        config = self._json(f"data/{folder}/{model}_{folder}_config.json")["config"]
        total = 0
        for name, entry in config.items():
            if entry["use_pickle"] or entry["tensor_meta"] is None:
                raise DeployError(
                    f"the constant {name!r} is a pickle, which can run anything and is never loaded",
                    hint="save plain contiguous tensors on the CPU, or name the module and give --weights"
                    " FILE.safetensors",
                )
            data = self._bytes(f"data/{folder}/{entry['path_name']}")
            array = _tensor(data, entry["tensor_meta"], name)
            # Many entries may name the same bytes.
            total += array.size
            if total > limits.MAX_TOTAL_ELEMENTS:
                raise DeployError(f"its constants have over {limits.MAX_TOTAL_ELEMENTS} elements")
            yield name, array


def _integer(size: Any) -> int:
    if not isinstance(size, dict) or type(size.get("as_int")) is not int:
        raise DeployError(
            "a size is an expression, not a number", hint="export with fixed shapes; the batch may vary"
        )
    return int(size["as_int"])


def _tensor(data: bytes, meta: Any, name: str) -> Array:
    """A strided view of raw bytes, checked against them before it is made."""
    dtype = _DTYPES.get(meta["dtype"])
    if dtype is None:
        raise DeployError(f"the constant {name!r} has elements of type number {meta['dtype']}")
    sizes = tuple(_integer(n) for n in meta["sizes"])
    strides = tuple(_integer(n) for n in meta["strides"])
    offset = _integer(meta["storage_offset"])
    if len(sizes) != len(strides) or len(sizes) > limits.MAX_RANK or min((offset, *sizes, *strides)) < 0:
        raise DeployError(f"the constant {name!r} has sizes {sizes} and strides {strides}")
    flat = np.frombuffer(data[: len(data) - len(data) % np.dtype(dtype).itemsize], dtype)
    last = offset + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
    # Strides of 0 could make a few bytes as large as memory.
    count = math.prod(sizes)
    if count > flat.size or (count > 0 and last >= flat.size):
        raise DeployError(f"the constant {name!r} of sizes {sizes} reaches beyond its {len(data)} bytes")
    steps = tuple(s * flat.itemsize for s in strides)
    if count == 0:
        return np.zeros(sizes, np.float32)
    view = np.lib.stride_tricks.as_strided(flat[offset:], sizes, steps, writeable=False)
    if meta["dtype"] == _BFLOAT16:
        # The upper half of a float32.
        return (view.astype(np.uint32) << 16).view(np.float32)
    return view.astype(np.float32) if view.dtype.kind == "f" else view.copy()


class _Reader:
    """The graph of a serialized program; fields are unions, written as {kind: value}."""

    def __init__(self, module: Any) -> None:
        self._graph = module["graph"]
        self._signature = module["signature"]
        self._batch: set[str] = set()
        self._sizes: dict[str, int] = {}

    def program(self, stored: dict[str, Array]) -> Program:
        inputs: list[tuple[str, tuple[int, ...]]] = []
        constants: dict[str, Array] = {}
        paths: dict[str, str] = {}
        for spec in self._signature["input_specs"]:
            ((kind, entry),) = spec.items()
            if kind == "user_input":
                name = _only(entry["arg"], "as_tensor", "an input")["name"]
                inputs.append((name, self._input_shape(name)))
                continue
            path = (
                entry.get("parameter_name") or entry.get("buffer_name") or entry.get("tensor_constant_name")
            )
            if path is None or path not in stored:
                raise DeployError(f"an input of kind {kind} is not supported, or its data is missing")
            name = entry["arg"]["name"]
            constants[name], paths[name] = stored[path], path
        self._bind_batch_sizes()
        for spec in self._signature["output_specs"]:
            require_plain_output(next(iter(spec)))
        outputs = tuple(_only(o, "as_tensor", "an output")["name"] for o in self._graph["outputs"])
        if len(self._graph["nodes"]) > limits.MAX_NODES:
            raise DeployError(f"{len(self._graph['nodes'])} calls; the limit is {limits.MAX_NODES}")
        calls = tuple(self._call(n) for n in self._graph["nodes"] if not _is_size(n))
        return Program(tuple(inputs), constants, paths, calls, outputs)

    def _input_shape(self, name: str) -> tuple[int, ...]:
        """The shape with a varying batch fixed to 1."""
        meta = self._graph["tensor_values"][name]
        if meta["dtype"] != _FLOAT32:
            raise DeployError(f"the input {name!r} is no float32 tensor")
        sizes = list(meta["sizes"])
        if sizes and "as_expr" in sizes[0]:
            # Compared as text and never evaluated.
            self._batch.add(sizes[0]["as_expr"]["expr_str"])
            sizes[0] = {"as_int": 1}
        return tuple(_integer(n) for n in sizes)

    def _bind_batch_sizes(self) -> None:
        for name, size in self._graph.get("sym_int_values", {}).items():
            expression = size.get("as_expr", {}).get("expr_str")
            if expression in self._batch:
                self._sizes[name] = 1

    def _call(self, node: Any) -> Call:
        target = str(node["target"]).removeprefix("torch.ops.")
        outputs: list[str | None] = []
        for output in node["outputs"]:
            ((kind, entry),) = output.items()
            if kind == "as_tensors":
                outputs.extend(e["name"] for e in entry)
            else:
                outputs.append(entry["name"] if kind == "as_tensor" else None)
        arguments = {i["name"]: self._argument(i["arg"]) for i in node["inputs"]}
        stack = str(node.get("metadata", {}).get("nn_module_stack", "")).split(";")[-1].split(",")
        where = stack[1] if len(stack) == 3 else ""
        name = node.get("name") or next((n for n in outputs if n), target)
        return Call(name, target, arguments, tuple(outputs), where)

    def _argument(self, argument: Any) -> Any:
        ((kind, value),) = argument.items()
        if kind == "as_tensors":
            return tuple(Tensor(v["name"]) for v in value)
        if kind == "as_sym_ints":
            return tuple(self._size(v) for v in value)
        if kind in _LISTS:
            return tuple(value)
        if kind in _PLAIN:
            return value
        convert: dict[str, Callable[[Any], Any]] = {
            "as_none": lambda _: None,
            "as_tensor": lambda v: Tensor(v["name"]),
            "as_sym_int": self._size,
            "as_scalar_type": lambda v: "float32" if v == _FLOAT32 else f"number {v}",
        }
        return convert[kind](value) if kind in convert else _Opaque(kind)

    def _size(self, size: Any) -> int:
        name = size.get("as_name")
        return self._sizes[name] if name in self._sizes else _integer(size)


class _Opaque(str):
    """An argument that no supported operator looks at, such as a device; its kind as text."""


def _only(union: Any, kind: str, what: str) -> Any:
    if kind not in union:
        raise DeployError(f"{what} is {next(iter(union), 'nothing')}, and only tensors are supported")
    return union[kind]


def _is_size(node: Any) -> bool:
    """Calls that only compute or check sizes; those of the batch are known to be 1."""
    target = str(node["target"])
    return "sym_size" in target or "_assert" in target or "sym_constrain" in target
