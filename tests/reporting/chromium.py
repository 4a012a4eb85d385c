"""Drives a headless Chromium over the DevTools protocol: a page, its console, its keys."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import signal
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
_KEYS = {"Tab": 9, "Enter": 13, " ": 32, "ArrowDown": 40, "ArrowRight": 39}


class Tab:
    """One page. `console` holds what was written there, and every exception."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.console: list[str] = []
        self.number = 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events on the way are kept."""
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": params})
        while True:
            said = json.loads((await self.socket.receive(timeout=30)).data)
            self._keep(said)
            if said.get("id") == self.number:
                assert "error" not in said, said
                return said["result"]

    async def open(self, url: str, *, width: int = 1280, height: int = 900) -> None:
        """Go to a page and wait until it is loaded."""
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                        deviceScaleFactor=1, mobile=False)  # fmt: skip
        await self.call("Page.navigate", url=url)
        while await self.ask("document.readyState") != "complete":
            await asyncio.sleep(0.05)

    async def ask(self, expression: str) -> Any:
        """The value of an expression in the page."""
        done = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    async def press(self, *keys: str) -> None:
        """Press keys one after the other, as a keyboard would."""
        for key in keys:
            code = _KEYS.get(key, ord(key[0].upper()))
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            common = {"key": key, "windowsVirtualKeyCode": code, "nativeVirtualKeyCode": code}
            down = "keyDown" if text else "rawKeyDown"
            extra = {"text": text} if text else {}
            await self.call("Input.dispatchKeyEvent", type=down, **common, **extra)
            await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def tab_to(self, selector: str, most: int = 200) -> None:
        """Press Tab until the element has the focus."""
        for _ in range(most):
            if await self.ask(f"document.activeElement.matches({json.dumps(selector)})"):
                return
            await self.press("Tab")
        raise AssertionError(f"{selector} cannot be reached by Tab")

    async def picture(self, path: Path, *, whole: bool = True) -> None:
        """A screenshot, of the whole page unless told otherwise."""
        done = await self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(done["data"]))

    def _keep(self, said: dict[str, Any]) -> None:
        params = said.get("params", {})
        if said.get("method") == "Runtime.consoleAPICalled":
            self.console.append(str([a.get("value") for a in params["args"]]))
        elif said.get("method") == "Runtime.exceptionThrown":
            self.console.append(json.dumps(params["exceptionDetails"]))
        elif said.get("method") == "Log.entryAdded":
            self.console.append(params["entry"]["text"])


@asynccontextmanager
async def chromium(profile: Path):
    """A browser with one empty tab; it is gone when the block ends."""
    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port_file = profile / "DevToolsActivePort"
        for _ in range(200):
            if port_file.is_file() and port_file.read_text().count("\n"):
                break
            await asyncio.sleep(0.1)
        base = f"http://127.0.0.1:{port_file.read_text().splitlines()[0]}"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{base}/json/list") as answer:
                pages = [t for t in await answer.json() if t["type"] == "page"]
            async with session.ws_connect(
                pages[0]["webSocketDebuggerUrl"], max_msg_size=0
            ) as socket:
                yield Tab(socket)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
