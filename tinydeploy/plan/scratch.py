"""Working memory that a layer's kernel needs beside its input and output."""

from __future__ import annotations

from tinydeploy.ir.op import Op, Site
from tinydeploy.ops import Conv2D


def needs_gather(op: Conv2D, site: Site) -> bool:
    """Whether some patch is not in the input as runs of rows: padding, dilated columns or groups."""
    return not op.padding.none or op.groups(site) > 1 or (op.dilations[1] > 1 and site.input(1).shape[2] > 1)


def scratch_bytes(op: Op, site: Site) -> int:
    """Bytes of scratch of the portable kernel; one gathered patch for a convolution, else none."""
    if isinstance(op, Conv2D) and needs_gather(op, site):
        _, kh, kw, channels = site.input(1).shape
        return kh * kw * channels
    return 0
