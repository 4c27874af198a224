"""``python -m splitlib``."""

import os
import sys

from splitlib.cli import main

status = main()
# A thread may still wait inside gloo for a peer that is gone. Python's own shutdown could hang on it, or abort.
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)
