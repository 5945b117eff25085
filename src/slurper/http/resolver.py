"""Looks up host names by the system's own resolver, in threads that nobody else needs.

A look-up cannot be stopped, and a name server may never answer. So:

- each look-up has a thread of its own, and the end of the process does not wait for it;
- a look-up that does not come back keeps one of the few places of its account, and one of the
  token that made it look, and no other's;
- who asks for a name that is being looked up waits for the same answer;
- a caller waits as long as it wants to, and goes; its look-up goes on.

Addresses as text need none of this. See decision 0030.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import threading
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from slurper.http.places import Crowded, Owner, Places, Share

OF_ACCOUNT = Share(places=4, waiting=64)
"""Different names of one account that are looked up at once, and that wait for it."""
MOST = 64
"""Different names that are looked up at once in all."""
OF_TOKEN = Share(places=MOST // 2, waiting=256)
"""The same for one token. It may be good for every account, and make up as many as it likes."""
_PLACE_SECONDS = 30.0
"""After this time a look-up that found no place is given up; its callers have mostly gone."""

_SYSTEM_TIME_OUTS = "timeout:2 attempts:2"
"""How long glibc waits for one name server, in seconds, and how often it asks all of them."""

_FAMILIES = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address in the form that sockets take."""

    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int]

    @property
    def ip(self) -> str:
        """The address as text."""
        return self.sockaddr[0]

    def at(self, port: int) -> Address:
        """The same address with a port."""
        host, _, *scope = self.sockaddr
        if not scope:
            return Address(self.family, (host, port))
        flow, number = scope
        return Address(self.family, (host, port, flow, number))


def limit_system_time_outs() -> None:
    """Let the system's resolver give up soon. Call it before anything is looked up.

    glibc reads the variable, and processes that are started later inherit it. What the operator has
    set in it comes last, so it counts. Other systems have time-outs of their own.
    """
    given = os.environ.get("RES_OPTIONS", "")
    if not given.startswith(_SYSTEM_TIME_OUTS):
        os.environ["RES_OPTIONS"] = f"{_SYSTEM_TIME_OUTS} {given}".rstrip()


class Resolver:
    """The look-ups of one event loop."""

    def __init__(self) -> None:
        limit_system_time_outs()
        self._places = Places(of_account=OF_ACCOUNT, of_token=OF_TOKEN, most=MOST)
        self._asked: dict[tuple[Owner, str], asyncio.Task[list[Address]]] = {}
        """Those that have or want a place, by owner and name."""
        self._under_way: dict[str, asyncio.Future[list[Address]]] = {}
        """Those that have a thread, by name."""

    @staticmethod
    def of_this_loop() -> Resolver:
        """The resolver that all users of the running event loop share."""
        return _RESOLVERS.setdefault(asyncio.get_running_loop(), Resolver())

    async def look_up(self, host: str, *, owner: Owner) -> list[Address]:
        """Return the addresses of a name, without a port.

        Raises:
            OSError, UnicodeError: it has none, or they could not be found out.
        """
        literal = _literal(host)
        if literal is not None:
            return [literal]
        under_way = self._under_way.get(host) or self._asked.get((owner, host))
        if under_way is None:
            under_way = asyncio.ensure_future(self._ask(host, owner))
            self._asked[owner, host] = under_way
            under_way.add_done_callback(lambda ended: self._forget(owner, host, ended))
        return await asyncio.shield(under_way)

    def _forget(self, owner: Owner, host: str, ended: asyncio.Future[list[Address]]) -> None:
        del self._asked[owner, host]
        _mark_as_seen(ended)

    async def _ask(self, host: str, owner: Owner) -> list[Address]:
        try:
            async with asyncio.timeout(_PLACE_SECONDS):
                await self._places.take(owner)
        except (Crowded, TimeoutError):
            raise OSError(0, "too many names are looked up for this account or token") from None
        under_way = self._under_way.get(host)
        if under_way is None:
            under_way = self._begin(host, owner)
        else:  # another owner has begun it meanwhile
            self._places.give_back(owner)
        return await asyncio.shield(under_way)

    def _begin(self, host: str, owner: Owner) -> asyncio.Future[list[Address]]:
        """Look up a name in a thread. The place is given back when the thread ends."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Address]] = loop.create_future()
        answer.add_done_callback(_mark_as_seen)
        self._under_way[host] = answer

        def end(found: list[Address] | Exception) -> None:
            del self._under_way[host]
            self._places.give_back(owner)
            if answer.done():  # cancelled, as the loop ends
                return
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def run() -> None:
            found = _look_up(host)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(end, found)

        try:
            threading.Thread(target=run, name="name look-up", daemon=True).start()
        except RuntimeError as error:
            end(OSError(0, str(error)))
        return answer


_RESOLVERS: WeakKeyDictionary[asyncio.AbstractEventLoop, Resolver] = WeakKeyDictionary()


def _look_up(host: str) -> list[Address] | Exception:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return error
    return [
        Address(family, sockaddr)  # type: ignore[arg-type] # of these families it has this form
        for family, _, _, _, sockaddr in found
        if family in _FAMILIES
    ]


def _literal(host: str) -> Address | None:
    """The address that a text is; None for a name, and for an address with a zone."""
    if "%" in host:
        return None
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    if version == 4:
        return Address(socket.AF_INET, (host, 0))
    return Address(socket.AF_INET6, (host, 0, 0, 0))


def _mark_as_seen(ended: asyncio.Future[list[Address]]) -> None:
    """All callers may have gone: their time was up."""
    if not ended.cancelled():
        ended.exception()
