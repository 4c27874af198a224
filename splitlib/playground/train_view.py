"""*Train this*: buttons, a live curve, and the table of every record of the same task and data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from html import escape

import ipywidgets
import numpy as np
from matplotlib.figure import FigureBase

from splitlib.config import RunConfig
from splitlib.errors import SplitlibError
from splitlib.playground import outlook, training
from splitlib.playground.scene import Scene
from splitlib.playground.training import TrainingThread
from splitlib.playground.views import View, table
from splitlib.plots import playground as figures
from splitlib.results import RunRecord, all_records

LATEST = 12  # records in the table


class Train(View):
    """Trains what is on screen, in the background."""

    title = "Train this"

    def __init__(
        self,
        again: Callable[[], None],
        notify: Callable[[], None],
        epochs: ipywidgets.Widget,
        read: Callable[[], Scene],
        in_turn: Callable[[Callable[[], None]], None],
    ) -> None:
        """``read`` tells what is on screen, ``in_turn`` does something in the thread that draws."""
        self._read, self._in_turn = read, in_turn
        self.thread = TrainingThread(notify)
        self._epochs = epochs
        self._scene: Scene | None = None
        self._training: Scene | None = None
        super().__init__(again)
        self.canvas.image.layout.display = "none"

    def own_controls(self) -> list[ipywidgets.Widget]:
        """Return epochs, both buttons, the bar and what it says."""
        self.train = ipywidgets.Button(description="Train this", button_style="primary", icon="play", disabled=True)
        self.stop = ipywidgets.Button(description="Stop", icon="stop", disabled=True)
        for button, name in ((self.train, "train"), (self.stop, "stop")):
            button.add_class(f"splitlib-{name}-button")
        self.train.on_click(lambda _: self._in_turn(self._start))
        self.stop.on_click(lambda _: self._end())
        self.bar = ipywidgets.FloatProgress(min=0, max=1, layout=ipywidgets.Layout(width="300px"))
        self.status = ipywidgets.HTML()
        self.status.add_class("splitlib-train-status")
        self.records = ipywidgets.HTML()
        self.records.add_class("splitlib-records")
        return [ipywidgets.HBox([self._epochs, self.train, self.stop]), ipywidgets.HBox([self.bar, self.status]),
                self.records]  # fmt: skip

    def draw(self, scene: Scene) -> None:
        """Show what would be trained, and the records there are."""
        self._scene = scene
        self.show_progress()
        self._show_records(scene.config)

    def show_progress(self) -> None:
        """Show where the thread stands."""
        thread = self.thread
        self.train.disabled, self.stop.disabled = thread.running or self._scene is None, not thread.running
        self.bar.value = thread.done / max(thread.total, 1)
        about = self._training or self._scene
        words = {
            training.IDLE: "ready to train: " + (about.title if about else ""),
            training.RUNNING: f"training: step {thread.done} of {thread.total}",
            training.STOPPING: "stopping after this step",
            training.STOPPED: f"stopped at step {thread.done} of {thread.total}; Train this goes on from there",
            training.FINISHED: ("finished" if thread.losses else "trained before")
            + "; its record is marked in the table",
            training.FAILED: f"cannot train this: {thread.message}",
        }
        self.status.value = f'<div class="splitlib-note">{escape(words[thread.state])}</div>'
        if thread.losses or thread.by_epoch:
            self.canvas.image.layout.display = None
            self.canvas.draw(self._paint)
        if not thread.running and thread.state in (training.FINISHED, training.STOPPED) and self._training:
            self._show_records(self._training.config)

    def blocked(self) -> None:
        """Forbid starting: what is on screen is impossible."""
        self._scene = None
        self.train.disabled = True

    def _start(self) -> None:
        """Train what the controls say now: one may have moved since the last drawing."""
        with suppress(SplitlibError):  # which the drawing that is due explains
            scene = self._read()
            self._training = scene
            self.thread.start(scene.config, hub=scene.bench.hub, device=scene.bench.device)
            self.show_progress()

    def _end(self) -> None:
        self.thread.stop()
        self._in_turn(self.show_progress)

    def _paint(self, drawing: FigureBase) -> None:
        losses, metrics = drawing.subplots(1, 2)
        drawing.subplots_adjust(left=0.08, right=0.985, top=0.88, bottom=0.12, wspace=0.2)
        thread, unit = self.thread, "step" if self.thread.losses else "epoch"
        points = thread.losses or list(enumerate(thread.by_epoch, start=1))
        steps, loss = np.array(points, dtype=float).T
        assert self._training is not None
        name = "Matthews correlation" if self._training.config.task == "cola" else "accuracy"
        figures.live_curves(losses, metrics, (steps, loss, unit), np.array(thread.metrics, dtype=float), name)
        drawing.suptitle(f"measured: {self._training.title}", x=0.02, ha="left", fontsize=9)

    def _show_records(self, config: RunConfig) -> None:
        found = [r for r in all_records() if (r.config.task, r.config.data) == (config.task, config.data)]
        latest = sorted(found, key=lambda record: record.created, reverse=True)[:LATEST]
        if not latest:
            self.records.value = '<div class="splitlib-note">No record of this task on this data yet.</div>'
            return
        mine = self.thread.record
        rows = [_row(record, marked=mine is not None and record.config == mine.config) for record in latest]
        count = f"The latest {len(latest)} of {len(found)} records of {latest[0].data_label.split(' (')[0]}, measured:"
        self.records.value = f'<div class="splitlib-note">{escape(count)}</div>' + table(rows)


def _row(record: RunRecord, *, marked: bool) -> dict[str, str]:
    row, config = record.row(), record.config
    activations, gradients = outlook.codecs_of(config)
    return {
        "": "▶" if marked else "",
        "model": config.model_name,
        "partition": str(config.partition),
        "compressor": str(activations) + ("" if activations == gradients else f" / gradients {gradients}"),
        "micro-batches": str(config.chunks),
        "epochs": str(len(record.history)),
        f"best {record.metric} [%]": f"{row['best_percent']:.2f}",
        "ratio": f"{record.compression_ratio:.4f}",
        "samples/s": f"{row['samples_per_second']:.0f}",
        "seed": str(config.seed),
    }
