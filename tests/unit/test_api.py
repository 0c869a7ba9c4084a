"""The Python API, as a notebook uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinydeploy

FIXTURES = Path(__file__).resolve().parent.parent.parent / "fixtures" / "digits"


@pytest.mark.slow
def test_a_notebook_goes_from_float_to_a_proved_core(tmp_path: Path) -> None:
    model = tinydeploy.load_model(FIXTURES / "digits_float.tflite")
    result, warnings = tinydeploy.compress(model, FIXTURES / "samples.npz", output=tmp_path / "out")
    assert not warnings
    assert result.stages[-1].value is not None
    small = tinydeploy.load_model(tmp_path / "out" / "model.tflite")
    accuracy, _ = tinydeploy.evaluate(small, FIXTURES / "samples.npz")
    assert accuracy.value == result.stages[-1].value
    assert tinydeploy.verify(small, "cortex-m4").ok
    assert tinydeploy.profile(small, ["nucleo-l4r5zi"]).all_fit
    export = tinydeploy.export_c(small, "cortex-m4", tmp_path / "c", name="digits")
    assert (export.folder / "digits.h").is_file()


def test_arrays_do_what_a_file_does(tmp_path: Path) -> None:
    model = tinydeploy.load_model(FIXTURES / "digits_float.tflite")
    with np.load(FIXTURES / "samples.npz") as file:
        data = {name: file[name] for name in file}
    by_file, _ = tinydeploy.compress(model, FIXTURES / "samples.npz", output=tmp_path / "file")
    by_arrays, _ = tinydeploy.compress(model, data, eval_data=data, output=tmp_path / "arrays")
    assert by_file.to_json() == by_arrays.to_json()
    written = [(tmp_path / n / "model.tflite").read_bytes() for n in ("file", "arrays")]
    assert written[0] == written[1]
    assert tinydeploy.evaluate(model, data)[0].samples == 200


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        ({"x": np.zeros((2, 8, 8, 1), object)}, "the arrays given: x: has elements of type object"),
        ({"images": np.zeros((2, 8, 8, 1), np.float32)}, "has no array 'x'"),
        ({"x": np.zeros((2, 8, 8, 1), np.float32)}, "no labels"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(data: dict[str, Any], fact: str) -> None:
    model = tinydeploy.load_model(FIXTURES / "digits_float.tflite")
    with pytest.raises(tinydeploy.DeployError, match=fact):
        tinydeploy.evaluate(model, data)


def test_a_network_that_no_file_holds() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 10))
    model = tinydeploy.from_torch(network, (1, 1, 8, 8), name="Two Layers")
    x = np.random.default_rng(0).normal(0, 1, (5, 1, 8, 8)).astype(np.float32)
    predicted = network(torch.from_numpy(x)).argmax(dim=1).numpy()
    assert tinydeploy.evaluate(model, {"x": x, "y": predicted})[0].value == 1.0
    assert model.default_name == "two_layers"
    before = model.sha256
    with torch.no_grad():
        network[2].bias[0] += 1
    assert tinydeploy.from_torch(network, (1, 1, 8, 8)).sha256 != before


def test_what_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'deploy'"):
        _ = tinydeploy.deploy
