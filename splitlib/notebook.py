"""What every study notebook does in the same way: set up, run its rows, show tables, keep figures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display
from matplotlib.figure import Figure

from splitlib.config import RunConfig
from splitlib.errors import ConfigError, RecordError
from splitlib.experiment import sweep
from splitlib.labels import with_unit
from splitlib.pipeline.remote.client import Line
from splitlib.plots import saving
from splitlib.profiles import Profile, get_profile
from splitlib.results import RunRecord, to_frame
from splitlib.runtime import environment, figures_dir, pick_device
from splitlib.tally import RUN_DIR, only_records, publishing


@dataclass(frozen=True, kw_only=True)
class Study:
    """One notebook's study at one profile."""

    name: str
    """The notebook's number and name, such as ``01_cola``."""
    profile: Profile
    data: str
    """``embedded`` or ``real``."""
    hub: Path | None
    fresh: bool
    device: str
    samples: int = 0
    """Training samples of every run; 0 leaves them to the profile."""
    recorded: bool = False
    """Show what has a record; train and time nothing."""

    def scale(self, document: RunConfig, **overrides: Any) -> RunConfig:
        """Return a document's settings as this profile runs them on this data."""
        fewer = {"train_samples": self.samples} if self.samples else {}
        return self.profile.scale(document, **{"data": self.data, **overrides, **fewer})

    def run(
        self,
        rows: Mapping[str, RunConfig],
        *,
        seeds: int = 0,
        server: Callable[[], Line] | None = None,
        **overrides: Any,
    ) -> dict[str, list[RunRecord]]:
        """Run the documents' ``rows`` at this profile, each with several seeds (0: the profile's number).

        ``overrides`` are settings of all rows that win over the profile's. Rows that were run before come from their
        records. ``server`` connects to the other of two machines, for rows whose engine needs one.
        """
        scaled = {label: self.scale(config, **overrides) for label, config in rows.items()}
        return sweep(
            scaled,
            seeds=seeds or self.profile.seeds,
            hub=self.hub,
            device=self.device,
            fresh=self.fresh,
            recorded=self.recorded,
            server=server,
        )

    def measured(self, rows: Mapping[str, RunConfig], runs: Mapping[str, list[RunRecord]]) -> pd.DataFrame:
        """Return one table row for each record, with its row's label and whether it ran the document's own settings."""
        frames = []
        for label, records in runs.items():
            if not records:
                continue
            document = rows[label]
            frame = to_frame(records).assign(row_label=label)
            frame["document_settings"] = [
                r.config == document.replace(data="real", seed=r.config.seed) for r in records
            ]
            frames.append(frame)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def measured_by_either_engine(
        self,
        rows: Mapping[str, RunConfig],
        runs: Mapping[str, list[RunRecord]],
        *,
        seeds: int = 0,
        **overrides: Any,
    ) -> pd.DataFrame:
        """Return :meth:`measured` of two machines' ``runs``, and of further seeds what one process recorded.

        Both engines give the same bits, so a row's table does not depend on which of them ran it. Nothing is trained;
        ``seeds`` and ``overrides`` are those of :meth:`run`, whose ``rows`` may be more than were run.
        """
        alone = {label: rows[label].replace(engine="in_process") for label in runs}
        recorded = replace(self, recorded=True).run(alone, seeds=seeds, **overrides)
        found = [frame for frame in (self.measured(rows, runs), self.measured(alone, recorded)) if len(frame)]
        if not found:
            return pd.DataFrame()
        return pd.concat(found, ignore_index=True).drop_duplicates(["row_label", "seed"]).assign(engine="two_machines")

    def save_figure(self, drawing: Figure, name: str, *, data: str = "") -> None:
        """Show a figure and keep it as ``figures/<number>_<name>.png`` and ``.svg``.

        On embedded data ``_embedded`` joins the name. Under ``run_all.py`` a copy goes to the run's folder; the smoke
        profile, and a first look at fewer ``samples``, keep nothing but that copy. The project's own figures of real
        data are of all records and stay with them: only ``make figures`` draws them anew, and other runs keep theirs
        in a folder that ``$SPLITLIB_FIGURES`` names. ``data`` is ``embedded`` or ``real``
        where a figure does not show the study's own data, and ``none`` where no dataset went into it.
        """
        data = data or self.data
        suffix = "_embedded" if data == "embedded" else ""
        file = f"{self.name.split('_')[0]}_{name}{suffix}.png"
        kept = figures_dir() / file if self._keeps_figures(data) else None
        run_dir = os.environ.get(RUN_DIR)
        copy = Path(run_dir, "figures", file) if run_dir else None
        for path in (kept, copy):
            if path is not None:
                saving.save(drawing, path, about=saving.NO_DATA if data == "none" else f"{data} data")
        display(drawing)  # by itself a notebook shows figures only while matplotlib is interactive
        plt.close(drawing)

    def _keeps_figures(self, data: str) -> bool:
        if self.profile.name == "smoke" or self.samples:
            return False
        return data == "embedded" or publishing() or bool(os.environ.get("SPLITLIB_FIGURES"))


def first_record(runs: Mapping[str, Sequence[RunRecord]]) -> RunRecord:
    """Return a record that says what data and hardware the rows' titles name; RecordError if no row has one."""
    found = next((record for records in runs.values() for record in records), None)
    if found is None:
        raise RecordError(f"no record of {', '.join(runs)}, and --recorded trains nothing: run it without, once")
    return found


