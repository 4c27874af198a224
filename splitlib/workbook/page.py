"""The index page of a run: a table of its notebooks and every figure it made, each linked to its notebook."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment
from nbconvert.filters import strip_ansi

from splitlib.files import write_text
from splitlib.workbook.execution import Outcome
from splitlib.workbook.gallery import describe

TEMPLATE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{{ title }}</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
  table { border-collapse: collapse; } th, td { padding: .3rem .8rem; text-align: left; border-bottom: 1px solid #ccc; }
  td.number, th.number { text-align: right; } .failed, .interrupted { color: #b00020; font-weight: bold; }
  figure { margin: 1rem 0; } img { max-width: 100%; } pre { overflow-x: auto; }
</style>
<h1>{{ title }}</h1>
<p>{{ subtitle }}</p>
<pre>{{ command }}</pre>
<table>
<tr><th>Notebook<th>Question<th>Status<th class="number">Time<th class="number">Records found<th class="number">trained
{% for o in outcomes %}
<tr>
  <td>{% if link(o) %}<a href="{{ link(o) }}">{{ o.study.number }} {{ o.study.title }}</a>
      {%- else %}{{ o.study.number }} {{ o.study.title }}{% endif %}
  <td>{{ o.study.question }}
  <td class="{{ o.status }}">{{ o.status }}
  <td class="number">{{ "%.0f s"|format(o.seconds) }}
  <td class="number">{{ o.records_found }}<td class="number">{{ o.records_trained }}
{% endfor %}
</table>
{% for o in outcomes if o.error %}
<h2>{{ o.study.name }} failed</h2>
<pre>{{ plain(o.error) }}</pre>
{% endfor %}
{% for o in outcomes if o.figures %}
<h2><a href="{{ link(o) }}">{{ o.study.number }} {{ o.study.title }}</a></h2>
{% for figure in shown(o) %}
<figure><a href="{{ link(o) }}"><img src="figures/{{ figure.path.name|urlencode }}" alt="{{ figure.title }}"></a>
<figcaption>{{ figure.title }}{% if figure.data %} ({{ figure.data }}){% endif %}<br>
{% if figure.heading %}Drawn under <i>{{ figure.heading }}</i>. {% endif %}File:
<a href="figures/{{ figure.path.name|urlencode }}">{{ figure.path.name }}</a>
{%- if figure.vector %}, <a href="figures/{{ figure.vector.name|urlencode }}">SVG</a>{% endif %}
</figcaption></figure>
{% endfor %}
{% endfor %}
</html>
"""


def write_index(run_dir: Path, outcomes: Sequence[Outcome], *, subtitle: str, command: str) -> Path:
    """Write ``index.html`` to the run's folder and return its path."""
    template = Environment(autoescape=True, trim_blocks=True).from_string(TEMPLATE)
    page = template.render(
        title=f"splitlib workbook, run {run_dir.name}",
        subtitle=subtitle,
        command=command,
        outcomes=outcomes,
        link=lambda outcome: _link(run_dir, outcome),
        plain=strip_ansi,
        shown=lambda outcome: [describe(path, outcome.study) for path in outcome.figures],
    )
    write_text(run_dir / "index.html", page)
    return run_dir / "index.html"


def _link(run_dir: Path, outcome: Outcome) -> str:
    """The notebook's page, or the executed notebook if there is no page, or nothing."""
    names = (f"{outcome.study.name}.html", f"{outcome.study.name}.ipynb")
    return next((name for name in names if (run_dir / name).exists()), "")


def point_latest(run_dir: Path) -> None:
    """Make ``latest`` beside the run's folder lead to it: a link, or a file with its name where links are refused."""
    latest, fresh = run_dir.parent / "latest", run_dir.parent / f".latest.{os.getpid()}"
    try:
        fresh.symlink_to(run_dir.name, target_is_directory=True)
        fresh.replace(latest)
    except OSError:
        fresh.unlink(missing_ok=True)
        write_text(latest, run_dir.name + "\n")
