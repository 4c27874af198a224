"""What the playground shows of a scene: each view is a box with a picture, a table of numbers and what they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.figure import FigureBase

from splitlib.compressors import spread
from splitlib.playground import outlook
from splitlib.playground.bench import Encoded
from splitlib.playground.canvas import Canvas
from splitlib.playground.levels import edges_and_levels
from splitlib.playground.scene import Scene
from splitlib.plots import playground as figures
from splitlib.plots.timing import gantt, rate_text
from splitlib.timeline import CLIENT, COMPUTE, SERVER, TENSORS

LEFT_OUT = "Bytes are payloads': frames and, with text, the attention mask are not counted."
MAPS_HEIGHT = 2.9  # inches, of three square pictures side by side


class View:
    """One tab. ``draw`` shows a scene; ``again`` is called when one of the view's own controls was moved."""

    title = ""
    kind = "measured"
    """What the picture shows: measured or predicted."""

    def __init__(self, again: Callable[[], None]) -> None:
        self._again = again
        self.canvas = Canvas(type(self).__name__.lower())
        self.words = ipywidgets.HTML()
        self.box = ipywidgets.VBox([*self.own_controls(), self.canvas.image, self.words])

    def own_controls(self) -> list[ipywidgets.Widget]:
        """Return widgets that belong to this view alone."""
        return []

    def draw(self, scene: Scene) -> None:
        """Show ``scene``."""
        raise NotImplementedError

    def watch(self, widget: Any) -> Any:
        """Draw again when ``widget`` moves."""
        widget.observe(lambda _: self._again(), "value")
        return widget


class Cheapest(View):
    """Predicted time per batch against link rate for each compressor, and what each costs."""

    title = "Which pays?"
    kind = "predicted"

    def draw(self, scene: Scene) -> None:
        """Draw the lines, mark the link, rank the compressors at it."""
        found, latency = scene.compared, scene.choice.latency_ms
        none = next(each for each in found if each.label == outlook.NONE)
        lines = pd.DataFrame(outlook.times(found, latency), index=list(outlook.RATES))
        spans = {each.label: outlook.pays(each, none, latency) for each in found if each is not none}
        self.canvas.draw(lambda drawing: self._paint(drawing, scene, lines, spans))
        rows = [
            {
                "": ("▶ " if each.label == outlook.CHOSEN else "") + _label(each, scene),
                f"predicted time per batch at {rate_text(scene.choice.mbit)}": time_text(each.seconds(scene.link)),
                "predicted to pay": "–" if each is none else outlook.in_words(spans[each.label]),
                "measured bytes, of uncompressed": f"{each.ratio:.3f}",
                "measured error, worst tensor": f"{each.error:.1e}",
            }
            for each in sorted(found, key=lambda each: each.seconds(scene.link))
        ]
        note = (
            "Fastest first. A compressor pays where a batch takes less time with it than with none. Error: squared "
            f"error over the tensor's variance; 1 is as bad as sending only the mean. {LEFT_OUT}"
        )
        self.words.value = table(rows) + _note(note, scene)

    def _paint(
        self, drawing: FigureBase, scene: Scene, lines: pd.DataFrame, spans: Mapping[str, figures.Spans]
    ) -> None:
        above, below = drawing.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        drawing.subplots_adjust(left=0.18, right=0.95, top=0.93, bottom=0.11, hspace=0.08)
        figures.time_and_where_it_pays(above, below, lines, spans, here=scene.choice.mbit)
        above.set_title(f"predicted, latency {scene.choice.latency_ms:g} ms; dashed: your link, "
                        f"{rate_text(scene.choice.mbit)}", loc="left")  # fmt: skip


