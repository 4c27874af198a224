"""The notebooks as a visitor sees them: JupyterLab in Debian's Chromium, driven by Playwright.

Needs Chromium (``apt-get install chromium``); skips elsewhere and says so. Screenshots are kept in the test's own
folder, or in the one that ``SPLITLIB_SCREENSHOTS`` names.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser_support import Visit, missing, visit
from tests.jupyter_support import ROOT, jupyter_lab, marked, nothing_left_behind

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def copy_for_smoke(name: str, served: Path) -> None:
    """Copy a notebook to where it may be changed, with the profile ``smoke``."""
    text = (ROOT / "notebooks" / name).read_text()
    assert text.count(r"profile: str = \"quick\"") == 1
    served.mkdir()
    (served / name).write_text(text.replace(r"profile: str = \"quick\"", r"profile: str = \"smoke\""))


@contextlib.contextmanager
def visitor_of(notebook: str, folder: Path) -> Iterator[Visit]:
    """Someone before JupyterLab, in a browser, with a copy of this notebook; skip if the machine has none."""
    if reason := missing():
        pytest.skip(f"the browser test needs {reason}")
    copy_for_smoke(notebook, folder / "served")
    screenshots = Path(os.environ.get("SPLITLIB_SCREENSHOTS") or folder / "screenshots")
    with nothing_left_behind() as mark:
        with jupyter_lab(folder / "served", folder, mark) as lab, visit(lab, folder, screenshots, mark) as visitor:
            yield visitor
        assert marked(mark) == [], "kernels and browser end with the visit"


def test_explore(tmp_path: Path) -> None:
    with visitor_of("01_cola_curves.ipynb", tmp_path) as visitor:
        visitor.open(tmp_path / "served" / "01_cola_curves.ipynb")
        visitor.run_all(120)
        image = visitor.page.locator(".jupyter-widgets img").last
        image.scroll_into_view_if_needed()
        before = visitor.picture(image)
        assert before
        visitor.screenshot("explore")
        visitor.choose("quantity", visitor.control("quantity").locator("option").all_inner_texts()[1])
        visitor.changed(image, before, "the figure to change")
        visitor.screenshot("explore_changed")
        assert visitor.errors == []
        visitor.page.evaluate("console.error('heard')")
        assert [error for error in visitor.errors if "heard" in error], "the console is listened to"
