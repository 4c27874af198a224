"""What is on screen, as commands and as a notebook's parameters to paste elsewhere."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

import ipywidgets

from splitlib.command import command_line
from splitlib.pipeline.remote.link import Link
from splitlib.playground.choice import Choice
from splitlib.playground.scene import Scene

NOTEBOOK = "notebooks/09_playground.ipynb"


def train_command(scene: Scene) -> str:
    """Return the command that trains what is on screen, in one process; it gives the record of *Train this*."""
    return command_line(scene.config) + _hub(scene.choice)


def client_command(scene: Scene) -> str:
    """Return the command that trains it with the body on another machine, over a link shaped like the chosen one."""
    link = Link(rate_mbit=scene.choice.mbit, latency_ms=scene.choice.latency_ms)
    return command_line(scene.config.replace(engine="two_machines"), link=link) + _hub(scene.choice)


def papermill_parameters(choice: Choice) -> str:
    """Return the parameters, as papermill's ``-y`` takes them, that open this notebook on what is on screen.

    JSON is YAML, and quotes every word.
    """
    return json.dumps(choice.parameters())


def papermill_command(choice: Choice) -> str:
    """Return the command that executes this notebook on what is on screen."""
    return f"papermill {NOTEBOOK} runs/playground.ipynb -y {shlex.quote(papermill_parameters(choice))}"


def parameter_lines(choice: Choice) -> str:
    """Return the same as lines for the notebook's parameters cell."""
    return "\n".join(f"{name} = {value!r}" for name, value in choice.parameters().items())


def _hub(choice: Choice) -> str:
    return f" --hub {shlex.quote(choice.hub)}" if choice.hub and choice.data == "real" else ""


TEXTS: dict[str, Callable[[Scene], str]] = {
    "As a command: train this": train_command,
    "As a command: the same on two machines, over this link (start python -m splitlib server first)": client_command,
    "As parameters: of this notebook's second cell": lambda scene: parameter_lines(scene.choice.filled()),
    "As parameters: for papermill": lambda scene: papermill_command(scene.choice.filled()),
}


class Copy:
    """A text area for each kind of text; a click into one selects all of it in every browser by Ctrl-A, Ctrl-C."""

    title = "Copy"

    def __init__(self) -> None:
        layout = ipywidgets.Layout(width="100%", height="auto")
        self.areas = {name: ipywidgets.Textarea(rows=2, layout=layout) for name in TEXTS}
        lines: list[ipywidgets.Widget] = []
        for number, (name, area) in enumerate(self.areas.items()):
            area.add_class(f"splitlib-copy-{number}")
            lines += [ipywidgets.HTML(f'<div class="splitlib-group">{name}</div>'), area]
        self.box = ipywidgets.VBox(lines)

    def draw(self, scene: Scene) -> None:
        """Write every text."""
        for name, text in TEXTS.items():
            self.areas[name].value = text(scene)
            self.areas[name].rows = max(2, 1 + len(text(scene)) // 110, text(scene).count("\n") + 1)
