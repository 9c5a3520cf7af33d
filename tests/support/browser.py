"""Chromium without a window, driven over its DevTools protocol, and what its pages complain of.

    with Browser(directory) as browser:
        page = browser.open("http://127.0.0.1:8000/")
        page.until("document.title === 'there'")

Rule: nothing sleeps to see whether something has happened: a condition is waited for, and how long
that may take is one number. The browser speaks to nobody but what its pages name.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from websockets.sync.client import ClientConnection, connect

PATIENCE = 60.0
"""Seconds for anything that takes well under one on an idle machine."""

POLL = 0.02

FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
    "--remote-debugging-port=0",
    # Several pages at once, of which each is to be as quick as one that is looked at.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
)


def chromium() -> str | None:
    """The browser, if it is here."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One browser, with nothing of anybody's in it.

    Args:
        directory: Where it puts what it keeps; nobody else's.
    """

    def __init__(self, directory: str) -> None:
        command = chromium()
        assert command is not None
        profile = os.path.join(directory, "profile")
        flags = [*FLAGS, f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")  # it has none for root
        self._process = subprocess.Popen(
            [command, *flags, "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": directory, "TMPDIR": directory},
        )
        self._open = ExitStack()
        self._pages: dict[str, Page] = {}
        self._last = 0
        try:
            self._socket = self._connect(os.path.join(profile, "DevToolsActivePort"))
        except BaseException:
            self.close()
            raise

    def _connect(self, path: str) -> ClientConnection:
        deadline = time.monotonic() + PATIENCE
        while True:
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    lines = file.read().split("\n")
                if len(lines) > 1:
                    url = f"ws://127.0.0.1:{lines[0]}{lines[1]}"
                    return self._open.enter_context(connect(url, max_size=None))
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("the browser does not start")
            time.sleep(POLL)

    def open(self, url: str) -> Page:
        """A new window with that page; it may not be loaded yet."""
        target = self.call("Target.createTarget", {"url": "about:blank", "newWindow": True})
        attach = {"targetId": target["targetId"], "flatten": True}
        page = Page(self, self.call("Target.attachToTarget", attach)["sessionId"])
        self._pages[page.session] = page
        for domain in ("Page", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        page.call("Page.navigate", {"url": url})
        return page

    def call(
        self, method: str, params: dict[str, Any] | None = None, session: str = ""
    ) -> dict[str, Any]:
        """A command's result; what else comes meanwhile is kept with its page.

        Raises:
            AssertionError: it failed, or there was no answer.
        """
        self._last += 1
        message = {"id": self._last, "method": method, "params": params or {}}
        if session:
            message["sessionId"] = session
        self._socket.send(json.dumps(message))
        while True:
            came: dict[str, Any] = json.loads(self._socket.recv(timeout=PATIENCE))
            if came.get("id") == self._last:
                if "error" in came:
                    raise AssertionError(f"{method}: {came['error']['message']}")
                result: dict[str, Any] = came["result"]
                return result
            if (page := self._pages.get(came.get("sessionId", ""))) is not None:
                page.heard(came["method"], came["params"])

    def close(self) -> None:
        """End it, with all its processes."""
        self._open.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Page:
    """A page in a window.

    Attributes:
        complaints: What its console has of errors and warnings, and its uncaught exceptions.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self.session = session
        self.complaints: list[str] = []
        self._browser = browser

    def call(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._browser.call(method, params, self.session)

    def heard(self, method: str, params: dict[str, Any]) -> None:
        """An event of this page."""
        if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(" ".join(str(one.get("value")) for one in params["args"]))
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            told = details.get("exception", {}).get("description", "")
            self.complaints.append(f"{details['text']} {told}")

    def value(self, expression: str) -> Any:
        """What JavaScript makes of it; of a promise, what it is kept with.

        Raises:
            AssertionError: it throws.
        """
        result = self.call(
            "Runtime.evaluate",
            {"expression": expression, "returnByValue": True, "awaitPromise": True},
        )
        if "exceptionDetails" in result:
            raise AssertionError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until that is true.

        Raises:
            AssertionError: it does not become so; with what the page shows.
        """
        deadline = time.monotonic() + PATIENCE
        while not self.value(f"Boolean({condition})"):
            if time.monotonic() > deadline:
                shown = self.value("document.body?.innerText.slice(0, 2000)")
                raise AssertionError(f"not so: {condition}\n{shown}\n{self.complaints}")
            time.sleep(POLL)

    def type(self, text: str) -> None:
        """Put text in where the focus is."""
        self.call("Input.insertText", {"text": text})

    def enter(self) -> None:
        """Press Enter."""
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        self.call("Input.dispatchKeyEvent", {"type": "keyDown", **key})
        self.call("Input.dispatchKeyEvent", {"type": "keyUp", **key})

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        """Another screen."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"features": [scheme]})

    def close(self) -> None:
        """Close its window."""
        self.call("Page.close")

    def picture(self) -> bytes:
        """What it looks like, a PNG."""
        data: str = self.call("Page.captureScreenshot", {"format": "png"})["data"]
        return base64.b64decode(data)
