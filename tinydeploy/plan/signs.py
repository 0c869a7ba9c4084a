"""The kernels of layers whose activations and weights are signs: when they apply, scratch and cost."""

from __future__ import annotations

from tinydeploy.ir.forms import Planes, Signs
from tinydeploy.ir.op import Site
from tinydeploy.ops import Conv2D, FullyConnected
from tinydeploy.plan.cost import signs_cycles
from tinydeploy.plan.dsp import DspKernel
from tinydeploy.plan.forms import Linear

SIGNS = "signs"

_WORD = 32


def signs_kernels(op: Linear, site: Site) -> list[DspKernel]:
    """The kernel for signs times signs, on any core; none where activations or weights are something else."""
    x, form = site.input(0), site.input(1).form
    if not isinstance(op, Conv2D | FullyConnected) or not isinstance(form, Planes):
        return []
    if not isinstance(x.form, Signs):
        return []
    words, planes = patch_words(site), len(form.signs) * (2 if form.ternary else 1)
    pixels = site.output.elements // site.output.shape[-1]
    cycles = signs_cycles(site.output.elements * words * planes, site.output.elements, pixels * _WORD * words)
    if packs_image(op, site):
        # What is packed is read no more: the output may lie anywhere over the input.
        alone = x.shape[0] == 1
        scratch = 4 * words + x.elements // 8
        lead = 0 if alone else None
        return [DspKernel(SIGNS, scratch, in_place=alone, lead=lead, cycles=cycles)]
    straight = isinstance(op, FullyConnected) or (site.input(1).shape[1:3] == (1, 1) and op.padding.none)
    groups = op.groups(site) if isinstance(op, Conv2D) else 1
    patch = 0 if straight and groups == 1 else depth(site)
    return [DspKernel(SIGNS, 4 * words + patch, cycles=cycles)]


def packs_image(op: Conv2D | FullyConnected, site: Site) -> bool:
    """Whether each activation is packed once: a pixel's channels are whole words, and read more than once."""
    if isinstance(op, FullyConnected) or op.groups(site) > 1 or site.input(0).shape[3] % _WORD:
        return False
    return site.input(1).shape[1:3] != (1, 1) or not op.padding.none


def depth(site: Site) -> int:
    """Products of one output."""
    weights = site.input(1)
    return weights.elements // weights.shape[0]


def patch_words(site: Site) -> int:
    """Words of the signs of a patch."""
    return -(-depth(site) // _WORD)
