"""The report in a real browser: it renders without a complaint, and its figures are those of the JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from chromium import Browser, browser, why_not
from click.testing import CliRunner
from page_support import renamed

from tinydeploy import api
from tinydeploy.backends.tflite import write_tflite
from tinydeploy.cli.main import cli

pytestmark = [pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

FIXTURES = Path(__file__).resolve().parent.parent.parent / "fixtures" / "digits"
TARGETS = "nucleo-l4r5zi,raspberry-pi-pico,nucleo-h743zi,cortex-m4"
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
WIDTHS = (1280, 390)

CONTRAST = """(() => {
  const parse = text => {
    const n = text.match(/[\\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1];
  };
  const light = c => { const s = c / 255; return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4; };
  const luminance = c => 0.2126 * light(c[0]) + 0.7152 * light(c[1]) + 0.0722 * light(c[2]);
  const ratio = (a, b) => {
    const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05);
  };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const rect = e.tagName === "svg" && e.classList.contains("block") ? e.querySelector("rect") : null;
      const color = parse(rect ? getComputedStyle(rect).fill : getComputedStyle(e).backgroundColor);
      if (color[3] === 1) return color;
    }
    return [255, 255, 255, 1];
  };
  const bad = [];
  const check = (element, color, least, what) => {
    const found = ratio(parse(color), behind(element));
    if (found < least) bad.push(`${what}: ${found.toFixed(2)}`);
  };
  let texts = 0;
  for (const e of document.querySelectorAll("body, body *")) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.tagName === "SCRIPT" || e.tagName === "title" || !e.getClientRects().length) continue;
    const style = getComputedStyle(e);
    texts += 1;
    const color = e.namespaceURI.endsWith("svg") ? style.fill : style.color;
    check(e, color, 4.5, `${e.tagName}.${e.getAttribute("class")} ${e.textContent.slice(0, 30)}`);
    if (parseFloat(style.fontSize) < 12) bad.push(`small text: ${e.textContent.slice(0, 30)}`);
  }
  for (const e of document.querySelectorAll(".bar > span, .stack > span")) {
    const color = getComputedStyle(e).backgroundColor;
    check(e.parentElement, color, 3, `graphic ${e.parentElement.className}`);
  }
  for (const e of document.querySelectorAll(".block rect, .network path")) {
    check(e.closest("figure, .network"), getComputedStyle(e).stroke, 3, "line of a picture");
  }
  return {bad: [...new Set(bad)], texts};
})()"""


@dataclass(frozen=True)
class Report:
    """One page with the JSON of the same command."""

    page: Path
    document: dict[str, Any]
    compression: dict[str, Any]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The digits model as `compress` left it, on four targets that are too small for it."""
    folder = tmp_path_factory.mktemp("report")
    made = CliRunner().invoke(
        cli,
        [
            *("compress", str(FIXTURES / "digits_float.tflite"), "--data", str(FIXTURES / "samples.npz")),
            *("-o", str(folder), "--json"),
        ],
    )
    assert made.exit_code == 0, made.stderr
    page = folder / "page.html"
    done = CliRunner().invoke(
        cli,
        [
            *("profile", str(folder / "model.tflite"), "--target", TARGETS, "--max-ram", "2200"),
            *("--html", str(page), "--json"),
        ],
    )
    assert done.exit_code == 1, done.stderr
    return Report(page, json.loads(done.stdout), json.loads(made.stdout))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


def at(document: Any, path: str) -> Any:
    """The value that a path such as `targets.0.layers.3.cycles` has in the JSON."""
    for key in path.split("."):
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_it_renders_without_a_complaint_and_asks_nothing_of_the_network(
    chromium: Browser, report: Report, width: int, dark: bool
) -> None:
    chromium.look(width=width, dark=dark)
    chromium.open(report.page)
    assert chromium.complaints == []
    assert chromium.requests == [report.page.resolve().as_uri()]
    assert chromium.evaluate("document.querySelectorAll('main section').length") == 6 + 1
    assert chromium.evaluate("document.documentElement.scrollWidth <= innerWidth")
    background = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, background[4:-1].split(","))) < 64) == dark


def test_its_figures_are_those_of_the_json(chromium: Browser, report: Report) -> None:
    chromium.open(report.page)
    figures = chromium.evaluate(
        "[...document.querySelectorAll('data[data-field]')]"
        ".map(e => [e.dataset.field, e.value, e.textContent])"
    )
    assert len(figures) > 200
    for path, value, text in figures:
        wanted = at(report.document, path)
        if wanted is None:
            assert (value, text) == ("", "–")
            continue
        assert float(value) == wanted, path
        if isinstance(wanted, int):
            assert text == f"{wanted:,}", path
    paths = {path for path, _, _ in figures}
    for i, target in enumerate(report.document["targets"]):
        assert {f"targets.{i}.{key}" for key in ("flash_bytes", "ram_bytes")} <= paths
        assert f"targets.{i}." + ("instructions" if target["cycles"] is None else "cycles") in paths
        for j in range(len(target["layers"])):
            keys = ("macs", "flash_bytes", "arena_bytes", "share", "cycles_per_mac")
            assert {f"targets.{i}.layers.{j}.{key}" for key in keys} <= paths


def test_every_latency_is_shown_with_its_band(chromium: Browser, report: Report) -> None:
    chromium.open(report.page)
    cards = chromium.evaluate("[...document.querySelectorAll('.card')].map(e => e.innerText)")
    assert "±8 % (modelled; validated on 8 published results)" in cards[0]
    assert "modelled; unvalidated" in cards[1]
    assert "modelled; unvalidated" in cards[2]


