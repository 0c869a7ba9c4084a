"""tinydeploy takes a trained neural network to a microcontroller.

The functions of the command line, for a notebook: `load_model` and `from_torch`, `compress`, `diff`,
`export_c`, `verify`, `profile`, `evaluate` and `analyze`; `tinydeploy.api` documents each. What goes wrong
is a `DeployError`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinydeploy.api import (
        DeployError,
        analyze,
        compress,
        diff,
        evaluate,
        export_c,
        from_torch,
        load_model,
        profile,
        verify,
    )

__version__ = "0.1.0"

__all__ = [
    "DeployError",
    "__version__",
    "analyze",
    "compress",
    "diff",
    "evaluate",
    "export_c",
    "from_torch",
    "load_model",
    "profile",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Loads the API when it is first used, so that `tinydeploy --help` need not wait for numpy."""
    if name in __all__:
        return getattr(importlib.import_module("tinydeploy.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
