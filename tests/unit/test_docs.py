"""The code of docs/python.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from shared import model_path, needs_data

from tinydeploy import api

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.slow
def test_the_python_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
    pytest.importorskip("unicorn", reason="the extra emulate is not installed")
    # What the page writes goes beside a link to the fixtures, and not into the repository.
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) == 4
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks:
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, "docs/python.md", "exec"), names)
    result = names["result"]
    assert result.missed is None
    assert result.reached.after <= result.reached.allowed
    assert result.stages[-1].value >= names["before"].value - 0.1
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"model.onnx", "model.tflite", "report.json"}
    printed = capsys.readouterr().out
    assert "is a core without a clock" in printed
    assert "digits.h" in printed
    table = re.findall(r"^\| `(\w+)", text, re.M)
    assert all(hasattr(result, name) for name in table)


@needs_data
def test_the_layer_in_the_readme_is_what_is_generated(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```c\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    api.export_c(api.load_model(model_path("kws")), "nucleo-l4r5zi", tmp_path, name="kws")
    assert block in (tmp_path / "kws.c").read_text()
