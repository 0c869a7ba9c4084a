"""The page as text: escaped, of bounded size, the same each time; and the accuracy that it shows."""

from __future__ import annotations

import html.parser
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from graphs import GraphBuilder
from page_support import renamed
from sweeps import thinned

from tinydeploy import api
from tinydeploy.errors import DeployError
from tinydeploy.model import Model
from tinydeploy.ops import Add
from tinydeploy.profiling import Profile
from tinydeploy.report.page import html_report, write_page
from tinydeploy.report.page.accuracy import find_accuracy, read_accuracy
from tinydeploy.report.page.render import MOST_BYTES

FIXTURE = Path(__file__).resolve().parent.parent.parent / "fixtures" / "digits" / "digits_int8.tflite"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}</title></style>&amp;"
BOARDS = ("nucleo-l4r5zi", "cortex-m0plus")


@cache
def digits() -> Profile:
    return api.profile(api.load_model(FIXTURE), BOARDS)


class Tags(html.parser.HTMLParser):
    """Collects the tags, their attributes and the visible text of a page."""

    VOID = frozenset({"meta", "link", "br", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile_profile() -> Profile:
    model = api.load_model(FIXTURE)
    evil = Model(
        f"/tmp/{HOSTILE}.tflite".replace("/script", "script"), renamed(model.graph, HOSTILE), "0" * 64
    )
    return api.profile(evil, ("cortex-m4",), name="evil")


def test_names_from_the_model_are_text_and_nothing_else() -> None:
    profile = hostile_profile()
    page = html_report(profile, sha256="0" * 64)
    tags = Tags(page)
    assert not tags.open
    assert sum(tag == "script" for tag, _ in tags.found) == 1
    assert not [tag for tag, _ in tags.found if tag in ("img", "iframe", "object", "base", "form")]
    assert not [a for _, attributes in tags.found for a in attributes if a.startswith("on")]
    assert "alert(1)" in tags.text
    assert "{{ 7 * 7 }}" in tags.text


def test_the_page_refers_to_nothing_outside_itself() -> None:
    page = html_report(digits(), sha256="0" * 64)
    for tag, attributes in Tags(page).found:
        for key in ("src", "href", "action", "data", "srcset"):
            value = attributes.get(key)
            assert value is None or value == "data:," or value.startswith("#"), (tag, attributes)
    assert not re.search(r"https?:|url\(|@import", page)


def test_every_link_of_the_page_leads_somewhere() -> None:
    tags = Tags(html_report(digits(), sha256="0" * 64)).found
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    used = [str(a["href"])[1:] for _, a in tags if str(a.get("href", "")).startswith("#")]
    used += [i for _, a in tags for i in str(a.get("aria-labelledby") or "").split()]
    assert used
    assert set(used) <= set(ids)


def test_equal_reports_are_equal_bytes() -> None:
    assert html_report(digits(), sha256="1" * 64) == html_report(digits(), sha256="1" * 64)


@cache
def long_network() -> Profile:
    b = GraphBuilder(5)
    x = b.input((1, 2, 2, 4))
    for _ in range(420):
        x = b.node(Add(), [x, x], b.quantization())
    long_names = renamed(b.graph(x), "n" * 300 + "/")
    return api.profile(Model("long.tflite", long_names, "0" * 64), ("cortex-m4",), estimate=True)


@pytest.mark.parametrize("copies", thinned([1, 40], 2))
def test_a_long_network_on_many_boards_keeps_the_size(copies: int) -> None:
    one = long_network()
    profile = replace(one, targets=one.targets * copies)
    page = html_report(profile, sha256="0" * 64)
    assert len(page.encode()) < MOST_BYTES
    assert "more are in the output of" in page


def test_more_targets_than_a_page_holds_are_refused() -> None:
    profile = replace(digits(), targets=digits().targets * 101)
    with pytest.raises(DeployError, match="targets are more than a page"):
        html_report(profile, sha256="0" * 64)


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").write_text("")
    with pytest.raises(DeployError) as caught:
        write_page("text", tmp_path / "taken")
    assert "--html" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
    write_page("text", tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text() == "text"


def report(**changes: object) -> dict[str, object]:
    """A report of compress with two stages, of the digits model."""
    stage = {"name": "float", "value": 0.99, "macs": 1, "params": 2, "weights_bytes": 3, "arena_bytes": 4}
    last = {**stage, "name": "int8", "value": 0.98, "macs": digits().macs, "params": digits().params}
    return {"metric": "accuracy", "stages": [stage, last], **changes}


def test_the_report_beside_the_model_is_found(tmp_path: Path) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(FIXTURE.read_bytes())
    assert find_accuracy(str(model), 1, 1) == (None, "")
    (tmp_path / "report.json").write_text(json.dumps(report()))
    found, note = find_accuracy(str(model), digits().macs, digits().params)
    assert note == ""
    assert found is not None
    page = html_report(digits(), sha256="0" * 64, accuracy=found)
    assert "98.00 % after" in page
    assert "-1.00 percentage points" in page
    found, note = find_accuracy(str(model), 5, 5)
    assert found is None
    assert "another model" in note


def bad_reports() -> Iterator[tuple[str, str]]:
    stage = report()["stages"][0]  # type: ignore[index]
    yield "no json", "is no JSON"
    yield "[" * 100_000, "is no JSON"
    yield "[]", "no stages"
    yield json.dumps(report(stages=[])), "no stages"
    yield json.dumps(report(stages=[stage] * 17)), "no stages"
    yield json.dumps(report(metric="<b>")), "metric"
    yield json.dumps(report(stages=[{**stage, "macs": "1"}])), "macs is no count"
    yield json.dumps(report(stages=[{**stage, "params": -1}])), "params is no count"
    yield json.dumps(report(stages=[{**stage, "macs": True}])), "macs is no count"
    yield json.dumps(report(stages=[{**stage, "value": "x"}])), "value is no number"
    yield json.dumps(report(stages=[{**stage, "value": float("inf")}])), "not finite"
    yield json.dumps(report(stages=[{**stage, "name": 3}])), "name"
    yield json.dumps(report(stages=[stage])), "another model"


def test_a_report_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for text, words in bad_reports():
        path.write_text(text)
        with pytest.raises(DeployError, match=words) as caught:
            read_accuracy(path, digits().macs, digits().params)
        assert "report.json" in str(caught.value)
    with pytest.raises(DeployError, match="cannot be read"):
        read_accuracy(tmp_path / "none.json", 1, 1)
