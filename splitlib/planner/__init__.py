"""The planner: which cut, which compressor and how many micro-batches are fastest over a link, before training.

>>> from splitlib.planner import plan  # doctest: +SKIP
>>> found = plan(config, link=Link.parse("50Mbit", "10ms"))  # doctest: +SKIP
>>> found.table().head(), found.command()  # doctest: +SKIP
"""

from splitlib.planner.candidates import DEFAULT_CHUNKS, DEFAULT_COMPRESSORS, compressor_text, parse_compressor
from splitlib.planner.choices import Choice, lower_bound
from splitlib.planner.costs import Costs, costs_path, recorded_costs
from splitlib.planner.planning import Plan, plan

__all__ = [
    "DEFAULT_CHUNKS",
    "DEFAULT_COMPRESSORS",
    "Choice",
    "Costs",
    "Plan",
    "compressor_text",
    "costs_path",
    "lower_bound",
    "parse_compressor",
    "plan",
    "recorded_costs",
]
