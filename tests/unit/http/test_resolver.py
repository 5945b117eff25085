"""Look-ups that do not come back keep places of their own account, and nothing else."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from slurper import errors
from slurper.http import resolver
from slurper.http.places import Owner
from slurper.http.resolver import MOST, OF_ACCOUNT, OF_TOKEN, Address, Resolver
from tests.unit.http.conftest import Connect, get

MOST_OF_ONE = OF_ACCOUNT.places
HERE = Address(socket.AF_INET, ("127.0.0.1", 0))


class Names:
    """Stands in for the system's resolver. Names that begin with "slow" never come back."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.end = threading.Event()

    def look_up(self, host: str) -> list[Address] | Exception:
        self.asked.append(host)
        if host.startswith("slow"):
            self.end.wait()
        if host.startswith("no"):
            return socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [HERE]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    stand_in = Names()
    monkeypatch.setattr(resolver, "_look_up", stand_in.look_up)
    yield stand_in
    stand_in.end.set()


def asking(host: str, account: str, token: str | None = None) -> asyncio.Task[list[Address]]:
    owner = Owner(account, token)
    return asyncio.ensure_future(Resolver.of_this_loop().look_up(host, owner=owner))


async def begun(names: Names, count: int) -> None:
    """Wait until so many look-ups have begun."""
    async with asyncio.timeout(60):
        while len(names.asked) < count:  # noqa: ASYNC110 - threads are waited for
            await asyncio.sleep(0.001)


async def test_slow_names_of_one_account_hold_up_no_other(names: Names) -> None:
    slow = [asking(f"slow-{number}", "a") for number in range(20)]
    own = asking("fine", "a")
    await begun(names, MOST_OF_ONE)
    async with asyncio.timeout(60):
        assert await asking("fine-too", "b") == [HERE]
    assert len(names.asked) == MOST_OF_ONE + 1
    assert not any(task.done() for task in (*slow, own))
    names.end.set()
    async with asyncio.timeout(60):
        await asyncio.gather(*slow, own)


async def test_all_accounts_together_have_so_many_threads(names: Names) -> None:
    accounts = MOST // MOST_OF_ONE + 2
    slow = [asking(f"slow-{a}-{n}", f"{a}") for a in range(accounts) for n in range(MOST_OF_ONE)]
    await begun(names, MOST)
    await asyncio.sleep(0.05)
    assert len(names.asked) == MOST
    names.end.set()
    async with asyncio.timeout(60):
        await asyncio.gather(*slow)
    assert len(names.asked) == len(slow)


async def test_a_token_for_every_account_does_not_take_all_threads(names: Names) -> None:
    accounts = [f"{number}" for number in range(MOST)]
    slow = [asking(f"slow-{account}", account, "all") for account in accounts]
    await begun(names, OF_TOKEN.places)
    async with asyncio.timeout(60):
        assert await asking("fine", "another", "own") == [HERE]
        assert await asking("fine-too", accounts[-1], "own") == [HERE], "not its account"
    assert len(names.asked) == OF_TOKEN.places + 2
    names.end.set()
    async with asyncio.timeout(60):
        await asyncio.gather(*slow)


async def test_who_asks_for_the_same_name_shares_the_answer(names: Names) -> None:
    slow = [asking("slow", owner) for owner in "aaaabbbbcccc"]
    await begun(names, 1)
    await asyncio.sleep(0.02)
    names.end.set()
    async with asyncio.timeout(60):
        assert await asyncio.gather(*slow) == [[HERE]] * 12
        assert names.asked == ["slow"]
        assert await asking("slow", "a") == [HERE]
    assert names.asked == ["slow", "slow"], "an answer is not kept"


async def test_a_caller_that_goes_takes_nobody_along(names: Names) -> None:
    leaving, staying = asking("slow", "a"), asking("slow", "a")
    await begun(names, 1)
    leaving.cancel()
    await asyncio.sleep(0)
    names.end.set()
    async with asyncio.timeout(60):
        assert await staying == [HERE]
    assert leaving.cancelled()


@pytest.mark.usefixtures("names")
async def test_a_failure_frees_its_place() -> None:
    for number in range(3 * MOST_OF_ONE):
        with pytest.raises(socket.gaierror):
            await Resolver.of_this_loop().look_up(f"no-{number}", owner=Owner("a"))


async def test_a_thread_that_cannot_be_started_is_a_failed_look_up(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as broken:
        broken.setattr(threading.Thread, "start", refuse)
        for number in range(2 * MOST_OF_ONE):
            with pytest.raises(OSError, match="can't start new thread"):
                await Resolver.of_this_loop().look_up(f"fine-{number}", owner=Owner("a"))
    assert await Resolver.of_this_loop().look_up("fine", owner=Owner("a")) == [HERE]
    assert names.asked == ["fine"]


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", HERE),
        ("::1", Address(socket.AF_INET6, ("::1", 0, 0, 0))),
        ("::ffff:10.0.0.1", Address(socket.AF_INET6, ("::ffff:10.0.0.1", 0, 0, 0))),
    ],
)
async def test_an_address_needs_no_look_up(names: Names, host: str, address: Address) -> None:
    slow = [asking(f"slow-{number}", "a") for number in range(MOST_OF_ONE)]
    await begun(names, MOST_OF_ONE)
    assert await Resolver.of_this_loop().look_up(host, owner=Owner("a")) == [address]
    assert address.at(443).sockaddr[:2] == (host, 443)
    names.end.set()
    await asyncio.gather(*slow)


async def test_a_client_waits_for_a_name_as_long_as_for_a_connection(
    names: Names, connect: Connect
) -> None:
    client = connect("http://slow.test", connect_timeout_seconds=0.1)
    with pytest.raises(errors.TransportError, match="resolving the host name"):
        await client.send(get())
    assert names.asked == ["slow.test"]


def test_a_process_ends_though_a_look_up_does_not() -> None:
    program = """
import asyncio, time
from slurper.http import resolver
from slurper.http.places import Owner
resolver._look_up = lambda host: time.sleep(3600)
async def main():
    asyncio.ensure_future(resolver.Resolver.of_this_loop().look_up("slow", owner=Owner("a")))
    await asyncio.sleep(0.1)
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


GLIBC = platform.libc_ver()[0] == "glibc"


@pytest.mark.skipif(not GLIBC, reason="only glibc reads RES_OPTIONS")
@pytest.mark.parametrize(
    ("given", "seconds", "attempts"), [("", 2, 2), ("attempts:1", 2, 1), ("timeout:7", 7, 2)]
)
def test_glibc_gives_up_sooner_unless_the_operator_says_otherwise(
    given: str, seconds: int, attempts: int
) -> None:
    program = """
import ctypes
from slurper.http import resolver
resolver.limit_system_time_outs()
resolver.limit_system_time_outs()
libc = ctypes.CDLL(None)
assert libc.__res_init() == 0
libc.__res_state.restype = ctypes.POINTER(ctypes.c_int)  # it begins with `retrans` and `retry`
print(*libc.__res_state()[:2])
"""
    env = {**os.environ, "RES_OPTIONS": given}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=env, check=True, capture_output=True, timeout=120
    )
    assert ended.stdout.split() == [b"%d" % seconds, b"%d" % attempts]
