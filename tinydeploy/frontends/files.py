"""Reading a model's file, with the limit on its size."""

from __future__ import annotations

from pathlib import Path

from tinydeploy.errors import DeployError
from tinydeploy.ir.limits import MAX_FILE_BYTES


def read_bytes(path: Path) -> bytes:
    """The bytes of a file of at most MAX_FILE_BYTES.

    Raises:
        DeployError: the file cannot be read, or is larger.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise DeployError(f"has {size} bytes; the limit is {MAX_FILE_BYTES}", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise DeployError(
            f"cannot be read ({error.strerror or error})", where=str(path), hint="check the path"
        ) from None
