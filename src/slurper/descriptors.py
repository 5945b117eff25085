"""File descriptors: how many this process may have, and whether any is left.

Each connection takes one. Systems often begin with a soft limit of 1,024, and let a process raise
it up to the hard limit. Processes that are started later inherit the limit.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource

from slurper import errors

MOST = 65_536
"""The limit is raised no further. No process needs more, and some systems have no hard limit."""
_MOST_ON_MACOS = 10_240
"""macOS refuses more, also where it shows no hard limit."""

_RESERVED = 512
"""What clients of the service leave for everything else: the database, workers, and stores that are
checked."""

_ALL_TAKEN = frozenset({errno.EMFILE, errno.ENFILE})


def raise_limit() -> int:
    """Raise the soft limit to the hard one, up to `MOST`. Return the limit that holds then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (MOST, _MOST_ON_MACOS):
        wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            break
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            break
    return limit()


def limit() -> int:
    """How many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else soft


def is_shortage(error: BaseException) -> bool:
    """Whether the system has refused a descriptor because all are taken."""
    return isinstance(error, OSError) and error.errno in _ALL_TAKEN


def none_left() -> bool:
    """Whether no descriptor is left now.

    To be asked after an error that may have this cause and does not tell it. So it is with names
    that are not found, and with files of certificates.
    """
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return is_shortage(error)
    return False


def require(count: int, what: str) -> None:
    """Make sure that `what` finds so many descriptors. Raises TooManyOpenFiles."""
    opened = list[int]()
    try:
        for _ in range(count):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if is_shortage(error):
            raise too_many(what) from error
        raise
    finally:
        for descriptor in opened:
            os.close(descriptor)


def too_many(what: str) -> errors.TooManyOpenFiles:
    """The error for something that needs a descriptor, such as a connection to `what`."""
    return errors.TooManyOpenFiles(
        f"{what}: too many open files in this process, which may have {limit():,}, or on this"
        " machine"
    )


def for_clients(wanted: int, limit: int) -> int:
    """How many connections of clients the service may have, if `wanted` are asked for."""
    return max(1, min(wanted, limit - min(_RESERVED, limit // 2)))
