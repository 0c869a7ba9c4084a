"""`package.module:name`: the user's own Python, named on the command line."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinydeploy.errors import DeployError


def load_hook(reference: str, purpose: str) -> Callable[..., Any]:
    """Imports what `package.module:name` names; the working directory is searched too.

    Importing runs the module. It is the user's own, named by the user, and no file can name one.

    Raises:
        DeployError: the reference has another form, the module or the name does not exist, or importing it
            raises.
    """
    module_name, colon, attribute = reference.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise DeployError(
            f"is not of the form package.module:name, which names {purpose}", where=reference or '""'
        )
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise DeployError(
            f"cannot be imported ({type(error).__name__}: {error})",
            where=reference,
            hint="the working directory and the installed packages are searched",
        ) from error
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise DeployError(f"is no function or class, and {purpose} is called", where=reference)
    result: Callable[..., Any] = found
    return result
