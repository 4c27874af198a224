"""``python -m splitlib``."""

from splitlib.ending import ending_at_once, ending_unread

with ending_at_once("splitlib"):
    from splitlib.cli import main
    from splitlib.pipeline.processes import leave

with ending_unread():
    status = main()
leave(status)
