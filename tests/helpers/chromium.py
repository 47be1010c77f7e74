"""A page in headless Chromium: what a script finds there, and what the console says."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_PROBE = """<script>
addEventListener("load", () => {
  const found = (() => { %s })();
  const place = document.createElement("pre");
  place.id = "found";
  place.textContent = JSON.stringify(found);
  document.body.append(place);
});
</script>"""


def run_in_page(page: Path, script: str) -> tuple[Any, list[str]]:
    """Open a copy of a page from disk; return what a script in it returns, and the lines of the console.

    The script is the body of a function, which is called when the page is loaded.
    """
    assert BROWSER is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / "index.html"
        copy.write_text(page.read_text("utf-8").replace("</body>", f"{_PROBE % script}</body>"), "utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
        command = [BROWSER, *flags, "--enable-logging=stderr", "--dump-dom", copy.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    match = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(match[1])) if match else None, console


class Tab:
    """A page in headless Chromium with real mouse and keys, over the DevTools protocol on a pipe.

    Use it as a context manager. `console` has what the page logs as errors and warnings, and what it throws.
    """

    def __init__(self, page: Path, *, size: tuple[int, int] = (1280, 900), dark: bool = False, at: str = "") -> None:
        assert BROWSER is not None
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        ours, theirs = os.pipe(), os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={self._folder.name}/profile"]
        # Chromium reads commands from descriptor 3, and answers on 4.
        command = f'exec 3<&{ours[0]} 4>&{theirs[1]}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", command, "chromium", BROWSER, *flags, "--remote-debugging-pipe"],
            pass_fds=(ours[0], theirs[1]),
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self._write, self._read = os.fdopen(ours[1], "wb"), os.fdopen(theirs[0], "rb")
        self._number, self._session, self._rest = 0, None, b""
        self.console: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.resize(*size)
        media = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=media)
        self.open(page.as_uri() + at)

    def __enter__(self) -> Tab:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._write.close()
        self._read.close()
        self._folder.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while (answer := self._next()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._read.fileno(), 1 << 20)
            assert part, "Chromium has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.console.append(str(parameters["exceptionDetails"].get("exception", {}).get("description")))
        elif event.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.console.append(str([one.get("value", one.get("description")) for one in parameters["args"]]))
        elif event.get("method") == "Log.entryAdded":
            self.console.append(parameters["entry"]["text"])

    def open(self, address: str) -> None:
        """Go to an address, and wait until it is loaded."""
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window, in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def ask(self, script: str) -> Any:
        """Return the value of an expression in the page; it may be a promise."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression holds, for a minute at most. A page that is loaded anew may lack what it names."""
        failed: AssertionError | None = None
        for _ in range(1200):
            try:
                if self.ask(condition):
                    return
            except AssertionError as error:
                failed = error
            time.sleep(0.05)
        raise AssertionError(f"never: {condition}") from failed

    def centre(self, selector: str) -> tuple[float, float]:
        """Scroll an element into view; return where its middle is."""
        return tuple(
            self.ask(
                f"""(() => {{
                    const element = document.querySelector({json.dumps(selector)});
                    element.scrollIntoView({{ block: "center" }});
                    const box = element.getBoundingClientRect();
                    return [box.left + box.width / 2, box.top + box.height / 2];
                }})()"""
            )
        )

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Send an event of the mouse: mouseMoved, mousePressed or mouseReleased."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, place: str | tuple[float, float], *, count: int = 1, alt: bool = False) -> None:
        """Click, or double click, on an element or a point."""
        x, y = self.centre(place) if isinstance(place, str) else place
        self.mouse("mouseMoved", x, y)
        for number in range(1, count + 1):
            more = {"button": "left", "clickCount": number, "modifiers": 1 if alt else 0}
            self.mouse("mousePressed", x, y, **more)
            self.mouse("mouseReleased", x, y, **more)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag with the mouse from one point to another."""
        self.mouse("mouseMoved", *start)
        self.mouse("mousePressed", *start, button="left", clickCount=1)
        for share in (0.3, 0.6, 1):
            x, y = (a + share * (b - a) for a, b in zip(start, end, strict=True))
            self.mouse("mouseMoved", x, y, button="left")
        self.mouse("mouseReleased", *end, button="left", clickCount=1)

    def press(self, key: str, *, alt: bool = False) -> None:
        """Press a key, such as ArrowRight; a single letter is typed."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "Home": 36, "End": 35, " ": 32}
        codes |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        more = {"key": key, "windowsVirtualKeyCode": codes.get(key, 0), "modifiers": 1 if alt else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", text="" if alt else text, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", **more)

    def screenshot(self, file: Path, *, whole: bool = False) -> None:
        """Write what the window shows, or the whole page, as PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        file.write_bytes(b64decode(found["data"]))
