"""What would make a model fit: every answer holds when it is built again, and none is larger than needed."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from sweeps import thinned

from tinydeploy import api
from tinydeploy.advice import Advice, Trial, advise
from tinydeploy.advice.predict import Predictor
from tinydeploy.advice.pruning import Cutter
from tinydeploy.backends.c.project import ExportOptions
from tinydeploy.data import random_samples
from tinydeploy.measure import Job, Measurement
from tinydeploy.prune import find_groups, importance, remove, select_by_ratio
from tinydeploy.targets import load_target
from tinydeploy.verdict import Limits, judge

MODEL = Path(__file__).resolve().parent.parent.parent / "fixtures" / "digits" / "digits_int8.tflite"
BOARD = "nucleo-l4r5zi"


def trial(limits: Limits, optimize: str = "latency") -> Trial:
    target = load_target(BOARD)
    graph = api.load_model(MODEL).graph
    options = ExportOptions("digits", BOARD, optimize, "0" * 64, target.core.dsp)
    job = Job(graph, options, target.core, None, target.board)
    return Trial(job, target, limits, random_samples(graph, 1, 0))


@cache
def whole() -> Measurement:
    return api.profile(api.load_model(MODEL), [BOARD]).targets[0].measurement


@cache
def advice_for(limits: Limits) -> tuple[Trial, tuple[Advice, ...]]:
    t = trial(limits)
    found = judge(whole(), t.target, limits)
    assert found.over
    return t, advise(t, whole(), found)


def ram() -> int:
    assert whole().ram_bytes is not None
    return int(whole().ram_bytes or 0)


def cut_again(t: Trial, advice: Advice) -> Measurement:
    """The advice followed by hand: as many channels of each group as it says are left."""
    cutter = Cutter(t.job.graph)
    groups = {g.layers: g for g in cutter.groups.groups}
    layers = {layer.node.name: layer for layer in whole().project.model.layers}
    gone: set[int] = set()
    for width in advice.widths:
        named = next(
            g
            for names, g in groups.items()
            if tuple(f"{layers[n].index} {layers[n].node.op.kind.lower()}" for n in names) == width.layers
        )
        assert len(named.channels) == width.before
        gone.update(c.root for c in named.channels[: width.before - width.after])
    return t.measure(graph=remove(t.job.graph, cutter.groups, frozenset(gone)))


@pytest.mark.slow
@pytest.mark.parametrize("limit", thinned([0.8, 0.97, 0.6], 3))
def test_a_cut_for_ram_fits_when_it_is_made_again(limit: float) -> None:
    t, found = advice_for(Limits(ram=int(ram() * limit)))
    cuts = [a for a in found if a.kind == "prune"]
    assert cuts
    for advice in cuts:
        assert advice.fits
        assert judge(cut_again(t, advice), t.target, t.limits).fits
    assert f"ram={t.limits.ram}" in cuts[0].command or "--prune 0." in cuts[0].command


@pytest.mark.slow
def test_a_cut_of_one_step_less_does_not_fit() -> None:
    t, found = advice_for(Limits(ram=int(ram() * 0.8)))
    even = [a for a in found if a.kind == "prune"][-1]
    less = replace(even, widths=tuple(replace(w, after=min(w.before, w.after + 4)) for w in even.widths))
    assert judge(cut_again(t, less), t.target, t.limits).fits is False


@pytest.mark.slow
def test_a_tighter_limit_leaves_no_more() -> None:
    left = []
    for limit in (0.97, 0.8, 0.6):
        _, found = advice_for(Limits(ram=int(ram() * limit)))
        left.append(max(a.macs_left for a in found if a.kind == "prune"))
    assert left == sorted(left, reverse=True)
    assert left[-1] < left[0]


@pytest.mark.slow
def test_another_setting_stands_before_pruning() -> None:
    flash = whole().sizes
    assert flash is not None
    t, found = advice_for(Limits(flash=flash.flash - 64))
    assert found[0].kind == "optimize"
    assert found[0].fits
    setting = found[0].command.removeprefix("--optimize ")
    again = t.measure(options=replace(t.job.options, optimize=setting))
    assert judge(again, t.target, t.limits).fits
    assert again.sizes is not None
    assert f"{again.sizes.flash:,} B" in found[0].text


@pytest.mark.slow
def test_weights_in_ram_are_an_answer_to_latency() -> None:
    moved = whole().weights_in_ram
    assert moved is not None
    assert moved.latency.latency_ms is not None
    _, found = advice_for(Limits(latency_ms=moved.latency.latency_ms * 1.001))
    (advice,) = [a for a in found if a.kind == "weights-in-ram"]
    assert advice.fits
    assert f"{moved.ram_bytes:,} B" in advice.text
    _, found = advice_for(Limits(latency_ms=moved.latency.latency_ms * 0.999))
    assert not [a for a in found if a.kind == "weights-in-ram" and a.fits]


@pytest.mark.slow
def test_a_cut_for_latency_is_confirmed_by_the_modelled_cycles() -> None:
    milliseconds = whole().latency.latency_ms
    assert milliseconds is not None
    t, found = advice_for(Limits(latency_ms=milliseconds / 2))
    cuts = [a for a in found if a.kind == "prune"]
    assert cuts
    for advice in cuts:
        again = cut_again(t, advice).latency.latency_ms
        assert again is not None
        assert again <= milliseconds / 2
    assert f"latency={milliseconds / 2:g}ms" in cuts[0].command or "--prune 0." in cuts[0].command


def test_the_command_for_all_groups_prunes_what_the_advice_says() -> None:
    t, found = advice_for(Limits(ram=int(ram() * 0.8)))
    (even,) = [a for a in found if "--prune 0." in a.command]
    match = re.search(r"--prune ([0-9.]+) ", even.command)
    assert match is not None
    groups = find_groups(t.job.graph)
    gone = select_by_ratio(groups, importance(t.job.graph, groups, "l2"), float(match[1]))
    left = [sum(c.root not in gone for c in g.channels) for g in groups.groups]
    assert left == [w.after for w in even.widths]


@pytest.mark.slow
def test_what_cannot_be_done_is_said_with_what_would_be_left() -> None:
    _, found = advice_for(Limits(ram=64))
    assert not any(a.fits for a in found)
    assert found[-1].kind == "none"
    assert re.search(r"it would still need RAM [\d,]+ B of 64 B", found[-1].text)


def test_arena_and_weights_are_predicted_exactly() -> None:
    t = trial(Limits(flash=1, ram=1, latency_ms=0.001))
    cutter = Cutter(t.job.graph)
    cut = cutter.cut(cutter.groups.groups, 16)
    assert cut is not None
    built = t.measure(graph=cut.graph)
    predicted = {n.resource: n.amount for n in Predictor(t, whole()).needs(cut.graph) or ()}
    assert built.ram_bytes is not None
    assert built.stack_bytes is not None
    assert whole().stack_bytes is not None
    assert predicted["RAM"] == built.ram_bytes - built.stack_bytes + whole().stack_bytes
    assert built.sizes is not None
    assert whole().sizes is not None
    # The compiler pads the structure that holds the weights.
    assert predicted["flash"] == pytest.approx(built.sizes.flash_weights + whole().sizes.flash_code, abs=32)
    corrected = Predictor(t, whole()).corrected(cut.graph, judge(built, t.target, t.limits))
    for need in corrected.needs(cut.graph) or ():
        real = {"RAM": built.ram_bytes, "flash": built.sizes.flash, "latency": built.latency.latency_ms}
        assert need.amount is not None
        assert need.amount >= (real[need.resource] or 0) * (1 - 1e-12)


def test_cuts_keep_the_divisor_and_an_eighth() -> None:
    cutter = Cutter(trial(Limits(ram=1)).job.graph)
    assert cutter.cut(cutter.groups.groups, 0) is None
    for step in range(1, 33):
        cut = cutter.cut(cutter.groups.groups, step)
        for group, keep in cut.widths if cut else ():
            size = len(group.channels)
            assert keep % 4 == 0
            assert max(4, size / 8) <= keep <= size
            assert keep >= size * (32 - step) / 32 - 1e-9 or keep >= size / 8
