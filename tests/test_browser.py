"""The notebooks as a visitor sees them: JupyterLab in Debian's Chromium, driven by Playwright.

Needs Chromium (``apt-get install chromium``); skips elsewhere and says so. Screenshots are kept in the test's own
folder under the profile ``smoke``, or in the folder that ``SPLITLIB_SCREENSHOTS`` names under ``quick``. The README's:

    SPLITLIB_SCREENSHOTS=figures/screenshots make test ARGS="-m browser"
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from splitlib.runtime import results_dir
from tests.browser_support import Visit, missing, visit
from tests.jupyter_support import ROOT, jupyter_lab, marked, nothing_left_behind

if TYPE_CHECKING:
    from playwright.sync_api import Locator

NOTEBOOK = "09_playground.ipynb"
EPOCHS = 20  # the largest value of the slider
pytestmark = [pytest.mark.browser, pytest.mark.timeout(480)]


def copy_of(name: str, served: Path, profile: str) -> None:
    """Copy a notebook to where it may be changed, with another profile."""
    text = (ROOT / "notebooks" / name).read_text()
    assert text.count(r"profile: str = \"quick\"") == 1
    served.mkdir()
    (served / name).write_text(text.replace(r"profile: str = \"quick\"", rf"profile: str = \"{profile}\""))


@contextlib.contextmanager
def visitor_of(notebook: str, folder: Path) -> Iterator[Visit]:
    """Someone before JupyterLab, in a browser, with a copy of this notebook; skip if the machine has none."""
    if reason := missing():
        pytest.skip(f"the browser test needs {reason}")
    kept = os.environ.get("SPLITLIB_SCREENSHOTS")
    copy_of(notebook, folder / "served", "quick" if kept else "smoke")
    screenshots = Path(kept or folder / "screenshots")
    with nothing_left_behind() as mark:
        with jupyter_lab(folder / "served", folder, mark) as lab, visit(lab, folder, screenshots, mark) as visitor:
            yield visitor
        assert marked(mark) == [], "kernels and browser end with the visit"


def test_the_playground(tmp_path: Path) -> None:
    """From opening it to the line to copy; no step may leave an error in page, server or kernel."""
    with visitor_of(NOTEBOOK, tmp_path) as visitor:
        visitor.open(tmp_path / "served" / NOTEBOOK)
        visitor.page.keyboard.press("Control+b")  # the list of files makes room
        visitor.run_all(240)
        playground(visitor).scroll_into_view_if_needed()
        for step in STEPS:
            step(visitor)
            assert visitor.errors == [], f"noticed while a visitor {step.__name__}"
        visitor.page.evaluate("console.error('heard')")
        visitor.until("the console's error to be noticed", lambda: any("heard" in error for error in visitor.errors))


def playground(visitor: Visit) -> Locator:
    """All of it: controls, answer, tabs."""
    return visitor.page.locator(".splitlib-playground")


def settles(visitor: Visit) -> str:
    """Wait until nothing is being measured and the answer stands at the top; return it."""
    doing = playground(visitor).get_by_text(re.compile("^measuring"))
    visitor.until("everything to be measured", lambda: doing.count() == 0, 90)
    return str(visitor.until("the answer at the top", lambda: visitor.text(".splitlib-answer"), 90))


def moves_sliders(visitor: Visit) -> None:
    """The link's rate, in the view that opens first: its line moves, and so does the answer."""
    image = visitor.page.locator("img.splitlib-cheapest")
    answer, figure = settles(visitor), visitor.drawn(image, "the first figure")
    assert "ms a batch" in answer
    visitor.move_slider("link rate", "ArrowRight", "ArrowRight")
    visitor.drawn(image, "the figure to follow the link's rate", before=figure)
    visitor.until("the answer to be about the slider's rate", lambda: f"Over {rate(visitor)}," in settles(visitor))
    assert settles(visitor) != answer
    visitor.screenshot("playground_which_pays", playground(visitor))


def rate(visitor: Visit) -> str:
    """Return the link's rate as it stands under its slider."""
    return visitor.text(".splitlib-rate").partition(",")[0]


def sees_each_view(visitor: Visit) -> None:
    """The quantizer on the densities, the decoded picture, the batch in time: each follows a control."""
    image = visitor.page.locator("img.splitlib-atthecut")
    visitor.tab("At the cut")
    before = visitor.drawn(image, "the densities")
    visitor.move_slider("level bits Q", "ArrowLeft")
    before = visitor.drawn(image, "the levels to follow the bits", before=before)
    settles(visitor)
    visitor.screenshot("playground_at_the_cut", playground(visitor))
    compressor = visitor.page.locator(".splitlib-activations select")
    compressor.select_option(label="uniform")
    visitor.drawn(image, "the levels to follow the compressor", before=before)
    compressor.select_option(label="sort")

    image = visitor.page.locator("img.splitlib-seen")
    visitor.tab("Before and after")
    before = visitor.drawn(image, "the decoded picture")
    visitor.move_slider("channel")
    visitor.drawn(image, "the picture to follow the channel", before=before)

    image = visitor.page.locator("img.splitlib-timeline")
    visitor.tab("One batch in time")
    before = visitor.drawn(image, "the timeline")
    visitor.move_slider("micro-batches", "ArrowLeft")
    visitor.drawn(image, "the timeline to follow the micro-batches", before=before)
    settles(visitor)
    visitor.screenshot("playground_one_batch", playground(visitor))


