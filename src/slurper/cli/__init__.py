"""The command line.

A command is imported when it is asked for, and imports what it needs when it runs, so that nobody
waits for what another command needs.
"""

from __future__ import annotations

import gc


def main() -> None:
    """Run the command line: what the `slurper` script calls.

    Python's collector stands still while modules are imported, which leaves next to no garbage, and
    in the end, when the memory goes as a whole: it would take a quarter of the CPU of a small copy.
    In between, `commands` lets it work.
    """
    gc.disable()
    from slurper.cli import commands

    try:
        commands.run()
    finally:
        gc.freeze()
