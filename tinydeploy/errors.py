"""The only exceptions that a user of tinydeploy is meant to see."""

from __future__ import annotations


class DeployError(Exception):
    """Bad input or a fact about it that stops the work; the command line exits with 2.

    Args:
        fact: what is wrong, as one sentence without a full stop.
        where: the file, layer or tensor it was found in, or "" where there is none.
        hint: what the user can do about it, or "" where nothing is known.
    """

    def __init__(self, fact: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(fact)
        self.fact = fact
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.fact}" if self.where else self.fact
        return f"{text}\n  hint: {self.hint}" if self.hint else text


class MissingExtraError(DeployError):
    """A command needs packages that only an optional extra installs."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"the package {package!r} is not installed, and {purpose} needs it",
            hint=f"pip install 'tinydeploy[{extra}]'",
        )
        self.extra = extra
