"""Every row of the documents that has a ratio and an accuracy, as a change against its own source."""

from __future__ import annotations

import pandas as pd

from splitlib import reported
from splitlib.frontier.rows import NONE

# Tables that give a ratio or bits and an accuracy, and the metric's column; a task's unit is points either way.
_PUBLISHED = {
    "cola": {
        "001_2.2_cola_sort": "matthews_percent",
        "002_1.2_decaying_linear": "accuracy_percent",
        "002_1.2_decaying_linear_rate": "accuracy_percent",
        "002_1.2_decaying_linear_l1": "accuracy_percent",
        "002_1.2_decaying_linear_two_sets": "accuracy_percent",
        "002_2.2_power_iteration": "accuracy_percent",
        "003_2.2_cola": "accuracy_percent",
    },
    "cifar10": {
        "000_2.2_two_machines": "accuracy_percent",
        "001_2.1_cifar10_ablation": "accuracy_percent",
        "001_2.2_cifar10_sort": "accuracy_percent",
        "002_4.2_two_machines": "accuracy_percent",
        "003_1.2_cifar10": "accuracy_percent",
        "003_1.2_cifar10_scatter": "accuracy_percent",
    },
}


_NEARLY_WHOLE = 0.5  # codes of 16 bits, which the documents themselves compare with where they have nothing wider


def published(task: str) -> pd.DataFrame:
    """Return every row of the documents that gives a ratio and an accuracy for the task.

    Columns: ``method``, ``ratio``, ``percent``, ``metric``, ``change`` and ``source`` (document and section). The
    change is against what its section compresses least; one that has nothing of half the bytes or more is compared
    with the rows of all sections that send everything.

    >>> published("cola").query("method == 'sort'")["change"].round(2).tolist()
    [0.0, -0.57, -1.3, -64.5]
    """
    tables = [_points(reported.load(name), metric) for name, metric in _PUBLISHED[task].items()]
    points = pd.concat(tables, ignore_index=True)
    whole = points[points["ratio"] >= 1].groupby("metric")["percent"].mean()
    bases = {}
    for source, section in points.groupby("source"):
        widest = section["ratio"].max()
        least = section[section["ratio"] == widest]
        bases[source] = least["percent"].mean() if widest >= _NEARLY_WHOLE else whole[section["metric"].iloc[0]]
    points["change"] = points["percent"] - points["source"].map(bases)
    return points.assign(metric=points["metric"].str.removesuffix("_percent"))


def _points(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    ratio = table["compression_ratio"] if "compression_ratio" in table else pd.Series(float("nan"), index=table.index)
    if "partition" in table:  # what an inserted layer leaves stands in a table of its own
        inserted = reported.load("002_3.1_partition").query("compression_ratio < 1")
        ratio = ratio.fillna(table["partition"].map(inserted.set_index("partition")["compression_ratio"]))
    if "bits" in table:
        bits = table["bits"].to_numpy(float, na_value=float("nan"))
        ratio = ratio.fillna(pd.Series(bits / 32, index=table.index))
    points = pd.DataFrame(
        {
            "method": table["compressor"],
            "ratio": ratio.mask(table["compressor"] == NONE, 1.0).astype(float),
            "percent": table[metric],
            "metric": metric,
            "source": table["document"] + " §" + table["section"],
        }
    )
    return points.dropna(subset=["ratio", "percent"])
