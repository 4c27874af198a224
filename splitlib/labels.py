"""Columns as people read them: words for underscores, and a unit for the end of a name that stands for one."""

from __future__ import annotations

# The end of a column's name -> its unit; the first that fits.
_UNITS = {
    "_percent": "[%]",
    "_mb_s": "[MiB/s]",
    "_per_s": "[1/s]",
    "_s": "[s]",
    "_millions": "[10⁶]",
    "ratio": "[bytes sent / uncompressed]",
    "against_raw": "[time / time without compression]",
}


def with_unit(column: str) -> str:
    """Return a column's name for an axis or a caption, with its unit.

    >>> with_unit("best_accuracy_percent"), with_unit("bandwidth_avg_mb_s"), with_unit("macs_part_1")
    ('best accuracy [%]', 'bandwidth avg [MiB/s]', 'macs part 1 [MACs]')
    """
    for ending, unit in _UNITS.items():
        if column.endswith(ending):
            name = column.removesuffix(ending) if ending.startswith("_") else column
            return f"{name.replace('_', ' ')} {unit}"
    return column.replace("_", " ") + (" [MACs]" if column.startswith("macs") else "")