def test_verdict_and_advice_are_those_of_the_json(chromium: Browser, report: Report) -> None:
    chromium.open(report.page)
    cards = chromium.evaluate("[...document.querySelectorAll('.card')].map(e => e.innerText)")
    for card, target in zip(cards, report.document["targets"], strict=True):
        plain = " ".join(card.replace("\N{NO-BREAK SPACE}", " ").split())
        assert "Does not fit" in plain
        assert target["why"][1:] in plain
        assert target["advice"]
        assert all(entry["text"][1:] in plain for entry in target["advice"])


def test_accuracy_is_that_of_compress(chromium: Browser, report: Report) -> None:
    chromium.open(report.page)
    shown = chromium.evaluate("[...document.querySelectorAll('data[data-stage]')].map(e => Number(e.value))")
    assert shown == [stage["value"] for stage in report.compression["stages"]]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_text_and_graphics_have_the_contrast_of_wcag_aa(
    chromium: Browser, report: Report, width: int, dark: bool
) -> None:
    chromium.look(width=width, dark=dark)
    chromium.open(report.page)
    chromium.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    found = chromium.evaluate(CONTRAST)
    assert found["texts"] > 200
    assert found["bad"] == []
    # What looks for bad contrast does see it.
    faint = "#5a6068" if dark else "#909090"
    chromium.evaluate(f"document.documentElement.style.setProperty('--soft', '{faint}'); 0")
    assert chromium.evaluate(CONTRAST)["bad"]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_keyboard_reaches_everything_and_sorts(chromium: Browser, report: Report, width: int) -> None:
    chromium.look(width=width)
    chromium.open(report.page)
    chromium.press("Tab")
    assert chromium.evaluate("document.activeElement.className") == "skip"
    assert chromium.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    seen = []
    for _ in range(200):
        chromium.press("Tab")
        name = chromium.evaluate(
            "document.activeElement.innerText.trim() || document.activeElement.className"
        )
        if name == "Cycles" and chromium.evaluate("document.activeElement.tagName") == "BUTTON":
            break
        seen.append(name)
    assert "Network" in seen
    read = (
        "[...document.querySelector('table.layers').tBodies[0].rows]"
        ".map(r => Number(r.querySelector('[data-field$=cycles]').value))"
    )
    before = chromium.evaluate(read)
    chromium.press("Enter")
    assert chromium.evaluate(read) == sorted(before, reverse=True) != before
    header = "document.activeElement.closest('th').getAttribute('aria-sort')"
    assert chromium.evaluate(header) == "descending"
    chromium.press("Enter")
    assert chromium.evaluate(read) == sorted(before)
    assert chromium.evaluate(header) == "ascending"


@pytest.mark.parametrize("width", WIDTHS)
def test_a_screen_reader_finds_tables_pictures_and_headings(
    chromium: Browser, report: Report, width: int
) -> None:
    chromium.look(width=width)
    chromium.open(report.page)
    tree = chromium.send("Accessibility.getFullAXTree")["nodes"]
    nodes = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in tree if not n["ignored"]]
    # On a phone the rows are laid out as cards and stay a table all the same.
    assert ("table", "ST NUCLEO-L4R5ZI") in nodes
    assert sum(role == "rowheader" for role, _ in nodes) >= 11
    assert any(role == "image" and name.startswith("Memory plan with") for role, name in nodes)
    assert {"main", "banner", "navigation"} <= {role for role, _ in nodes}
    assert sum(role == "region" for role, _ in nodes) >= 7
    levels = [
        int(p["value"]["value"])
        for n in tree
        if not n["ignored"] and n["role"]["value"] == "heading"
        for p in n["properties"]
        if p["name"] == "level"
    ]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_a_script_that_is_not_the_page_s_own_is_refused(chromium: Browser, report: Report) -> None:
    chromium.open(report.page)
    assert chromium.evaluate("document.querySelectorAll('th button').length") > 0
    chromium.evaluate(
        "const s = document.createElement('script'); s.textContent = 'window.owned = 1';"
        " document.body.append(s); 0"
    )
    assert chromium.evaluate("typeof window.owned") == "undefined"
    assert any("Content Security Policy" in c for c in chromium.complaints)


def test_hostile_names_are_shown_and_do_nothing(chromium: Browser, tmp_path: Path) -> None:
    graph = api.load_model(FIXTURES / "digits_int8.tflite").graph
    path = tmp_path / "evil.tflite"
    path.write_bytes(write_tflite(renamed(graph, HOSTILE)))
    page = tmp_path / "evil.html"
    done = CliRunner().invoke(
        cli, ["profile", str(path), "--target", "cortex-m4", "--html", str(page), "--json"]
    )
    assert done.exit_code == 0, done.stderr
    chromium.open(page)
    assert chromium.complaints == []
    assert chromium.requests == [page.resolve().as_uri()]
    assert "owned" not in chromium.evaluate("document.title")
    assert HOSTILE in chromium.evaluate("document.querySelector('#network').textContent")


def test_printing_opens_what_is_folded(chromium: Browser, report: Report) -> None:
    chromium.open(report.page)
    assert chromium.evaluate("document.querySelectorAll('details:not([open])').length") > 0
    chromium.evaluate("dispatchEvent(new Event('beforeprint')); 0")
    assert chromium.evaluate("document.querySelectorAll('details:not([open])').length") == 0
