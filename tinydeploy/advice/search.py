"""Tries what could make a model fit, the cheapest first."""

from __future__ import annotations

from dataclasses import replace

from tinydeploy.advice.change import Advice, Trial
from tinydeploy.advice.pruning import prune_to_fit, smallest_needs
from tinydeploy.advice.settings import Setting, code_codebooks, move_weights, other_settings
from tinydeploy.measure import Measurement, Progress, silent
from tinydeploy.verdict import Verdict


def advise(
    trial: Trial, before: Measurement, found: Verdict, *, progress: Progress = silent
) -> tuple[Advice, ...]:
    """What would make a model fit that does not.

    What suffices stands before what only helps; among equals what costs no accuracy stands first (another
    --optimize, the fastest one first, then coded codebooks and weights in RAM), and then pruning, which asks
    for training. Each entry was built and run.

    Args:
        before: the measurement that does not fit, and `found` the verdict on it.

    Returns:
        One entry of kind "none" at the end where nothing that was tried suffices.
    """
    if any(need.amount is None for need in found.over):
        return ()
    progress("trying other settings", 0, 2)
    settings = sorted(other_settings(trial, before, found), key=lambda s: s.measurement.instructions or 0)
    advice = [setting.advice for setting in settings]
    others = (code_codebooks(trial, before, found), move_weights(trial, before, found))
    advice += [entry for entry in others if entry is not None]
    progress("trying fewer channels", 1, 2)
    pruned = list(prune_to_fit(trial, before, found))
    if not pruned and not any(entry.fits for entry in advice):
        pruned = _with_a_setting(trial, settings)
    ordered = sorted([*advice, *pruned], key=lambda entry: not entry.fits)
    if any(entry.fits for entry in ordered):
        return tuple(ordered)
    left = smallest_needs(trial, before)
    text = "nothing that was tried makes it fit"
    if left:
        text += f": with an eighth of all prunable channels it would still need {left}"
    return (*ordered, Advice("none", False, text))


def _with_a_setting(trial: Trial, settings: list[Setting]) -> list[Advice]:
    """Pruning on top of the first setting with which it suffices."""
    for setting in settings:
        options = replace(trial.job.options, optimize=setting.name)
        changed = replace(trial, job=replace(trial.job, options=options))
        verdict = changed.judge(setting.measurement)
        option = f"--optimize {setting.name}"
        found = [
            replace(a, text=f"{option} and {a.text}", command=f"{a.command}, then {option}")
            for a in prune_to_fit(changed, setting.measurement, verdict)
        ]
        if found:
            return found
    return []
