"""How many files and sockets this process may have open."""

from __future__ import annotations

import resource

ENOUGH = 65_536
"""More is never asked for: some programs try every number up to the limit."""
RESERVED = 512
"""What connections of clients leave for everything else: the database, workers, and stores that are
checked."""


def raise_limit() -> int:
    """Raise the limit of open files as far as the system allows, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return ENOUGH if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # macOS allows less than it says
        return soft
    return wanted


def for_connections(wanted: int, limit: int) -> int:
    """Return how many connections there may be, if `wanted` are asked for."""
    return max(1, min(wanted, limit - min(RESERVED, limit // 2)))
