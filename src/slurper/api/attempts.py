"""Limits how often an address may fail to authenticate.

Only failures are counted and refused. So a right token always works, also from an address that
others use to guess. Guessing is hopeless anyway: a token is 256 random bits. The limit bounds what
guessers cost: answers, lines in the log, and memory.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

BURST = 20
"""So many failures of an address are answered as such. An address may have many users behind it."""

SECONDS_EACH = 3.0
"""After a burst, one more failure in this time."""

TOTAL_BURST = 1_000
TOTAL_SECONDS_EACH = 0.05
"""The same for all addresses together: somebody may have very many."""

MOST_ADDRESSES = 10_000
"""How many addresses are remembered, in some 2 MB. Those that failed last come first."""


class Attempts:
    """The failed attempts of one process."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._all = 0.0
        self._paid_until: OrderedDict[str, float] = OrderedDict()
        """By address: the time at which all its failures are forgotten."""

    def wait_seconds(self, address: str | None) -> float:
        """Return for how many more seconds a failure of an address is refused, or 0."""
        now = self._now()
        mine = self._paid_until.get(group_of(address), now)
        return max(
            mine - now - (BURST - 1) * SECONDS_EACH,
            self._all - now - (TOTAL_BURST - 1) * TOTAL_SECONDS_EACH,
            0.0,
        )

    def failed(self, address: str | None) -> float:
        """Count a failed attempt of an address, unless it is refused; return `wait_seconds`."""
        wait = self.wait_seconds(address)
        if wait > 0:
            return wait
        now, group = self._now(), group_of(address)
        self._all = max(self._all, now) + TOTAL_SECONDS_EACH
        self._paid_until[group] = max(self._paid_until.get(group, now), now) + SECONDS_EACH
        self._paid_until.move_to_end(group)
        if len(self._paid_until) > MOST_ADDRESSES:
            self._paid_until.popitem(last=False)
        return 0.0

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._paid_until)


def group_of(address: str | None) -> str:
    """Return what is counted as one address: of IPv6 the first 64 bits, which one user has."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return ""  # for example a socket that is a file
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(found), 64), strict=False))
    return str(found)
