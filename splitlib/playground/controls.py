"""The playground's controls: widgets that show a choice and read it back, each visible where it means something."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ipywidgets

from splitlib.compressors import COMPRESSORS, compressor_options
from splitlib.config import PARTITIONS, task_kind
from splitlib.data.tasks import TASKS
from splitlib.options import fitting, option_choices, parameters
from splitlib.playground.choice import LIMITS, MODELS, SAME, Choice
from splitlib.plots.timing import rate_text

WIDTH = "310px"
_STYLE = {"description_width": "98px"}
PRESETS = {rate_text(rate): rate for rate in (1.0, 10.0, 50.0, 100.0, 1000.0, 10_000.0, 100_000.0)}
FREE_RATE = "by the slider"
_TASKS = [(task.title, name) for name, task in TASKS.items()]
_BLOCKS = [("whole tensor", 0), ("64 values", 64), ("256 values", 256), ("1024 values", 1024)]
# Options that a config names even where they are the default: the documents' rows are told apart by them.
_SIZES = ("bits", "level_bits", "bin_bits", "rank", "dtype")
# Names in words for what the config calls by one word.
_TITLES = {"level_bits": "level bits Q", "bin_bits": "bin bits S", "edges": "bin edges", "block": "range of"}
_CHOICES = option_choices(COMPRESSORS)
_RANGES = {"bits": (1, 16), "zstd": (0, 22), "level_bits": (0, 16), "bin_bits": (0, 8), "rank": (1, 64),
           "iterations": (1, 5)}  # fmt: skip


class Controls:
    """All controls as :attr:`box`. ``changed`` is called after every change, once."""

    def __init__(self, choice: Choice, changed: Callable[[], None]) -> None:
        choice = choice.filled()
        self._base, self._changed, self._quiet = choice, changed, False
        self.task = _line(ipywidgets.Dropdown, "task", options=_TASKS, value=choice.task)
        self.data = _line(ipywidgets.Dropdown, "data", options=["embedded", "real"], value=choice.data)
        self.hub = _line(ipywidgets.Text, "hub mirror", value=choice.hub, placeholder="empty: $SPLITLIB_HUB",
                         continuous_update=False)  # fmt: skip
        self.model = _line(ipywidgets.Dropdown, "model")
        self.partition = _line(ipywidgets.Dropdown, "partition")
        self.cuts = _line(ipywidgets.Text, "cuts", placeholder="such as 3,10", continuous_update=False)
        self.batch_size = _line(ipywidgets.BoundedIntText, "batch size", **_limits("batch_size"))
        self.chunks = _line(ipywidgets.IntSlider, "micro-batches", **_limits("chunks"))
        self.activations = CodecControls("activations", list(COMPRESSORS), choice.compressor, choice.options)
        self.gradients = CodecControls(
            "gradients", [SAME, *COMPRESSORS], choice.gradient_compressor, choice.gradient_options
        )
        self.rate = _line(ipywidgets.FloatLogSlider, "link rate", base=10, min=0, max=5, step=0.05, readout=False)
        self.rate_words = ipywidgets.HTML()
        self.preset = _line(ipywidgets.Dropdown, "preset", options=[FREE_RATE, *PRESETS])
        for preset, rate in PRESETS.items():
            if rate == choice.mbit:
                self.preset.value = preset
        self.latency = _line(ipywidgets.BoundedFloatText, "latency [ms]", **_limits("latency_ms"), step=1)
        self.epochs = _line(ipywidgets.IntSlider, "epochs", **_limits("epochs"))
        self.show(choice)
        self.box = self._arranged()
        self._watch()

    def read(self) -> Choice:
        """Return what the controls say."""
        return self._base.replace(
            data=self.data.value,
            hub=self.hub.value,
            task=self.task.value,
            model=self.model.value,
            partition=self.partition.value,
            cuts=self.cuts.value if self.partition.value == "custom" else "",
            batch_size=self.batch_size.value,
            chunks=self.chunks.value,
            compressor=self.activations.name.value,
            options=self.activations.options(),
            gradient_compressor=self.gradients.name.value,
            gradient_options=self.gradients.options(),
            mbit=float(f"{self.rate.value:.3g}"),
            latency_ms=self.latency.value,
            epochs=self.epochs.value,
        )

    def show(self, choice: Choice) -> None:
        """Set every control to ``choice``."""
        with self._quietly():
            kind = task_kind(choice.task)
            self.task.value, self.data.value, self.hub.value = choice.task, choice.data, choice.hub
            self.activations.show(choice.compressor, choice.options)
            self.gradients.show(choice.gradient_compressor, choice.gradient_options)
            _choose(self.model, MODELS[kind], choice.model, short=True)
            _choose(self.partition, [*PARTITIONS[kind][1:], "custom"], choice.partition)
            self.cuts.value, self.batch_size.value, self.chunks.value = choice.cuts, choice.batch_size, choice.chunks
            self.rate.value, self.latency.value, self.epochs.value = choice.mbit, choice.latency_ms, choice.epochs
            self._arrange()

    def _watch(self) -> None:
        for widget in (self.hub, self.model, self.partition, self.cuts, self.batch_size, self.chunks, self.latency,
                       self.epochs, *self.activations.widgets, *self.gradients.widgets):  # fmt: skip
            widget.observe(self._on_change, "value")
        self.task.observe(self._on_data, "value")
        self.data.observe(self._on_data, "value")
        self.rate.observe(self._on_rate, "value")
        self.preset.observe(self._on_preset, "value")

    def _on_change(self, _: Any) -> None:
        if not self._quiet:
            self._arrange()
            self._changed()

    def _on_data(self, change: Any) -> None:
        """Another task, or other data, brings its usual model, partition and batch."""
        if self._quiet:
            return
        self.show(self.read().replace(model="", partition="", cuts="", batch_size=0).filled())
        self._changed()

    def _on_rate(self, change: Any) -> None:
        if not self._quiet:
            with self._quietly():
                self.preset.value = FREE_RATE
            self._on_change(change)

    def _on_preset(self, change: Any) -> None:
        if not self._quiet and change["new"] in PRESETS:
            with self._quietly():
                self.rate.value = PRESETS[change["new"]]
            self._on_change(change)

    def _arrange(self) -> None:
        """Show what applies, hide the rest."""
        _visible(self.hub, self.data.value == "real")
        _visible(self.cuts, self.partition.value == "custom")
        self.activations.arrange()
        self.gradients.arrange()
        self.rate_words.value = f'<div class="splitlib-rate">{rate_text(self.rate.value)}, each direction</div>'

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _arranged(self) -> ipywidgets.Widget:
        groups = {
            "Model and data": [self.task, self.data, self.hub, self.model, self.partition, self.cuts],
            "Batch": [self.batch_size, self.chunks],
            "Activations go through": self.activations.widgets,
            "Gradients go through": self.gradients.widgets,
            "Link": [self.preset, self.rate, self.rate_words, self.latency],
        }
        lines: list[ipywidgets.Widget] = []
        for title, widgets in groups.items():
            lines += [ipywidgets.HTML(f'<div class="splitlib-group">{title}</div>'), *widgets]
        return ipywidgets.VBox(lines, layout=ipywidgets.Layout(width="335px", flex="0 0 335px", overflow="hidden"))


class CodecControls:
    """A compressor's name and options; only those of the chosen compressor are visible."""

    def __init__(self, title: str, names: list[str], name: str, options: Mapping[str, Any]) -> None:
        self.name = _line(ipywidgets.Dropdown, "compressor", options=names)
        _choose(self.name, names, name)
        self.name.add_class(f"splitlib-{title}")
        defaults = {option: next(iter(values.values())) for option, values in compressor_options().items()}
        self._options = {
            option: _option(option, fitting(options.get(option, value), value)) for option, value in defaults.items()
        }
        self._take_defaults(but=options)
        self.name.observe(lambda _: self._take_defaults(), "value")
        self.arrange()

    @property
    def widgets(self) -> list[ipywidgets.Widget]:
        """The name first, then every option, the lossless stages last."""
        names = sorted(self._options, key=lambda option: option in ("codes", "zstd"))
        return [self.name, *(self._options[option] for option in names)]

    def __getitem__(self, option: str) -> ipywidgets.Widget:
        return self._options[option]

    def options(self) -> dict[str, Any]:
        """Return the chosen compressor's options: the sizes always, others where they are not the default."""
        known = parameters(COMPRESSORS[self.name.value]) if self._known() else {}
        values = {option: self._options[option].value for option in known}
        return {option: value for option, value in values.items() if option in _SIZES or value != known[option]}

    def _take_defaults(self, but: Collection[str] = ()) -> None:
        """Give options the compressor's own defaults, where they are at another's: codes are packed or in context."""
        usual = compressor_options()
        for option, default in parameters(COMPRESSORS[self.name.value]).items() if self._known() else ():
            if option not in but and self._options[option].value in usual[option].values():
                self._options[option].value = default

    def show(self, name: str, options: Mapping[str, Any]) -> None:
        """Set the name, and its options as far as they are given."""
        self.name.value = name
        for option, value in options.items():
            self._options[option].value = value
        self.arrange()

    def arrange(self) -> None:
        """Show what applies."""
        known = self._known()
        for option, widget in self._options.items():
            _visible(widget, option in known)

    def _known(self) -> list[str]:
        return list(parameters(COMPRESSORS[self.name.value])) if self.name.value in COMPRESSORS else []


