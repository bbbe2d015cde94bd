"""A `Chromium` is the system's headless browser, driven over its DevTools protocol: a page is shown, read and typed into."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

PROGRAM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
KEYS = {"Tab": 9, "Enter": 13, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
WAIT_S = 30.0


class Chromium:
    """A `Chromium` has one tab, and runs as long as its `with` lasts.

    Attributes:
        complaints: what the console, the network and the page's own script complained of, since `forget`.
    """

    def __init__(self, folder: Path) -> None:
        """Keep where the browser's profile lies."""
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._stack = contextlib.AsyncExitStack()
        self._number = 0
        self.complaints: list[str] = []

    def __enter__(self) -> Chromium:
        assert PROGRAM is not None
        options = ["--headless=new", "--remote-debugging-port=0", f"--user-data-dir={self._folder}", "--disable-gpu",
                   "--no-first-run", "--disable-dev-shm-usage", "--disable-background-networking", "--hide-scrollbars"]  # fmt: skip
        if os.geteuid() == 0:  # its sandbox is not for root
            options.append("--no-sandbox")
        self._process = subprocess.Popen(
            [PROGRAM, *options, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._loop.run_until_complete(self._connect())
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._stack.aclose())
        self._loop.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    async def _connect(self) -> None:
        import aiohttp

        told = self._folder / "DevToolsActivePort"
        end = time.monotonic() + WAIT_S
        while not (told.exists() and "\n" in told.read_text()):
            assert self._process.poll() is None, "chromium ended at its start"
            assert time.monotonic() < end, "chromium did not start"
            await asyncio.sleep(0.05)
        port = told.read_text().splitlines()[0]
        session = await self._stack.enter_async_context(aiohttp.ClientSession())
        async with session.get(f"http://127.0.0.1:{port}/json/list") as reply:
            tabs = await reply.json(content_type=None)
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        self._socket = await self._stack.enter_async_context(session.ws_connect(address, max_msg_size=0))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the result of a method of the protocol."""
        found: dict[str, Any] = self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), WAIT_S))
        return found

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        number = self._number
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message.get('error')}"
                result: dict[str, Any] = message["result"]
                return result
            self._heard(message)

    def _heard(self, event: dict[str, Any]) -> None:
        told = event.get("params", {})
        if event["method"] == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"].get("exception", told["exceptionDetails"])))
        elif event["method"] == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(told["args"]))
        elif event["method"] == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")

    def forget(self) -> None:
        self.complaints.clear()

    def open(self, url: str, width: int = 1400, height: int = 1000, *, dark: bool = False) -> None:
        """Show a page in a window of this size."""
        self.look(width, height, dark=dark)
        self.call("Page.navigate", url="about:blank")  # the page of before asks its server no more, which may be gone
        self.until("location.href === 'about:blank'")
        self.forget()
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def look(self, width: int, height: int = 1000, *, dark: bool = False) -> None:
        """Make the window this large, and the system's colours light or dark."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def read(self, script: str) -> Any:
        """Return what an expression of JavaScript gives, as JSON."""
        said = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def text(self, selector: str) -> str:
        """Return the text of the first element that is selected, as it is shown."""
        found = self.read(f"document.querySelector({json.dumps(selector)})?.innerText")
        assert found is not None, f"nothing is selected by {selector}"
        return str(found)

    def until(self, script: str, seconds: float = WAIT_S) -> None:
        """Wait until an expression is true; fail when it is not in time."""
        end = time.monotonic() + seconds
        while not self.read(f"!!({script})"):
            assert time.monotonic() < end, f"not within {seconds:g} s: {script}\n{self.read('document.body.innerText')}"
            time.sleep(0.05)

    def press(self, key: str, times: int = 1, *, control: bool = False) -> None:
        """Press a key of `KEYS`, alone or with Ctrl."""
        for _ in range(times):
            known = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": 2 if control else 0}
            self.call("Input.dispatchKeyEvent", type="keyDown", **known, **({"text": "\r"} if key == "Enter" else {}))
            self.call("Input.dispatchKeyEvent", type="keyUp", **known)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def tab_to(self, id: str) -> None:
        """Go to an element by the keyboard alone."""
        for _ in range(60):
            if self.read("document.activeElement.id") == id:
                return
            self.press("Tab")
        raise AssertionError(f"Tab does not reach #{id}")

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Write a PNG of the page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._whole(whole))
        path.write_bytes(base64.b64decode(data["data"]))

    def _whole(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}
