"""What is on screen, as commands and as a notebook's parameters to paste elsewhere."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from html import escape

import ipywidgets

from splitlib.command import command_line, link_arguments
from splitlib.planner import compressor_text
from splitlib.playground.choice import SAME, Choice
from splitlib.playground.scene import Scene

NOTEBOOK = "notebooks/09_playground.ipynb"


def train_command(scene: Scene) -> str:
    """Return the command that trains what is on screen, in one process; it gives the record of *Train this*."""
    return command_line(scene.config) + _hub(scene.choice)


def client_command(scene: Scene) -> str:
    """Return the command that trains it with the body on another machine, over a link shaped like the chosen one."""
    return command_line(scene.config.replace(engine="two_machines"), link=scene.link) + _hub(scene.choice)


def plan_command(scene: Scene) -> str:
    """Return the command that measures and predicts what is on screen anew, outside of this notebook."""
    choice, config, link = scene.choice, scene.config, scene.link
    usual = choice.replace(
        compressor="none", options={}, gradient_compressor=SAME, partition="", cuts="", chunks=0, epochs=0
    )
    words = shlex.split(command_line(usual.config()).replace(" splitlib run", " splitlib plan", 1))
    words += [*link_arguments(link), "--cuts", config.cuts or str(config.partition)]
    words += ["--compressors", compressor_text(config), "--chunks", str(config.chunks)]
    return shlex.join(words) + _hub(choice)


def papermill_parameters(choice: Choice) -> str:
    """Return the parameters, as papermill's ``-y`` takes them, that open this notebook on what is on screen.

    JSON is YAML, and quotes every word.
    """
    return json.dumps(choice.parameters())


def papermill_command(choice: Choice) -> str:
    """Return the command that executes this notebook on what is on screen."""
    return f"papermill {NOTEBOOK} playground.ipynb -y {shlex.quote(papermill_parameters(choice))}"


def parameter_lines(choice: Choice) -> str:
    """Return the same as lines for the notebook's parameters cell."""
    return "\n".join(f"{name} = {value!r}" for name, value in choice.parameters().items())


def _hub(choice: Choice) -> str:
    return f" --hub {shlex.quote(choice.hub)}" if choice.hub and choice.data == "real" else ""


# A browser lets a page write to the clipboard only while it handles a click. So the page does it: by way of the kernel
# it would come too late where that is busy. navigator.clipboard is newer, but is missing where the page comes from
# another machine without TLS. What was copied stays selected, and what could not be can be copied by hand.
_COPY = """
this.closest('.splitlib-copy').querySelector('textarea').select();
this.textContent = document.execCommand('copy') ? 'Copied' : 'Press Ctrl-C';
setTimeout(() => { this.textContent = 'Copy'; }, 1500);
"""
_BUTTON = f'<button class="jupyter-button splitlib-copy-button" onclick="{escape(_COPY)}">Copy</button>'

TEXTS: dict[str, Callable[[Scene], str]] = {
    "As a command: train this": train_command,
    "As a command: predict its time per batch over this link": plan_command,
    "As a command: train it on two machines, over such a link (start python -m splitlib server first)": client_command,
    "As parameters: of this notebook's second cell": lambda scene: parameter_lines(scene.choice.filled()),
    "As parameters: for papermill": lambda scene: papermill_command(scene.choice.filled()),
}


class Copy:
    """A text area for each kind of text, and a button that copies all of it."""

    title = "Copy"

    def __init__(self) -> None:
        layout = ipywidgets.Layout(width="auto", height="auto")
        self.areas = {name: ipywidgets.Textarea(rows=2, layout=layout) for name in TEXTS}
        boxes = []
        for number, (name, area) in enumerate(self.areas.items()):
            head = ipywidgets.HTML(f'<div class="splitlib-copy-head">{_BUTTON}<b>{escape(name)}</b></div>')
            boxes.append(ipywidgets.VBox([head, area]))
            for place in ("splitlib-copy", f"splitlib-copy-{number}"):  # the button finds its text by the first
                boxes[-1].add_class(place)
        self.box = ipywidgets.VBox(boxes)

    def draw(self, scene: Scene) -> None:
        """Write every text."""
        for name, text in TEXTS.items():
            self.areas[name].value = text(scene)
            self.areas[name].rows = max(2, 1 + len(text(scene)) // 100, text(scene).count("\n") + 1)
