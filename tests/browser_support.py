"""A visitor: opens a notebook in JupyterLab, runs it, moves controls, looks at the figures and at the console."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.jupyter_support import Lab, is_root, until

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Locator, Page, Response, WebSocket

BROWSERS = ("chromium", "chromium-browser")
# Chromium's own traffic and questions are switched off: the visit is to one address of this machine.
SWITCHES = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    *(["--no-sandbox"] if is_root() else []),
)
# In JavaScript: the code cells on the page and those of them that have run; the bytes of a picture, as a data: address.
CELLS = """() => {
    const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(prompt => prompt.textContent);
    return [prompts.length, prompts.filter(text => /^\\[\\d+\\]:$/.test(text)).length];
}"""
BYTES = """async picture => {
    const reader = new FileReader();
    const read = new Promise(done => { reader.onload = () => done(reader.result); });
    reader.readAsDataURL(await (await fetch(picture.src)).blob());
    return await read;
}"""


def missing() -> str:
    """Return what the browser test needs and this machine lacks, in words; empty if nothing."""
    if find_spec("playwright") is None:
        return "the package playwright (pip install playwright)"
    return "" if chromium() else "Chromium (Debian: apt-get install chromium)"


def chromium() -> str | None:
    """Return the path of Chromium, if there is one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Visit:
    """One notebook in one page. What goes wrong there is written down in ``errors``, whoever noticed it."""

    def __init__(self, page: Page, lab: Lab, screenshots: Path) -> None:
        self.page = page
        self.errors: list[str] = []
        self._cells = 0
        self._lab = lab
        self._screenshots = screenshots
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(f"page: {error}"))
        page.on("crash", lambda _: self.errors.append("page: crashed"))
        page.on("response", self._response)
        page.on("websocket", self._socket)

    def open(self, notebook: Path) -> None:
        """Open a notebook that JupyterLab serves; wait for all of it and for its kernel.

        A menu item chosen earlier makes JupyterLab ask which kernel is meant.
        """
        self._cells = sum(cell["cell_type"] == "code" for cell in json.loads(notebook.read_text())["cells"])
        self.page.goto(f"{self._lab.url}lab/tree/{notebook.name}?token={self._lab.token}")
        self._idle(90)
        self.until("all cells on the page", lambda: self.page.evaluate(CELLS)[0] == self._cells)

    def run_all(self, seconds: float) -> None:
        """Choose *Run All Cells* in the menu and wait until every cell has its number."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self.until("all cells to run", lambda: self.page.evaluate(CELLS) == [self._cells, self._cells], seconds)
        self._idle(30)

    def _idle(self, seconds: float) -> None:
        """Wait for the status bar's word on the kernel; the circle beside its name starts as idle without one."""
        self.page.get_by_text(re.compile(r"Python 3.*\| Idle$")).wait_for(timeout=1000 * seconds)

    def until(self, what: str, ask: Any, seconds: float = 30) -> Any:
        """As :func:`until`; what happens in the page is noticed in between."""
        return until(what, ask, seconds, wait=lambda pause: self.page.wait_for_timeout(1000 * pause))

    def control(self, label: str) -> Locator:
        """Return the first visible widget with this description."""
        described = self.page.locator(".widget-label", has_text=re.compile(rf"^\s*{re.escape(label)}\s*$"))
        return self.page.locator(".widget-inline-hbox:visible", has=described).first

    def move_slider(self, label: str, *keys: str) -> None:
        """Move a slider with the keyboard: ``ArrowRight`` is one step, ``End`` its largest value."""
        for key in keys or ("ArrowRight",):
            self.control(label).locator(".noUi-handle").press(key)

    def type_into(self, label: str, text: str) -> None:
        """Replace what stands in a field, key by key, and leave the field."""
        field = self.control(label).locator("input")
        field.press("Control+a")
        field.press("Delete")
        field.press_sequentially(text)
        field.press("Enter")
        field.blur()

    def tab(self, title: str) -> None:
        """Bring a tab of the widgets to the front."""
        self.page.locator(".jupyter-widget-tab .lm-TabBar-tab", has_text=title).click()

    def text(self, selector: str) -> str:
        """Return the text of one thing on the page, in view or not; empty if it is not there."""
        return "\n".join(self.page.locator(selector).all_text_contents()).strip()

    def picture(self, image: Locator) -> bytes:
        """Return the bytes of a picture on the page; none while it is being replaced."""
        try:
            address: str = image.evaluate(BYTES, timeout=2000)
        except self._page_error():
            return b""
        return base64.b64decode(address.partition(",")[2])

    def drawn(self, image: Locator, what: str, before: bytes = b"", seconds: float = 30) -> bytes:
        """Wait until a picture is there and another than before, and return it."""

        def other() -> bytes:
            now = self.picture(image)
            return now if now != before else b""

        picture: bytes = self.until(what, other, seconds)
        return picture

    def clipboard(self) -> str:
        """Return the text on the clipboard."""
        return str(self.page.evaluate("navigator.clipboard.readText()"))

    def screenshot(self, name: str, of: Locator | None = None) -> Path:
        """Keep what is seen, all of it or one part, as PNG."""
        self._screenshots.mkdir(parents=True, exist_ok=True)
        path = self._screenshots / f"{name}.png"
        (of or self.page).screenshot(path=path)
        return path

    @staticmethod
    def _page_error() -> type[Exception]:
        from playwright.sync_api import Error

        return Error

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "assert"):
            self.errors.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self.errors.append(f"server: {response.status} for {response.url}")

    def _socket(self, socket: WebSocket) -> None:
        socket.on("framereceived", self._message)

    def _message(self, message: str | bytes) -> None:
        """Notice a kernel's errors even where no cell shows them: those of widgets' callbacks, above all."""
        text = message if isinstance(message, str) else message.decode(errors="replace")
        if re.search(r'"msg_type": ?"error"', text) or "Traceback (most recent call last)" in text:
            told = re.search(r'"(?:traceback|text)": ?(.*)', text, flags=re.DOTALL)
            plain = re.sub(r"\\u001b\[[0-9;]*m", "", told[1] if told else text)
            self.errors.append("kernel: " + plain.replace("\\n", "\n")[-3000:])


@contextlib.contextmanager
def visit(lab: Lab, folder: Path, screenshots: Path, mark: Mapping[str, str]) -> Iterator[Visit]:
    """Open Chromium with an empty profile under ``folder``; a failure tells what was noticed, and shows it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            folder / "chromium",
            executable_path=chromium(),
            args=list(SWITCHES),
            env={**os.environ, **mark},
            viewport={"width": 1400, "height": 1100},
        )
        browser.grant_permissions(["clipboard-read"])
        try:
            seen = Visit(browser.pages[0], lab, screenshots)
            try:
                yield seen
            except BaseException as error:
                with contextlib.suppress(Exception):
                    error.add_note(f"screenshot: {seen.screenshot('failed')}")
                error.add_note("noticed in the page:\n" + ("\n".join(seen.errors) or "no error"))
                error.add_note(f"JupyterLab's log:\n{lab.log()}")
                raise
        finally:
            browser.close()
