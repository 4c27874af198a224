"""``python -m splitlib``."""

from splitlib.cli import main

raise SystemExit(main())