def asks_the_impossible(visitor: Visit) -> None:
    """What cannot be is explained in place, each in its words; taking it back brings the answer back."""
    visitor.move_slider("level bits Q", "End")
    explained(visitor, "level_bits 16 + bin_bits 2 must come to 1 to 16 bits")
    visitor.screenshot("playground_not_possible", playground(visitor))
    visitor.move_slider("level bits Q", "Home", *["ArrowRight"] * 6)
    possible(visitor)

    size = visitor.control("batch size").locator("input").input_value()
    visitor.type_into("batch size", "2")
    explained(visitor, "batch_size 2 is smaller than chunks 3")
    visitor.type_into("batch size", "many")  # which a number's field does not take
    visitor.type_into("batch size", size)
    possible(visitor)

    compressor = visitor.page.locator(".splitlib-activations select")
    compressor.select_option(label="power_iteration")
    visitor.move_slider("rank", "End")
    explained(visitor, "Rank 64 is more than activation 1 has")
    compressor.select_option(label="sort")
    possible(visitor)

    for typed in ("fast", "-5", ""):
        visitor.type_into("latency [ms]", typed)
        possible(visitor)
    visitor.type_into("latency [ms]", "10")
    possible(visitor)


def explained(visitor: Visit, words: str) -> None:
    """Wait until these words stand where problems are explained."""
    visitor.until(f"{words!r} to be explained", lambda: words in visitor.text(".splitlib-problem"))


def possible(visitor: Visit) -> None:
    """Wait until nothing is explained and the answer stands at the top."""
    visitor.until("the explanation to go", lambda: not visitor.text(".splitlib-problem"))
    assert "ms a batch" in settles(visitor)


def trains_and_stops(visitor: Visit) -> None:
    """The live curve moves while it trains, and no longer once it is stopped."""
    visitor.tab("Train this")
    visitor.move_slider("epochs", "End")
    visitor.page.locator(".splitlib-train-button").click()
    image = visitor.page.locator("img.splitlib-train")
    first = visitor.drawn(image, "the live curve", seconds=60)
    visitor.drawn(image, "the live curve to move", before=first)
    visitor.until("two epochs and a part", lambda: share_trained(visitor) > 2 / EPOCHS, 200)
    visitor.screenshot("playground_train_this", playground(visitor))
    visitor.page.locator(".splitlib-stop-button").click()
    status = re.compile(r"stopped at step (\d+) of (\d+)")
    stopped = visitor.until("training to stop", lambda: status.search(visitor.text(".splitlib-train-status")))
    done, total = map(int, stopped.groups())
    assert 0 < done < total
    assert total % EPOCHS == 0, "as many epochs as the slider says"


def share_trained(visitor: Visit) -> float:
    """Return how much of the run is done, by its words."""
    words = re.search(r"step (\d+) of (\d+)", visitor.text(".splitlib-train-status"))
    return int(words[1]) / int(words[2]) if words else 0.0


def copies(visitor: Visit) -> None:
    """A click puts each text on the clipboard, and says so; the first is the command that trains what is on screen."""
    visitor.tab("Copy")
    areas = visitor.page.locator(".splitlib-copy textarea")
    visitor.until("the command to copy", lambda: "--compressor sort" in areas.first.input_value())
    visitor.screenshot("playground_copy", playground(visitor))
    buttons = visitor.page.locator(".splitlib-copy-button")
    assert buttons.count() == areas.count()
    for place in range(areas.count()):
        text = areas.nth(place).input_value()
        buttons.nth(place).click()
        visitor.until("the clipboard to hold the text", lambda text=text: visitor.clipboard() == text)
        visitor.until("the button to say so", lambda place=place: buttons.nth(place).text_content() == "Copied")
    assert areas.first.input_value().startswith("python -m splitlib run")


def reproduces(visitor: Visit) -> None:
    """The copied command gives the very record of *Train this*: in another process, and trained once."""
    visitor.tab("Train this")
    visitor.move_slider("epochs", "Home")
    visitor.page.locator(".splitlib-train-button").click()
    visitor.until("training to end", lambda: "finished" in visitor.text(".splitlib-train-status"), 60)
    (record,) = results_dir().iterdir()
    before = record.read_bytes(), record.stat().st_mtime_ns
    visitor.tab("Copy")
    command = visitor.page.locator(".splitlib-copy-0 textarea")
    visitor.until("the command to name the epochs", lambda: "--epochs 20" not in command.input_value())
    visitor.page.locator(".splitlib-copy-button").first.click()
    python, *words = shlex.split(visitor.clipboard())
    assert python == "python"
    told = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 0, told.stderr
    assert str(record) in told.stdout
    assert [*results_dir().iterdir()] == [record]
    assert (record.read_bytes(), record.stat().st_mtime_ns) == before, "it was found, not trained again"


STEPS = (moves_sliders, sees_each_view, asks_the_impossible, trains_and_stops, copies, reproduces)
