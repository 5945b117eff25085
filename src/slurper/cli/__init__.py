"""The command line.

A command is imported only when it is called, and imports what it needs when it runs. So no command
waits for modules that only another command needs.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys


def main() -> None:
    """Run the command line. The `slurper` script calls this, and does nothing after it.

    Python's garbage collector is off while modules are imported. Imports leave almost no garbage,
    and the collector would take a good part of the CPU time of a small copy. `commands` turns it on
    again.
    """
    gc.disable()
    ending = _Ending()
    atexit.register(ending.leave)  # called last, because all others are registered later
    from slurper.cli import commands

    try:
        commands.run()
    except SystemExit as ended:
        ending.status = ended.code
        raise


class _Ending:
    """Ends the process quickly. The interpreter does not free its objects one by one.

    The system frees all memory at once. When `leave` is called, threads have ended, and the other
    exit functions have been called.
    """

    def __init__(self) -> None:
        self.status: object = ""
        """The argument of `sys.exit`; "" if it was not called. Python itself prints a text."""

    def leave(self) -> None:
        """End the process. If the status is no number, or output fails, let Python end it."""
        if not isinstance(self.status, int | None):
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (AttributeError, OSError, ValueError):
            return  # a stream is missing, closed or not read: Python reports that and sets a status
        os._exit(self.status or 0)
