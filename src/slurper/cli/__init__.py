"""The command line.

A command is imported when it is asked for, and imports what it needs when it runs. So no command
waits for the modules that only another command needs.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys


def main() -> None:
    """Run the command line: what the `slurper` script calls. It is the last that a process does.

    Python's collector stands still while modules are imported, which leaves next to no garbage: it
    would take a good part of the CPU of a small copy. `commands` lets it work from there on.
    """
    gc.disable()
    ending = _Ending()
    atexit.register(ending.leave)  # called last: every other such function is registered later
    from slurper.cli import commands

    try:
        commands.run()
    except SystemExit as ended:
        ending.status = ended.code
        raise


class _Ending:
    """Spares the interpreter to take apart, piece by piece, what the system frees at once.

    Threads have ended by then, and all else that waits for the end has been called.
    """

    def __init__(self) -> None:
        self.status: object = ""
        """What `sys.exit` was called with; text, as when it was not, is Python's to print."""

    def leave(self) -> None:
        """End the process; where its status or its output takes more than that, let Python do."""
        if not isinstance(self.status, int | None):
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (AttributeError, OSError, ValueError):
            return  # missing, closed or not read: Python reports that, with its own status
        os._exit(self.status or 0)
