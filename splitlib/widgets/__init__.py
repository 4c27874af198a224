"""The few widgets that every study ends with: they draw from what the notebook has, and never train or measure."""

from splitlib.widgets.batch import explore_batch
from splitlib.widgets.cuts import explore_cuts
from splitlib.widgets.explorer import Explorer
from splitlib.widgets.records import explore_comparison, explore_curves
from splitlib.widgets.tensors import explore_codecs, explore_spectrum

__all__ = [
    "Explorer",
    "explore_batch",
    "explore_codecs",
    "explore_comparison",
    "explore_curves",
    "explore_cuts",
    "explore_spectrum",
]
