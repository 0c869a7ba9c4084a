"""A headless Chromium, driven over its pipe: pages, what they ask of the network, what they complain of."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
_SECONDS = 60.0


def why_not() -> str | None:
    """Why no browser can be run, or None."""
    if any(shutil.which(name) for name in NAMES) and shutil.which("bash"):
        return None
    return "no headless Chromium is on PATH (apt-get install chromium)"


class Browser:
    """One page of one browser, over the DevTools protocol.

    Attributes:
        complaints: console messages of level warning or error, exceptions, and refused resources.
        requests: every URL that was asked for.
    """

    def __init__(self, command: list[str]) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._buffer, self._count = b"", 0
        self._replies: dict[int, dict[str, Any]] = {}
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        # The protocol is on descriptors 3 and 4, which only a shell can put there.
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "browser", *command],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.send(f"{domain}.enable")
        self.requests.clear()

    _session: str | None = None

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its result."""
        self._count += 1
        number = self._count
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + _SECONDS
        while number not in self._replies:
            self._receive(end)
        reply = self._replies.pop(number)
        assert "error" not in reply, f"{method}: {reply['error']}"
        return dict(reply["result"])

    def open(self, path: Path) -> None:
        """Opens a file and waits until it is loaded."""
        self.complaints.clear()
        self.requests.clear()
        self.send("Page.navigate", url=path.resolve().as_uri())
        end = time.monotonic() + _SECONDS
        while self.evaluate("document.readyState") != "complete" and time.monotonic() < end:
            time.sleep(0.05)

    def look(self, *, width: int, dark: bool = False, height: int = 900) -> None:
        """Sets the window's width and the colours that the user prefers."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        reply = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def press(self, key: str) -> None:
        """Presses a key."""
        codes = {"Tab": (9, ""), "Enter": (13, "\r")}
        code, text = codes[key]
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG file."""
        data = self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
        os.close(self._write)
        os.close(self._read)

    def _receive(self, end: float) -> None:
        ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
        data = os.read(self._read, 1 << 20) if ready else b""
        assert data, "the browser does not answer"
        *messages, self._buffer = (self._buffer + data).split(b"\0")
        for message in messages:
            self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._replies[message["id"]] = message
            return
        method, parameters = message["method"], message["params"]
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif (
            method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert")
        ) or (method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning")):
            self.complaints.append(str(parameters))


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a profile of its own, gone at the end."""
    program = next(found for name in NAMES if (found := shutil.which(name)))
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        command = [
            *(program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--no-first-run", "--disable-background-networking", "--remote-debugging-pipe"),
            f"--user-data-dir={folder}",
        ]
        found = Browser(command)
        try:
            yield found
        finally:
            found.close()
