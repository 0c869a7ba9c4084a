"""The Python API, as a notebook uses it."""

from __future__ import annotations

from pathlib import Path

import pytest

import tinydeploy

FIXTURES = Path(__file__).resolve().parent.parent.parent / "fixtures" / "digits"


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


def test_what_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'deploy'"):
        _ = tinydeploy.deploy
