"""PyTorch factories, weights and archives from outside: what fits is read, what means harm is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")

from test_torch_read import IMAGE, Lambda, kinds, run_graph, saved  # noqa: E402
from torch import nn  # noqa: E402
from torch_networks import randomized  # noqa: E402

from tinydeploy import ops  # noqa: E402
from tinydeploy.errors import DeployError  # noqa: E402
from tinydeploy.frontends.torch import read_factory, read_pt2  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


FACTORY = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (1, 3, 8, 8)

def shapeless():
    return nn.ReLU()

def broken():
    raise RuntimeError("no luck")

def number():
    return 3
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"factory_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(FACTORY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return name


def test_a_factory_with_weights(factory: str, tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    module = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), seed=5)
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    torch.save(module.state_dict(), tmp_path / "w.pt")
    x = torch.randn(1, 3, 8, 8)
    for weights in ("w.safetensors", "w.pt"):
        graph = read_factory(f"{factory}:make", tmp_path / weights)
        np.testing.assert_allclose(run_graph(graph, x.numpy())[0], module(x).detach().numpy(), atol=1e-5)
    assert len(read_factory(f"{factory}:make", None).nodes) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shapeless", "shape"),
        ("broken", "no luck"),
        ("number", "not a torch"),
        ("missing", "cannot be imported"),
    ],
)
def test_a_factory_that_does_not_deliver(factory: str, name: str, message: str) -> None:
    with pytest.raises(DeployError, match=message):
        read_factory(f"{factory}:{name}", None)


@pytest.mark.parametrize("reference", ["", "nothing", ":make", "a b:c", "no_such_module:make"])
def test_a_reference_that_names_nothing(reference: str) -> None:
    with pytest.raises(DeployError):
        read_factory(reference, None)


def test_weights_that_do_not_fit(factory: str, tmp_path: Path) -> None:
    torch.save({"0.weight": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(DeployError, match="does not fit"):
        read_factory(f"{factory}:make", tmp_path / "w.pt")
    for name in ("w.safetensors", "missing.safetensors", "missing.pt"):
        (tmp_path / "w.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
        with pytest.raises(DeployError):
            read_factory(f"{factory}:make", tmp_path / name)


class Bomb:
    """Unpickling it makes a folder, which a test can see."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def test_a_state_dict_with_a_pickled_call_is_refused_and_not_called(factory: str, tmp_path: Path) -> None:
    sign = tmp_path / "executed"
    for name, data in (("zip.pt", None), ("raw.pt", pickle.dumps({"0.weight": Bomb(str(sign))}))):
        if data is None:
            torch.save({"0.weight": Bomb(str(sign))}, tmp_path / name)
        else:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(DeployError, match="nothing else is ever loaded"):
            read_factory(f"{factory}:make", tmp_path / name)
        assert not sign.exists()


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy of a zip with its members changed, or left out where `change` returns None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            data = change(info.filename.partition("/")[2], old.read(info))
            if data is not None:
                new.writestr(info.filename, data)
    return target


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "model.pt2"
    return saved(
        randomized(Lambda(lambda x, c, n: n(c(x)), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))), IMAGE, path
    )


def test_a_pickled_weight_is_refused_and_not_loaded(archive: Path, tmp_path: Path) -> None:
    sign = tmp_path / "executed"
    buffer = io.BytesIO()
    torch.save(Bomb(str(sign)), buffer)

    def change(name: str, data: bytes) -> bytes:
        if name.endswith("weights_config.json"):
            config = json.loads(data)
            next(iter(config["config"].values()))["use_pickle"] = True
            return json.dumps(config).encode()
        return buffer.getvalue() if name.endswith("weight_0") else data

    with pytest.raises(DeployError, match="pickle"):
        read_pt2(rewritten(archive, tmp_path / "bomb.pt2", change))
    assert not sign.exists()


def test_pickles_code_and_expressions_elsewhere_are_never_opened(archive: Path, tmp_path: Path) -> None:
    """The sample inputs, the guards and the symbols of an archive can all run code in PyTorch's loader."""
    sign = tmp_path / "executed"
    buffer = io.BytesIO()
    torch.save(Bomb(str(sign)), buffer)
    call = f"__import__('os').mkdir({str(sign)!r})"

    def change(name: str, data: bytes) -> bytes:
        if name.startswith("data/sample_inputs"):
            return buffer.getvalue()
        if name.startswith("models/"):
            model = json.loads(data)
            model["guards_code"] = [call]
            model["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0] = {"as_expr": {"expr_str": call}}
            return json.dumps(model).encode()
        return data

    changed = rewritten(archive, tmp_path / "bomb.pt2", change)
    text = zipfile.ZipFile(changed).read("model/models/model.json").decode()
    assert "__import__" in text
    assert kinds(read_pt2(changed)) == ["CONV_2D"]
    assert not sign.exists()


def test_damaged_archives_are_refused_by_name(archive: Path, tmp_path: Path) -> None:
    """Every member missing, cut and garbled; any error but DeployError would be a fault of ours."""
    with zipfile.ZipFile(archive) as file:
        names = [i.filename.partition("/")[2] for i in file.infolist()]
    refused = 0
    for name in names:
        for damage in (
            lambda d: None,
            lambda d: d[: len(d) // 2],
            lambda d: b"[1, 2]",
            lambda d: b"\xff" * 9,
        ):
            path = rewritten(archive, tmp_path / "x.pt2", lambda n, d: damage(d) if n == name else d)  # noqa: B023
            try:
                read_pt2(path)
            except DeployError as error:
                assert str(path) in str(error)
                refused += 1
    assert refused >= 4 * 6
    (tmp_path / "empty.pt2").write_bytes(b"")
    for name in ("empty.pt2", "missing.pt2"):
        with pytest.raises(DeployError):
            read_pt2(tmp_path / name)


def test_sizes_are_checked_before_memory_is_taken(archive: Path, tmp_path: Path) -> None:
    def weights(name: str, data: bytes) -> bytes:
        if not name.endswith("weights_config.json"):
            return data
        config = json.loads(data)
        meta = next(iter(config["config"].values()))["tensor_meta"]
        meta["sizes"], meta["strides"] = [{"as_int": 1 << 40}], [{"as_int": 0}]
        return json.dumps(config).encode()

    def inputs(name: str, data: bytes) -> bytes:
        if not name.startswith("models/"):
            return data
        model = json.loads(data)
        model["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][2] = {"as_int": 1 << 40}
        return json.dumps(model).encode()

    for change, message in ((weights, "beyond"), (inputs, "limit")):
        with pytest.raises(DeployError, match=message):
            read_pt2(rewritten(archive, tmp_path / "x.pt2", change))


def test_pt2_needs_no_pytorch(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert isinstance(read_pt2(archive).nodes[0].op, ops.Conv2D)
