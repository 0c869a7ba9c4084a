"""Goals on a target, ratios by layer, and the plot of the scan, from the command line."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from test_compress import compress, invoke

from tinydeploy.prune.sensitivity import Sensitivity, SensitivityPoint
from tinydeploy.report.sensitivity import sensitivity_svg

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("goal", "target", "key"),
    [
        ("latency=75%", "nucleo-l4r5zi", "latency_ms"),
        ("latency=2ms", "nucleo-l4r5zi", "latency_ms"),
        ("latency=75%", "cortex-m0plus", "cycles"),
        ("flash=90%", "cortex-m4", "flash_bytes"),
        ("ram=90%", "cortex-m4", "ram_bytes"),
    ],
)
def test_a_goal_is_kept_by_what_profile_measures(tmp_path: Path, goal: str, target: str, key: str) -> None:
    result = compress(tmp_path / "out", "--prune", goal, "--prune-divisor", "2", "--target", target, "--json")
    assert result.exit_code == 0, result.stderr
    reached = json.loads(result.stdout)["prune"]["reached"]
    profiled = invoke("profile", tmp_path / "out" / "model.tflite", "--target", target, "--json")
    measured = json.loads(profiled.stdout)["targets"][0][key]
    assert measured == pytest.approx(reached["after"], rel=1e-6)
    assert measured <= reached["allowed"] < reached["before"]
    # The limit is used: a network at half the cost would be too small.
    assert measured > 0.5 * reached["allowed"]


def test_a_target_without_a_clock_is_refused_before_anything_runs(tmp_path: Path) -> None:
    result = compress(tmp_path / "out", "--prune", "latency=8ms", "--target", "cortex-m4")
    assert result.exit_code == 2
    assert "cortex-m4 is a core without a clock" in result.stderr
    assert "latency=50%" in result.stderr
    assert not (tmp_path / "out").exists()


def test_ratios_by_layer_and_scope(tmp_path: Path) -> None:
    arguments = ("--prune", "0.25", "--prune-layer", "last=0.5", "--prune-layer", "deepen=0", "--json")
    report = json.loads(compress(tmp_path / "out", *arguments).stdout)
    assert {g["name"]: (g["before"], g["after"]) for g in report["prune"]["groups"]} == {
        "first": (8, 8),
        "widen": (16, 16),
        "last": (24, 12),
    }
    even = ("--prune", "macs=60%", "--prune-scope", "layer", "--prune-divisor", "1", "--json")
    report = json.loads(compress(tmp_path / "out", *even).stdout)
    left = [g["after"] / g["before"] for g in report["prune"]["groups"]]
    assert max(left) - min(left) <= 1 / 8
    assert report["after"]["macs"] <= 0.6 * report["before"]["macs"]


def test_cost_aware_ranking_reaches_the_goal_by_another_way(tmp_path: Path) -> None:
    reports = [
        json.loads(compress(tmp_path / "out", "--prune", "macs=60%", "--json", *more).stdout)
        for more in ((), ("--cost-aware",))
    ]
    assert reports[0]["prune"]["groups"] != reports[1]["prune"]["groups"]
    assert all(r["after"]["macs"] <= 0.6 * r["before"]["macs"] for r in reports)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--prune-layer", "first"), "NAME=RATIO"),
        (("--prune-layer", "=0.5"), "NAME=RATIO"),
        (("--prune-layer", "first=0.5", "--prune-layer", "first=0.25"), "two ratios"),
        (("--prune-layer", "nowhere=0.5"), "nowhere"),
        (("--prune-layer", "classify=0.5"), "must stay"),
        (("--prune", "0.5", "--protect", "nowhere"), "nowhere"),
        (("--prune", "0.5", "--importance", "bn"), "no batch norm"),
        (("--prune", "latency=50%", "--target", "host"), "host"),
    ],
)
def test_bad_requests_are_exit_2(tmp_path: Path, arguments: tuple[str, ...], word: str) -> None:
    result = compress(tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert word in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_scan_is_in_the_report_and_drawn_beside_it(tmp_path: Path) -> None:
    arguments = ("--prune", "auto", "--prune-divisor", "2", "--max-accuracy-drop", "0.05")
    result = compress(tmp_path / "out", *arguments)
    assert "sensitivity.svg" in result.stdout
    assert "12.5%" in result.stdout
    scan = json.loads((tmp_path / "out" / "report.json").read_text())["sensitivity"]
    assert {p["group"] for p in scan["points"]} == {"first", "widen", "last"}
    assert {p["ratio"] for p in scan["points"]} == {0.125, 0.25, 0.375, 0.5, 0.625, 0.75}
    root = ET.parse(tmp_path / "out" / "sensitivity.svg").getroot()
    titles = [t.find(f"{SVG}title") for t in root.iter(f"{SVG}text") if t.get("class") == "name"]
    assert [t.text for t in titles if t is not None] == ["first", "widen", "last"]
    assert compress(tmp_path / "out", "--prune", "0.5").exit_code == 0
    assert not (tmp_path / "out" / "sensitivity.svg").exists(), "the plot of another run stayed"


def test_the_plot_puts_each_point_where_its_numbers_say() -> None:
    points = (SensitivityPoint("a<b", 0.5, 0.45, 10, 4), SensitivityPoint("a<b", 0.75, 0.0, 5, 2))
    text = sensitivity_svg(Sensitivity(0.9, points), [("a<b", 8, 4)], "accuracy", "m & n")
    root = ET.fromstring(text)
    assert not [e for e in root.iter() if e.tag.endswith(("script", "image"))]
    assert "prefers-color-scheme: dark" in text
    dots = [(float(d.get("cx", "")), float(d.get("cy", ""))) for d in root.iter(f"{SVG}circle")]
    lines = list(root.iter(f"{SVG}line"))
    left, right = float(lines[0].get("x1", "")), float(lines[0].get("x2", ""))
    floor = max(float(e.get("y1", "")) for e in lines if e.get("class") == "grid")
    (base,) = (float(e.get("y1", "")) for e in lines if e.get("class") == "base")
    assert [(x - left) / (right - left) for x, _ in dots] == pytest.approx([0.0, 0.5, 0.75], abs=1e-3)
    # The unpruned network on the dashed line, half its accuracy half way down, none on the floor.
    assert [(floor - y) / (floor - base) for _, y in dots] == pytest.approx([1.0, 0.5, 0.0], abs=1e-2)
    (mark,) = (float(e.get("x1", "")) for e in lines if e.get("class") == "mark")
    assert mark == dots[1][0]


def test_the_plot_of_an_error_has_an_axis_of_its_own() -> None:
    points = (SensitivityPoint("a", 0.5, -0.0031, 10, 4),)
    text = sensitivity_svg(Sensitivity(-0.0002, points), [("a", 8, 8)], "mse", "m")
    assert "minus mse" in text
    assert 'class="mark"' not in text
    assert "%" not in "".join(
        t.text or "" for t in ET.fromstring(text).iter(f"{SVG}text") if t.get("y") == "43"
    )


def test_a_hostile_name_leaves_the_plot_readable() -> None:
    name = "a\x00]]>\x1b\ud800</svg>"
    text = sensitivity_svg(
        Sensitivity(0.9, (SensitivityPoint(name, 0.5, 0.4, 1, 4),)), [(name, 8, 8)], "accuracy", name
    )
    ET.fromstring(text.encode())
