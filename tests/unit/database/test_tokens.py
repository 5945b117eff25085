"""Tokens are shown once, kept as hashes, and void as soon as they are revoked."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from sqlalchemy import select

from slurper import errors
from slurper.database import schema
from slurper.database.connection import Database
from slurper.database.tokens import TokenStore
from tests.unit.database.values import Store


async def test_a_token_opens_its_account_only(store: Store) -> None:
    tokens = TokenStore(store.database)
    mine, everyones = await tokens.create("mine", "a" * 32), await tokens.create("everyone's")
    assert await tokens.verify(mine, "a" * 32)
    assert not await tokens.verify(mine, "b" * 32)
    assert await tokens.verify(everyones, "b" * 32)
    for wrong in ("", mine[:-1], mine + "x", mine.upper(), "slurper_", "\udc80", "\x00"):
        assert not await tokens.verify(wrong, "a" * 32)


async def test_tokens_are_long_random_and_recognisable(store: Store) -> None:
    tokens = TokenStore(store.database)
    made = {await tokens.create(str(number)) for number in range(5)}
    assert len(made) == 5
    assert all(token.startswith("slurper_") and len(token) >= 50 for token in made)


async def test_tokens_are_listed_without_themselves_and_revoked_by_name(store: Store) -> None:
    tokens = TokenStore(store.database)
    assert await tokens.list() == ()
    token = await tokens.create("b", "a" * 32)
    await tokens.create("a")
    assert [(one.name, one.account_id) for one in await tokens.list()] == [
        ("a", None),
        ("b", "a" * 32),
    ]
    assert await tokens.revoke("b")
    assert not await tokens.revoke("b")
    assert not await tokens.verify(token, "a" * 32)
    assert [one.name for one in await tokens.list()] == ["a"]


@pytest.mark.parametrize(("name", "message"), [("ci", "named 'ci' exists"), ("", "needs a name")])
async def test_a_token_needs_a_name_of_its_own(store: Store, name: str, message: str) -> None:
    tokens = TokenStore(store.database)
    token = await tokens.create("ci")
    with pytest.raises(errors.ConfigurationError, match=message):
        await tokens.create(name)
    assert await tokens.verify(token, "a" * 32)


async def test_only_the_hash_is_stored(sqlite_store: Store, tmp_path: Path) -> None:
    tokens = TokenStore(sqlite_store.database)
    token = await tokens.create("ci")
    on_disk = b"".join(file.read_bytes() for file in tmp_path.glob("slurper.db*"))  # noqa: ASYNC240 - small and local
    assert token.encode() not in on_disk
    assert token.removeprefix("slurper_").encode() not in on_disk
    stored = await sqlite_store.database.read(
        lambda connection: connection.scalar(select(schema.tokens.c.sha256))
    )
    assert stored == hashlib.sha256(token.encode()).digest()


async def test_a_process_of_its_own_may_manage_tokens(database_url: str) -> None:
    command_line = await Database.open(database_url)
    token = await TokenStore(command_line).create("ci")
    await command_line.close()
    server = await Store.open(database_url)
    assert await TokenStore(server.database).verify(token, "a" * 32)
    await server.close()