class AtTheCut(View):
    """Densities of activation and gradient with the quantizer on them, and what the codec makes of them."""

    title = "At the cut"

    def own_controls(self) -> list[ipywidgets.Widget]:
        """Return which cut."""
        options = [("cut 1: client to server", 1), ("cut 2: server to client", 2)]
        self.cut = self.watch(ipywidgets.ToggleButtons(options=options))
        self.cut.style.button_width = "180px"
        return [self.cut]

    def draw(self, scene: Scene) -> None:
        """Draw both tensors at the cut."""
        names = [f"{what} {self.cut.value}" for what in ("activation", "gradient")]
        encoded = scene.chosen.encoded
        self.canvas.draw(lambda drawing: self._paint(drawing, scene, names))
        rows = [_encoded_row(scene, name, encoded[name]) for name in names]
        note = "Bytes and errors are exact, of one batch before the first step; times are medians of its micro-batches."
        self.words.value = table(rows) + _note(note, scene)

    def _paint(self, drawing: FigureBase, scene: Scene, names: Sequence[str]) -> None:
        axes = drawing.subplots(1, len(names))
        drawing.subplots_adjust(left=0.08, right=0.985, top=0.86, bottom=0.12, wspace=0.2)
        for ax, name, codec in zip(axes, names, outlook.codecs_of(scene.config), strict=True):
            edges, levels = edges_and_levels(scene.chosen.encoded[name].payloads[0])
            values = scene.probe.tensors[name].chunk(scene.config.chunks)[0].numpy()
            figures.density_and_levels(ax, values, edges=edges, levels=levels, about=name)
            ax.set_title(f"{name} {list(values.shape)}, one micro-batch\n{codec}", loc="left")


class Seen(View):
    """A feature map before and after the codec; for text, the error of each token."""

    title = "Before and after"

    def own_controls(self) -> list[ipywidgets.Widget]:
        """Return which tensor, sample and channel."""
        tensors = [(name, name) for name in TENSORS]
        self.tensor = self.watch(ipywidgets.Dropdown(options=tensors, description="tensor"))
        self.sample = self.watch(ipywidgets.IntSlider(min=0, max=0, description="sample"))
        self.channel = self.watch(ipywidgets.IntSlider(min=0, max=0, description="channel"))
        return [ipywidgets.HBox([self.tensor, self.sample, self.channel])]

    def draw(self, scene: Scene) -> None:
        """Draw what fits the task."""
        text = scene.config.kind == "text"
        x = scene.probe.tensors[self.tensor.value]
        self.sample.max = len(x) - 1
        self.tensor.layout.display = self.channel.layout.display = "none" if text else None
        if not text:
            self.channel.max = x.shape[1] - 1
        if text:
            self.canvas.draw(lambda drawing: self._tokens(drawing, scene))
        else:
            self.canvas.draw(lambda drawing: self._maps(drawing, scene), height=MAPS_HEIGHT)

    def _maps(self, drawing: FigureBase, scene: Scene) -> None:
        name, (sample, channel) = self.tensor.value, (self.sample.value, self.channel.value)
        x, encoded = scene.probe.tensors[name], scene.chosen.encoded[name]
        pair = [each[sample, channel].numpy() for each in (x, encoded.decoded())]
        axes = drawing.subplots(1, 3)
        drawing.subplots_adjust(left=0.02, right=0.93, top=0.86, bottom=0.02, wspace=0.3)
        figures.original_and_decoded(drawing, axes, *pair)
        codec = outlook.codecs_of(scene.config)[name[0] == "g"]
        drawing.suptitle(f"{name}, sample {sample}, channel {channel}: {codec}, measured", x=0.02, ha="left")
        error = float(np.square(pair[1] - pair[0]).mean()) / spread(x)
        note = (f"This map: squared error {error:.1e} of the tensor's variance. Whole tensor: {encoded.error:.1e}, "
                f"{encoded.nbytes:,} bytes of {encoded.whole:,}.")  # fmt: skip
        self.words.value = _note(note, scene)

    def _tokens(self, drawing: FigureBase, scene: Scene) -> None:
        ids, mask = (each[self.sample.value] for each in scene.probe.inputs)
        length = int(mask.sum())
        axes = drawing.subplots(2, 1, sharex=True)
        drawing.subplots_adjust(left=0.1, right=0.985, top=0.92, bottom=0.2, hspace=0.3)
        for ax, cut in zip(axes, (1, 2), strict=True):
            errors = [self._by_token(scene, f"{what} {cut}")[:length] for what in ("activation", "gradient")]
            figures.error_by_token(ax, scene.tokens(ids[:length]), *errors)
            ax.set_title(f"cut {cut}, measured", loc="left")
        self.words.value = _note("Squared error of each token's vector over the tensor's variance, without padding.",
                                 scene)  # fmt: skip

    def _by_token(self, scene: Scene, name: str) -> Any:
        x = scene.probe.tensors[name]
        error = (scene.chosen.encoded[name].decoded() - x)[self.sample.value].square()
        return (error.flatten(1).mean(1) / spread(x)).numpy()


