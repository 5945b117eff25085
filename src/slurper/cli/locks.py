"""One process at a time may move the jobs of a directory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slurper import errors


@contextmanager
def exclusive(directory: Path, owner: str) -> Iterator[None]:
    """Hold `directory`, creating it with mode 0700, until the block ends or the process dies.

    Raises:
        ConfigurationError: another process holds it, or it cannot be written; says so in terms of
            `owner`.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (directory / "lock").open("a+")
    except OSError as error:
        raise errors.ConfigurationError(f"{directory} cannot be used: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise errors.ConfigurationError(
                f"{owner} is already running as process {holder} (it holds {directory})"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
