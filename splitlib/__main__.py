"""``python -m splitlib``."""

from splitlib.importing import ending_at_once

with ending_at_once("splitlib"):
    from splitlib.cli import main
    from splitlib.pipeline.processes import leave

leave(main())
