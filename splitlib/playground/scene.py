"""What is on screen: a choice that a run can have, with everything measured and predicted of it on demand."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from splitlib.config import RunConfig, run_title
from splitlib.data.text import tokenizer_for
from splitlib.pipeline.remote.link import Link
from splitlib.playground import outlook
from splitlib.playground.bench import Bench, Probe, rank_note
from splitlib.playground.choice import Choice
from splitlib.plots.timing import rate_text
from splitlib.timeline import TENSORS


class Scene:
    """One choice on one bench; an impossible choice raises ConfigError here."""

    def __init__(self, choice: Choice, bench: Bench) -> None:
        self.choice, self.bench = choice, bench
        self.config: RunConfig = choice.config()
        self.link: Link = choice.link()

    @cached_property
    def probe(self) -> Probe:
        """The tensors at the cuts."""
        return self.bench.probe(self.config)

    @cached_property
    def chosen(self) -> outlook.Candidate:
        """What the controls' compressors cost."""
        return outlook.chosen(self.bench, self.config)

    @cached_property
    def compared(self) -> list[outlook.Candidate]:
        """The same first, then the usual compressors."""
        return outlook.compared(self.bench, self.config)

    @property
    def notes(self) -> list[str]:
        """What a run would do otherwise than the controls say, in words."""
        activations, gradients = outlook.codecs_of(self.config)
        each = [(gradients if name[0] == "g" else activations, name) for name in TENSORS]
        found = [rank_note(codec, name, self.probe.tensors[name]) for codec, name in each]
        return list(dict.fromkeys(filter(None, found)))

    @property
    def link_words(self) -> str:
        """The link, in words."""
        return f"{rate_text(self.choice.mbit)}, {self.choice.latency_ms:g} ms"

    @property
    def codec_words(self) -> str:
        """The compressors, in words."""
        activations, gradients = outlook.codecs_of(self.config)
        return str(activations) if activations == gradients else f"{activations} / gradients {gradients}"

    @property
    def about(self) -> str:
        """Model, cut, data and machine, in words: what every picture and table is about."""
        return self.about_in_lines.replace("\n", "; ")

    @property
    def about_in_lines(self) -> str:
        """The same in two lines."""
        config, probe = self.config, self.probe
        return f"{config.model_name}, {config.weights} weights, {config.partition}; {probe.label}\n{probe.hardware}"

    @property
    def title(self) -> str:
        """What a training of this is called."""
        return run_title(self.config)

    @cached_property
    def none(self) -> outlook.Candidate:
        """What sending everything as it is costs."""
        plain = outlook.RIVALS[outlook.NONE]
        return outlook.candidate(self.bench, self.config, outlook.NONE, plain, plain)

    def tokens(self, ids: Tensor) -> list[str]:
        """Return the words and word pieces of a sentence's ids [L]."""
        config = self.config
        reader = _reader(str(config.model), config.weights, config.data, self.bench.hub)
        return [str(token).removeprefix("Ġ") for token in reader.convert_ids_to_tokens(ids.tolist())]


@lru_cache(maxsize=4)
def _reader(model: str, weights: str, data: str, hub: Path | None) -> Any:
    return tokenizer_for(model, weights, data, hub)
