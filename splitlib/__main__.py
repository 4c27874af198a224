"""``python -m splitlib``."""

from splitlib.cli import main
from splitlib.pipeline.processes import leave

leave(main())
