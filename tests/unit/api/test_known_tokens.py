"""Guesses from an address that has failed too often cost no query each."""

from __future__ import annotations

import asyncio

import pytest

from slurper.api import known_tokens
from slurper.api.attempts import BURST
from slurper.api.known_tokens import READ_SECONDS, KnownTokens
from slurper.database.tokens import TokenStore
from tests.unit.api.conftest import JOBS, Api


class Counted:
    """Counts what is asked of a store of tokens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.finds = self.readings = 0
        find, hashes = TokenStore.find, TokenStore.hashes

        async def counted_find(store: TokenStore, token: str) -> object:
            self.finds += 1
            return await find(store, token)

        async def counted_hashes(store: TokenStore) -> frozenset[bytes]:
            self.readings += 1
            return await hashes(store)

        monkeypatch.setattr(TokenStore, "find", counted_find)
        monkeypatch.setattr(TokenStore, "hashes", counted_hashes)


async def ask(api: Api, token: str) -> int:
    answer = await api.client.get(JOBS, headers={"authorization": f"Bearer {token}"})
    return answer.status_code


async def test_guesses_of_a_limited_address_make_no_query_each(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_tokens, "READ_SECONDS", 3_600.0)
    token = await api.tokens.create("one")
    counted = Counted(monkeypatch)
    assert [await ask(api, f"guess-{number}") for number in range(BURST)] == [401] * BURST
    assert counted.finds == BURST
    assert [await ask(api, f"more-{number}") for number in range(50)] == [429] * 50
    assert (counted.finds, counted.readings) == (BURST, 1)
    assert await ask(api, token) == 200
    await api.tokens.revoke("one")
    assert await ask(api, token) == 429, "that it was known does not make it valid"


async def test_a_token_made_later_works_from_a_limited_address(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_tokens, "READ_SECONDS", 0.0)
    for number in range(BURST + 1):
        await ask(api, f"guess-{number}")
    assert await ask(api, await api.tokens.create("late")) == 200


async def test_many_at_once_share_a_reading(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    at = 1_000.0
    known = KnownTokens(api.tokens, lambda: at)
    token = await api.tokens.create("one")
    counted = Counted(monkeypatch)
    asked = ("wrong", token, "wrong too")
    assert await asyncio.gather(*map(known.has, asked)) == [False, True, False]
    later = await api.tokens.create("two")
    assert not await known.has(later)
    assert counted.readings == 1
    at += READ_SECONDS
    assert await known.has(later)
    assert counted.readings == 2