def chosen(names: str, known: Iterable[str], what: str) -> list[str]:
    """Return those of ``known`` that a parameter names, separated by commas; all of them where it is empty.

    >>> chosen("cola, cifar10", ["cifar10", "rte", "cola"], "task")
    ['cifar10', 'cola']

    Raises:
        ConfigError: one is unknown.
    """
    wanted, each = [name.strip() for name in names.split(",") if name.strip()], list(known)
    for name in wanted:
        if name not in each:
            raise ConfigError(f"unknown {what} {name!r}; choose from {', '.join(each)}")
    return [name for name in each if not wanted or name in wanted]


def whole_numbers(text: str, name: str) -> list[int]:
    """Return the numbers of a parameter that lists some, separated by commas.

    >>> whole_numbers("4, 8", "widths")
    [4, 8]

    Raises:
        ConfigError: one is none.
    """
    try:
        return [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise ConfigError(f"parameter {name!r} takes whole numbers such as 4,8, not {text!r}") from None


def start(
    name: str,
    *,
    profile: str,
    data: str = "",
    hub: str = "",
    fresh: bool = False,
    samples: int = 0,
    device: str = "auto",
) -> Study:
    """Return the study a notebook's parameters mean; an empty ``data`` or ``hub`` takes the default, as does 0.

    Raises:
        ConfigError: the profile, the data or the device is unknown.
    """
    chosen = get_profile(profile)
    if data not in ("", "embedded", "real"):
        raise ConfigError(f"unknown data {data!r}; use embedded or real, or leave it empty for the profile's")
    pick_device(device)
    return Study(
        name=name,
        profile=chosen,
        data=data or chosen.data,
        hub=Path(hub) if hub else None,
        fresh=fresh,
        device=device,
        samples=samples,
        recorded=only_records(),
    )


def show_text(table: pd.DataFrame) -> Any:
    """Return a table of words for display: left-aligned, wrapped, nothing cut off."""
    left = [{"selector": "th, td", "props": "text-align: left; white-space: normal"}]
    return table.style.set_table_styles(left)  # type: ignore[arg-type]  # pandas' stubs name a private type here


def show_environment(study: Study) -> Any:
    """Return what this notebook runs on, for display: profile, data, hardware, versions."""
    found = environment(pick_device(study.device))
    versions = found.pop("versions")
    rows = {"profile": f"{study.profile.name}: {study.profile.summary}", "data": study.data, **found, **versions}
    return show_text(pd.DataFrame({"": rows}))


def settings_table(configs: Mapping[str, RunConfig]) -> pd.DataFrame:
    """Return the settings in which the configs differ, one column for each label."""
    table = pd.DataFrame({label: config.to_dict() for label, config in configs.items()})
    return table[table.astype(str).nunique(axis=1) > 1]


def show_comparison(table: pd.DataFrame, digits: int = 2) -> Any:
    """Return the table of :func:`splitlib.comparison.compare` for display.

    Reported and measured values get their spread beside them, and then comes the status. What all rows share (of what
    names them, and metric, data, model, hardware, common sizes) moves into the caption; the rest stays in columns.
    """
    said, identity = _identity(table)
    common, table = _common_sizes(table)
    context = [name for name in ("metric", "data_label", "model", "size_text", "hardware") if name in table]
    shared = [name for name in context if table[name].nunique() <= 1]
    shown = table[identity].copy()
    shown["reported"] = [
        _with_spread(*row, digits) for row in zip(table["reported"], table["reported_sd"], strict=True)
    ]
    shown["source"] = table["source"]
    measured = zip(table["measured"], table["measured_sd"], strict=True)
    shown["measured"] = [_with_spread(*row, digits) for row in measured]
    known = ["collapsed"] if table["collapsed"].notna().any() else []
    for name in ("status", "n", "difference", *(name for name in context if name not in shared), *known):
        shown[name] = table[name]
    told = [_in_words(name, table[name].dropna().iloc[0]) for name in shared if table[name].notna().any()]
    caption = "; ".join([*said, *told, *common])
    shown = shown.rename(columns={"size_text": "size", **dict.fromkeys(_NAMES, "row")})
    return shown.style.format(precision=digits, na_rep="–").hide(axis="index").set_caption(caption)


_NAMES = ("label", "row_label")
"""Columns that name a row in words, so that its number in the document's table says no more."""


def _identity(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return what all rows' names share, in words, and the columns that tell the rows apart."""
    columns = list(table.columns[: table.columns.get_loc("metric")])
    if any(name in columns for name in _NAMES):
        columns = [name for name in columns if name != "row"]
    shared = [name for name in columns if table[name].nunique(dropna=False) == 1] if len(table) > 1 else []
    return [f"{with_unit(name)} {table[name].iloc[0]}" for name in shared], [n for n in columns if n not in shared]


def _in_words(name: str, value: Any) -> str:
    return with_unit(str(value)) if name == "metric" else str(value)


def _common_sizes(table: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
    """Return what the sizes of all measured rows have in common, where they differ, and the table without it."""
    if "size_text" not in table or table["size_text"].nunique() <= 1:
        return [], table
    parts = table["size_text"].str.split(", ")
    known = parts.dropna()
    common = [part for part in known.iloc[0] if all(part in each for each in known)]
    left = parts.map(lambda each: ", ".join(part for part in each if part not in common), na_action="ignore")
    return [", ".join(common)] if common else [], table.assign(size_text=left)


def _with_spread(value: float, spread: float, digits: int) -> str:
    """For example ``63.40 ± 1.20``; a dash where there is no value."""
    if pd.isna(value):
        return "–"
    return f"{value:.{digits}f}" + ("" if pd.isna(spread) else f" ± {spread:.{digits}f}")