class Timeline(View):
    """A Gantt chart of one predicted batch."""

    title = "One batch in time"
    kind = "predicted"

    def draw(self, scene: Scene) -> None:
        """Draw the chosen compressors' batch over the link."""
        candidate = scene.chosen
        made = outlook.batch(candidate.work, candidate.chunks, scene.link)
        self.canvas.draw(lambda drawing: self._paint(drawing, scene, made))
        busy = {side: sum(s.end - s.start for s in made.spans if s.side == side and s.activity == COMPUTE)
                for side in (CLIENT, SERVER)}  # fmt: skip
        none = scene.none.seconds(scene.link)
        up, down = (sum(candidate.encoded[name].nbytes for name in pair) for pair in
                    (("activation 1", "gradient 2"), ("activation 2", "gradient 1")))  # fmt: skip
        rows = [
            {"predicted, over " + scene.link_words: "time per batch", " ": time_text(made.seconds)},
            {"predicted, over " + scene.link_words: "the same uncompressed", " ": time_text(none)},
            {"predicted, over " + scene.link_words: "no schedule can be faster than", " ": time_text(made.ideal)},
            {"predicted, over " + scene.link_words: "client computes", " ": _share(busy[CLIENT], made.seconds)},
            {"predicted, over " + scene.link_words: "server computes", " ": _share(busy[SERVER], made.seconds)},
            {"predicted, over " + scene.link_words: "sent, counted", " ": f"{up:,} bytes up, {down:,} bytes down"},
        ]
        note = ("Predicted from passes and codecs measured one by one on this machine, which stands for client and "
                f"server; codecs run beside the computation, the link is full duplex. {LEFT_OUT}")  # fmt: skip
        self.words.value = table(rows) + _note(note, scene)

    def _paint(self, drawing: FigureBase, scene: Scene, made: Any) -> None:
        ax = drawing.subplots()
        drawing.subplots_adjust(left=0.15, right=0.985, top=0.92, bottom=0.22)
        gantt(ax, made.spans, kind="predicted")
        batch = f"{time_text(made.seconds)} a batch of {scene.config.batch_size}"
        ax.set_title(f"predicted: {batch} over {scene.link_words}; {scene.codec_words}", loc="left")


def _label(candidate: outlook.Candidate, scene: Scene) -> str:
    return f"on screen: {scene.codec_words}" if candidate.label == outlook.CHOSEN else candidate.label


def _encoded_row(scene: Scene, name: str, encoded: Encoded) -> dict[str, str]:
    return {
        "": name,
        "error (squared, of variance)": f"{encoded.error:.2e}",
        "bytes of a batch": f"{encoded.nbytes:,} of {encoded.whole:,}",
        "ratio": f"{encoded.ratio:.4f}",
        "encode, a micro-batch": time_text(encoded.encode),
        "decode": time_text(encoded.decode),
    }


def time_text(seconds: float) -> str:
    """Return a time in milliseconds, to three digits or whole."""
    value = 1e3 * seconds
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def _share(part: float, whole: float) -> str:
    return f"{time_text(part)}, {part / whole if whole else 0:.0%} of the time"


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows of words as an HTML table; the first names the columns."""
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row.values()) + "</tr>" for row in rows)
    return f'<table class="splitlib-table"><tr>{head}</tr>{body}</table>'


def _note(text: str, scene: Scene) -> str:
    return f'<div class="splitlib-note">{escape(text)}<br>{escape(scene.about)}</div>'
