"""`slurper` with a note of what it does when; `benchmarks.trace` starts it and reads the notes.

    BENCH_NOTES=FILE python -m benchmarks.traced copy ...

Nothing of Slurper is imported here before it would be imported without the notes. So its start
takes as long as ever. Times are those of the system's monotonic clock, which all processes share.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from slurper.engine.template import Template

NOTES = "BENCH_NOTES"
"""The variable that names the file. Every process appends lines to it."""

CHECK, COMMIT, TASK, COPY, WAITS = "check", "commit", "task", "copy", "waits"
"""What a line is about: the check of both sides; the wait of a turn of the driver for the database;
a task, as the driver sees it; the copying within a task; what its lanes waited for."""

_TRANSACTIONS = ("open_to_work", "keys_within", "key_boundaries", "parts", "commit")
"""Those that a turn of the driver waits for."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def note(what: str, **fields: object) -> None:
    """Append a line to the notes."""
    line = json.dumps({"what": what, **fields}) + "\n"
    with open(os.environ[NOTES], "ab", buffering=0) as file:
        file.write(line.encode())


def noted(
    what: str, call: Callable[Arguments, Awaitable[Result]]
) -> Callable[Arguments, Awaitable[Result]]:
    """The same function. It notes when each call begins and ends."""

    @functools.wraps(call)
    async def run(*args: Arguments.args, **named: Arguments.kwargs) -> Result:
        began = time.monotonic()
        try:
            return await call(*args, **named)
        finally:
            note(what, began=began, ended=time.monotonic())

    return run


def _watch_control_plane() -> None:
    """Have the check, the transactions and the tasks noted, and the workers' waits too."""
    from slurper import node
    from slurper.database.work import WorkStore
    from slurper.engine.local import LocalEngine
    from slurper.service.jobs import JobService

    watched: list[tuple[str, Any, str]] = [
        (CHECK, JobService, "create"),
        (TASK, LocalEngine, "run"),
        *((COMMIT, WorkStore, name) for name in _TRANSACTIONS),
    ]
    for what, owner, name in watched:
        setattr(owner, name, noted(what, getattr(owner, name)))
    worker = "benchmarks.traced_worker:make_worker"
    traced = functools.partial(LocalEngine, worker_factory=worker)
    setattr(node, LocalEngine.__name__, traced)


def main() -> None:
    """Run a command of Slurper."""
    from slurper import cli
    from slurper.engine import template

    fork = template.Template.forked

    def forked() -> Template | None:
        made = fork()
        _watch_control_plane()  # now, because the template has nothing to do with it
        return made

    template.Template.forked = forked  # type: ignore[method-assign]
    cli.main()


if __name__ == "__main__":
    main()
