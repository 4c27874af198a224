"""The playground as a whole: controls on the left, an answer and the views on the right, errors in words in place.

A change is shown at once: only the view that is open is drawn, and only what it shows is measured. Changes that follow
each other quickly, as from a moving slider, are shown together.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import time
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
from IPython.display import display
from matplotlib.figure import Figure

from splitlib.errors import SplitlibError
from splitlib.planner.choices import Limits
from splitlib.playground import outlook
from splitlib.playground.bench import Bench
from splitlib.playground.choice import Choice
from splitlib.playground.controls import Controls
from splitlib.playground.copying import Copy
from splitlib.playground.scene import Scene
from splitlib.playground.train_view import Train
from splitlib.playground.views import AtTheCut, Cheapest, Seen, Timeline, time_text

SETTLE_SECONDS = 0.06  # a slider that moves sends a value every few milliseconds
REDRAW_SECONDS = 0.4  # of the live curve, at most so often
STALE = "splitlib-stale"  # what is below is not what the controls say: it is impossible, or being measured
CSS = """<style>
.splitlib-group {font-weight: 600; margin-top: 8px; width: 310px}
.splitlib-group {border-bottom: 1px solid var(--jp-border-color2, #ccc)}
.splitlib-rate {margin-left: 106px; font-size: 12px; line-height: 18px}
.splitlib-answer {font-size: 14px; line-height: 20px; padding: 6px 10px; border-left: 4px solid #0072B2}
.splitlib-problem {font-size: 14px; line-height: 20px; padding: 6px 10px; border-left: 4px solid #D55E00}
.splitlib-note {font-size: 12px; line-height: 16px; color: var(--jp-ui-font-color2, #555); margin: 2px 0}
.splitlib-playground .lm-TabBar-tab {flex: 0 0 142px !important; max-width: none !important}
.splitlib-copy-head {display: flex; gap: 10px; align-items: baseline; margin-top: 6px}
.splitlib-stale {opacity: 0.4}
.splitlib-table {font-size: 12px; line-height: 17px; border-collapse: collapse}
.splitlib-table th {text-align: left; padding: 2px 10px 2px 4px; border-bottom: 1px solid #999; vertical-align: bottom}
.splitlib-table td {text-align: left; padding: 2px 10px 2px 4px; border-bottom: 1px solid #ddd}
</style>"""


class Playground:
    """Controls, views and what connects them.

    >>> lab = Playground(Choice(task="cola"))  # doctest: +SKIP
    >>> lab.show()  # doctest: +SKIP
    """

    def __init__(self, choice: Choice, *, device: str = "auto", bench: Bench | None = None) -> None:
        """``bench`` may bring what another playground measured."""
        self._loop = _running_loop()
        self._pending: Any = None
        self._drawn_at = 0.0
        self.bench = bench or Bench(hub=Path(choice.hub) if choice.hub else None, device=device)
        self.bench.report = self._report
        self.controls = Controls(choice, self._changed)
        self.answer, self.problem = ipywidgets.HTML(), ipywidgets.HTML()
        self.answer.add_class("splitlib-answer-box")
        self.problem.add_class("splitlib-problem-box")
        self.bar = ipywidgets.FloatProgress(min=0, max=1, layout=ipywidgets.Layout(width="200px", visibility="hidden"))
        self.doing = ipywidgets.HTML()
        self.train = Train(self._changed, self._trained, self.controls.epochs, self._scene, self._in_turn)
        self.copy = Copy()
        self.views: list[Any] = [
            Cheapest(self._changed), AtTheCut(self._changed), Seen(self._changed), Timeline(self._changed),
            self.train, self.copy,
        ]  # fmt: skip
        self.tabs = ipywidgets.Tab([view.box for view in self.views], titles=[view.title for view in self.views])
        self.tabs.observe(lambda _: self._changed(), "selected_index")
        busy = ipywidgets.HBox([self.bar, self.doing], layout=ipywidgets.Layout(height="24px"))
        right = ipywidgets.VBox(
            [self.answer, self.problem, busy, self.tabs], layout=ipywidgets.Layout(flex="1 1 auto", min_width="0")
        )
        style = ipywidgets.HTML(CSS, layout=ipywidgets.Layout(height="0"))
        self.box = ipywidgets.VBox([style, ipywidgets.HBox([self.controls.box, right])])
        self.box.add_class("splitlib-playground")

    def show(self) -> None:
        """Display the playground, then measure what its first view shows, with a progress bar."""
        display(self.box)
        self.refresh()
        _spare_pauses()

    def refresh(self) -> None:
        """Show what the controls say, now; a choice that cannot be is explained instead."""
        self._pending = None
        try:
            scene = self._scene()
            self.views[self.tabs.selected_index or 0].draw(scene)
            self.answer.value = f'<div class="splitlib-answer">{_answer(scene)}</div>'
            self.problem.value = "".join(_problem("Note:", note) for note in scene.notes)
            self.tabs.remove_class(STALE)
        except SplitlibError as error:
            self.tabs.add_class(STALE)
            self.problem.value = _problem("Not possible:", str(error))
            self.answer.value = ""
            self.train.blocked()
        except Exception as error:  # a bug; from an event loop its traceback would go unseen
            self.problem.value = _problem("A bug, please report it:", f"{type(error).__name__}: {error}")
            raise
        finally:
            self._report("", 0.0)

    def picture(self, name: str) -> Figure:
        """Return the figure of one view, drawn anew: for a page without a kernel. ``name`` is its class's, in small."""
        view = next(view for view in self.views if type(view).__name__.lower() == name)
        scene = self._scene()
        view.draw(scene)
        drawing: Figure = view.canvas.on_paper(f"{view.kind}: {scene.about_in_lines}")
        return drawing

    def _scene(self) -> Scene:
        choice = self.controls.read()
        self.bench.hub = Path(choice.hub) if choice.hub else None
        return Scene(choice, self.bench)

    def _in_turn(self, do: Callable[[], None]) -> None:
        """Do it in the event loop's thread, after what waits there; at once where no loop runs.

        JupyterLab sends what widgets say over a subshell of the kernel: their callbacks run in another thread, in which
        the loop's own ``call_later`` would not wake it.
        """
        if self._loop is None or not self._loop.is_running():
            do()
        else:
            self._loop.call_soon_threadsafe(do)

    def _changed(self) -> None:
        """Refresh soon, in one go with what else changes; at once where no event loop runs."""
        self._in_turn(self._refresh_soon)

    def _refresh_soon(self) -> None:
        if self._loop is None or not self._loop.is_running():
            self.refresh()
            return
        if self._pending is not None:
            self._pending.cancel()
        self._pending = self._loop.call_later(SETTLE_SECONDS, self.refresh)

    def _report(self, text: str, share: float) -> None:
        """Show what is being measured."""
        self.bar.layout.visibility = "visible" if text else "hidden"
        self.bar.value = share
        self.doing.value = f'<div class="splitlib-note">{escape(text)}</div>' if text else ""
        if text:
            self.tabs.add_class(STALE)

    def _trained(self) -> None:
        """Called from the training thread: draw in the event loop's thread, and not after every step."""
        self._in_turn(self._show_training)

    def _show_training(self) -> None:
        ended = not self.train.thread.running or self.train.thread.record is not None
        if ended or time.monotonic() - self._drawn_at > REDRAW_SECONDS:
            self.train.show_progress()
            self._drawn_at = time.monotonic()


def _answer(scene: Scene) -> str:
    """Return the sentence at the top: how long a batch takes over the link, and what would be fastest."""
    chosen, none = scene.chosen.seconds(scene.link), scene.none.seconds(scene.link)
    limits = Limits()
    tolerable = [each for each in scene.compared if limits.allow(each)]
    best = min(tolerable, key=lambda each: each.seconds(scene.link))
    words = f"Over {scene.link_words}: <b>{time_text(chosen)}</b> a batch predicted with {escape(scene.codec_words)}, "
    words += f"{time_text(none)} uncompressed"
    bound = f"with an error up to {limits.error:g}"
    bound += f" and an unequal gain up to {limits.unequal:g}" if scene.chosen.unequal is not None else ""
    if best.label == outlook.CHOSEN or best.seconds(scene.link) >= chosen:
        return f"{words}; nothing compared is faster {bound}."
    return f"{words}; fastest {bound}: {escape(best.label)}, {time_text(best.seconds(scene.link))}."


def _problem(kind: str, text: str) -> str:
    return f'<div class="splitlib-problem"><b>{kind}</b> {escape(text)}</div>'


def _spare_pauses() -> None:
    """Keep what is loaded by now out of the garbage collector's rounds.

    Drawing leaves much garbage in cycles; with all of torch to look through, one round in 25 drawings took 0.8 s.
    """
    gc.freeze()
    atexit.register(gc.unfreeze)  # what counts its references at exit would report leaks


def _running_loop() -> Any:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
