"""A headless Chromium, driven over a pipe in the Chrome DevTools protocol; no package needed."""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
PATIENCE = 60.0  # seconds to wait for an answer
_FIRST_FREE = 10  # of our ends of the pipes: Chromium reads 3 and writes 4
MODIFIERS = {"shift": 8}
KEY_CODES = {"Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


class Browser:
    """One tab. Errors that the page raises are collected in `errors`."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._buffer = b""
        self._count = 0
        self._session: str | None = None
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        self._count += 1
        command = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        unsent = json.dumps(command).encode() + b"\0"
        while unsent:
            unsent = unsent[os.write(self._commands, unsent) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])
            self._note(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._answers], [], [], PATIENCE)[0]:
                raise TimeoutError(f"Chromium was silent for {PATIENCE:.0f} s")
            more = os.read(self._answers, 1 << 20)
            if not more:
                raise ConnectionError("Chromium ended")
            self._buffer += more
        message, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            details = event["params"]["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        if event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self.errors.append(event["params"]["entry"]["text"])

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["result"].get("description", answer["exceptionDetails"]))
        return answer["result"].get("value")

    def settle(self) -> None:
        """Wait until the page has drawn what it was told."""
        self.evaluate("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")

    def open(self, url: str, width: int, *, dark: bool = False, moving: bool = False) -> None:
        """Load a page anew, in a window of so many CSS pixels.

        Args:
            url: the page.
            width: of the window; its height is 900.
            dark: whether the reader's system is.
            moving: whether the reader's system lets things move.
        """
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        media = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "no-preference" if moving else "reduce",
        }
        features = [{"name": name, "value": value} for name, value in media.items()]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.mouse("Moved", 0, 0)  # out of the way of what is loaded
        # An address that was never open: one that differs in its hash alone would not load.
        file, _, hash_ = url.partition("#")
        new = f"?{self._count}"
        self.call("Page.navigate", url=f"{file}{new}#{hash_}")
        self._until(f"location.search === '{new}' && document.readyState === 'complete'")
        self.settle()

    def _until(self, condition: str) -> None:
        end = time.monotonic() + PATIENCE
        while not self.evaluate(condition):
            if time.monotonic() > end:
                raise TimeoutError(condition)
            time.sleep(0.01)

    def mouse(self, kind: str, x: float, y: float, held: bool = False) -> None:
        """A mouse event "Moved", "Pressed" or "Released" at CSS pixels of the window."""
        button = "left" if held or kind != "Moved" else "none"
        self.call(
            "Input.dispatchMouseEvent",
            type=f"mouse{kind}",
            x=x,
            y=y,
            button=button,
            buttons=int(held or kind == "Pressed"),
            clickCount=int(kind != "Moved"),
        )

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press at `start`, go to `end` in a few steps, release."""
        self.mouse("Moved", *start)
        self.mouse("Pressed", *start)
        for k in (1, 2, 3, 4):
            x, y = (a + (b - a) * k / 4 for a, b in zip(start, end, strict=True))
            self.mouse("Moved", x, y, held=True)
        self.mouse("Released", *end)
        self.settle()

    def swipe(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """The same with a finger."""
        self._touch("Start", start)
        for k in (1, 2, 3, 4):
            x, y = (a + (b - a) * k / 4 for a, b in zip(start, end, strict=True))
            self._touch("Move", (x, y))
        self._touch("End")
        self.settle()

    def _touch(self, kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": x, "y": y} for x, y in points]
        self.call("Input.dispatchTouchEvent", type=f"touch{kind}", touchPoints=places)

    def press(self, key: str, *modifiers: str, times: int = 1) -> None:
        """Press and release a key, such as "ArrowLeft"."""
        held = sum(MODIFIERS[name] for name in modifiers)
        code = KEY_CODES[key]
        event: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code, "modifiers": held}
        for _ in range(times):
            self.call("Input.dispatchKeyEvent", type="keyDown", **event)
            self.call("Input.dispatchKeyEvent", type="keyUp", **event)
        self.settle()

    def click(self, selector: str) -> None:
        """Click the middle of an element, scrolled into view."""
        x, y = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        self.mouse("Moved", x, y)
        self.mouse("Pressed", x, y)
        self.mouse("Released", x, y)
        self.settle()

    def type(self, selector: str, text: str) -> None:
        """Replace an input's content by typing."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).select()")
        self.call("Input.insertText", text=text)
        self.settle()

    def picture(self, path: Path) -> None:
        """Save the whole page as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser with a profile of its own."""
    assert CHROMIUM, "no chromium"
    theirs_in, commands = _pipe()
    answers, theirs_out = _pipe()
    quiet = os.open(os.devnull, os.O_RDWR)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = os.posix_spawn(
            CHROMIUM,
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, quiet, 1),
                (os.POSIX_SPAWN_DUP2, quiet, 2),
                (os.POSIX_SPAWN_DUP2, theirs_in, 3),
                (os.POSIX_SPAWN_DUP2, theirs_out, 4),
            ],
        )
        for end in (theirs_in, theirs_out, quiet):
            os.close(end)
        try:
            yield Browser(commands, answers)
        finally:
            os.close(commands)  # Chromium ends when nobody can command it
            _wait(process)
            os.close(answers)


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are out of the way of the numbers that Chromium wants."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


def _wait(process: int) -> None:
    end = time.monotonic() + 10
    while os.waitpid(process, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return
        time.sleep(0.02)
