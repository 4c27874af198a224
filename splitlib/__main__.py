"""``python -m splitlib``, and the script ``splitlib``."""

from typing import NoReturn

from splitlib.ending import ending_at_once, ending_unread

with ending_at_once("splitlib"):
    from splitlib.cli import main
    from splitlib.pipeline.processes import leave


def start() -> NoReturn:
    """Run the command line and end this process with its status."""
    with ending_unread():
        status = main()
    leave(status)


if __name__ == "__main__":
    start()
