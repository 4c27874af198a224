"""``python -m splitlib``."""

import sys

try:
    from splitlib.cli import main
    from splitlib.pipeline.processes import leave
except KeyboardInterrupt:  # importing takes seconds, and nothing has begun
    print("\nsplitlib: stopped", file=sys.stderr)
    sys.exit(130)

leave(main())