def _option(name: str, value: Any) -> ipywidgets.Widget:
    title = _TITLES.get(name, name)
    if name == "block":
        widget = _line(ipywidgets.Dropdown, title, options=_BLOCKS)
        if value not in (size for _, size in _BLOCKS):
            widget.options = [*_BLOCKS, (f"{value} values", value)]
        widget.value = value
        return widget
    if name in _CHOICES:
        widget = _line(ipywidgets.Dropdown, title)
        _choose(widget, _CHOICES[name], value)
        return widget
    if name in _RANGES:
        low, high = _RANGES[name]
        return _line(ipywidgets.IntSlider, title, min=min(low, value), max=max(high, value), value=value)
    kinds: Mapping[type, Any] = {int: ipywidgets.IntText, float: ipywidgets.FloatText}
    return _line(kinds.get(type(value), ipywidgets.Text), title, value=value)


def _choose(widget: ipywidgets.Dropdown, options: Any, value: str, *, short: bool = False) -> None:
    """Offer ``options``, and ``value`` even if it is none of them: the config says what is wrong with it.

    A ``short`` one is shown without the folders of its name, for which there is no room.
    """
    offered = [*options] if value in options else [*options, value]
    widget.options = [(each.rsplit("/", 1)[-1], each) for each in offered] if short else offered
    widget.value = value


def _limits(name: str) -> dict[str, float]:
    low, high = LIMITS[name]
    return {"min": low, "max": high}


def _line(kind: Any, title: str, **traits: Any) -> Any:
    return kind(description=title, style=dict(_STYLE), layout=ipywidgets.Layout(width=WIDTH), **traits)


def _visible(widget: ipywidgets.Widget, shown: bool) -> None:
    widget.layout.display = None if shown else "none"
