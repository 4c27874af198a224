"""The tables and curves of the five documents, one CSV each, as package data.

A file is named ``<document>_<section>_<what>.csv``; :func:`tables` lists them all. In every file the first columns are
``document``, ``section`` and ``row``, the last two ``verbatim`` (the document's row as written, cells joined by ``|``)
and ``note`` (ours: what is odd about the row). Between them stand typed cells under this package's names:

* A settings list, one key a line in its document, is one row whose columns are the keys.
* What the text around a table says of all its rows (task, model, partition, batch size) stands in columns of its own.
* Blank where the document is blank, and wherever it says "None" or "-" of a number.
* ``bits`` of a figure's point is 32 times its ratio; ``level_bits`` and ``bin_bits`` are the default 3:1 of 001 §2.
* Rows with inserted convolutions have the partition that inserts them, such as ``conv_insert_type_2``.
* MB are as the documents write them; by the times beside them, those of 000 and 003 are 2^20 bytes.
* In figures ``source`` says where a row is from: ``text``, ``read off`` (from a plot, to about ±0.2) or
  ``clarification``.
"""

from __future__ import annotations

import difflib
from importlib import resources

import pandas as pd

from splitlib.errors import ConfigError

# A column has one type in every file: these are the ones pandas would guess wrongly, or otherwise with a blank cell.
_TEXT = dict.fromkeys(("document", "section", "study", "verbatim", "note", "server_hardware"), "str")
_COUNTS = dict.fromkeys(
    ("chunks", "bits", "level_bits", "bin_bits", "rank", "rank_1", "rank_2", "epochs", "epoch_first", "epoch_last"),
    "Int64",
)


def tables() -> pd.DataFrame:
    """Return the index, one row a table.

    Its columns are ``name``, ``document``, ``section``, ``title``, ``rows``, ``kind`` (table, figure or settings),
    ``source`` (text, read off or clarification), ``study`` (the two digits of the notebook that reproduces it) and
    ``header`` (the document's column names as written; blank where it has none).

    >>> index = tables()
    >>> list(index[index["study"] == "07"]["name"])
    ['002_2.1_settings', '002_2.1_partition', '002_2.2_power_iteration']
    """
    return _read("tables")


def load(name: str) -> pd.DataFrame:
    """Return one table with typed cells; an unknown name raises ConfigError and lists the nearest ones.

    >>> table = load("002_2.2_power_iteration")
    >>> table["rank"].tolist(), table["accuracy_percent"].tolist()
    ([128, 32, 16, 12], [85.2, 85.6, 85.0, 84.3])
    """
    names = list(tables()["name"])
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.3)
        hint = f"did you mean {' or '.join(near)}?" if near else "splitlib.reported.tables() lists them"
        raise ConfigError(f"unknown reported table {name!r}; {hint}")
    return _read(name)


def _read(name: str) -> pd.DataFrame:
    path = resources.files(__package__) / f"{name}.csv"
    with path.open(encoding="utf-8") as file:
        # Only an empty cell is blank: "None" and "NA" are words here.
        table = pd.read_csv(file, dtype={**_TEXT, **_COUNTS}, keep_default_na=False, na_values=[""])
    return table.fillna({"note": "", "header": ""})
