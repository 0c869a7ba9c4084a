"""Changes that leave the network as it is: another --optimize, coded codebooks, and weights in RAM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tinydeploy.advice.change import Advice, Trial, effect_text
from tinydeploy.backends.c.coded import AUTO, PACKED
from tinydeploy.backends.c.model import Model
from tinydeploy.backends.c.project import lower_project
from tinydeploy.errors import DeployError
from tinydeploy.measure import OPTIMIZE_LEVELS, Measurement
from tinydeploy.verdict import Need, Verdict


@dataclass(frozen=True)
class Setting:
    """An --optimize that was tried."""

    name: str
    advice: Advice
    measurement: Measurement


def other_settings(trial: Trial, before: Measurement, found: Verdict) -> Iterator[Setting]:
    """Every --optimize that gives another firmware and needs less of what is over, as built and run."""
    options = trial.job.options
    seen = {_firmware(before.project.model, options.optimize)}
    for setting in OPTIMIZE_LEVELS:
        try:
            lowered = lower_project(trial.job.graph, replace(options, optimize=setting))
            if _firmware(lowered, setting) in seen:
                continue
            seen.add(_firmware(lowered, setting))
            m = trial.measure(options=replace(options, optimize=setting))
        except DeployError:
            # Advice must not end a profile that has an answer.
            continue
        after = trial.judge(m)
        if after.fits or any(_less(n, after) for n in found.over):
            text = f"--optimize {setting}: {effect_text(found, after)}{_price(before, m)}"
            advice = Advice("optimize", bool(after.fits), text, f"--optimize {setting}", after)
            yield Setting(setting, advice, m)


def code_codebooks(trial: Trial, before: Measurement, found: Verdict) -> Advice | None:
    """Huffman-coded codebook indices, where flash is over and coding them saves some within the RAM."""
    if trial.job.options.codebooks != PACKED or not any(n.resource == "flash" for n in found.over):
        return None
    ram = trial.limits.on(trial.target.board).ram
    options = replace(trial.job.options, codebooks=AUTO, ram=ram)
    try:
        if lower_project(trial.job.graph, options).coding is None:
            return None
        m = trial.measure(options=options)
    except DeployError:
        # Advice must not end a profile that has an answer.
        return None
    after = trial.judge(m)
    if not any(n.resource == "flash" and _less(n, after) for n in found.over):
        return None
    option = f"--codebooks {AUTO}"
    becomes = "" if m.ram_bytes is None else f"; RAM becomes {m.ram_bytes:,} B"
    text = f"{option}: {effect_text(found, after)}{_price(before, m)}{becomes}"
    return Advice("codebooks", bool(after.fits), text, option, after)


def _firmware(model: Model, optimize: str) -> tuple[object, ...]:
    """What the machine code depends on."""
    kernels = tuple((layer.choice.name, layer.choice.scratch_bytes) for layer in model.layers)
    return OPTIMIZE_LEVELS[optimize], model.plan.arena_bytes, model.decoded_bytes, kernels


def _less(need: Need, after: Verdict) -> bool:
    return any(n.resource == need.resource and n.over < need.over for n in after.needs)


def _price(before: Measurement, after: Measurement) -> str:
    """What the change costs in cycles, or in instructions where there are none."""
    for what, old, new in (
        ("cycles", before.latency.cycles, after.latency.cycles),
        ("instructions", before.instructions, after.instructions),
    ):
        if old and new is not None:
            return f"; {100 * abs(new / old - 1):.1f} % {'more' if new >= old else 'fewer'} {what}"
    return ""


def move_weights(trial: Trial, before: Measurement, found: Verdict) -> Advice | None:
    """Weights in RAM, where only the latency is over and the RAM has room for them."""
    moved = before.weights_in_ram
    if moved is None or not moved.fits or [need.resource for need in found.over] != ["latency"]:
        return None
    ram = trial.limits.on(trial.target.board).ram
    amounts = {"RAM": float(moved.ram_bytes), "latency": moved.latency.latency_ms}
    needs = tuple(replace(n, amount=amounts.get(n.resource, n.amount)) for n in found.needs)
    fits = not any(need.over > 0 for need in needs)
    after = Verdict(fits, "", needs)
    if moved.saved <= 0 or (ram is not None and moved.ram_bytes > ram):
        return None
    text = f"the weights in RAM: {effect_text(found, after)}; RAM becomes {moved.ram_bytes:,} B"
    return Advice("weights-in-ram", fits, text, "", after)
