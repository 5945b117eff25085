"""Who may call, and what a refusal says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from slurper import errors
from slurper.api import auth
from slurper.api.attempts import BURST
from slurper.api.audit import Call
from slurper.api.envelope import Code, Refusal
from slurper.api.known_tokens import READ_SECONDS
from slurper.cli import serving
from slurper.database import schema
from slurper.database.tokens import TokenInfo, TokenStore
from slurper.job.access import Scope
from slurper.service.jobs import JobService
from slurper.settings import Settings
from tests.unit.api import bodies
from tests.unit.api.conftest import ACCOUNT, JOBS, TOKEN, Api, running
from tests.unit.database.values import held

NO_HEADERS: dict[str, str] = {}


async def get(api: Api, headers: dict[str, str], *, account: str = ACCOUNT) -> httpx.Response:
    """List jobs with exactly these headers."""
    path = JOBS.replace(ACCOUNT, account)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(api.app), base_url="http://slurper", headers=headers
    ) as client:
        return await client.get(path)


def refusal(answer: httpx.Response) -> str:
    """The text of a 401, once its form has been checked."""
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    body = answer.json()
    assert (body["success"], body["result"], body["messages"]) == (False, None, [])
    (error,) = body["errors"]
    assert error["code"] == Code.AUTHENTICATION
    message: str = error["message"]
    assert message.startswith("Authentication error: ")
    return message


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {TOKEN}"},
        {"authorization": f"bearer   {TOKEN}"},
        {"x-auth-key": TOKEN, "x-auth-email": "user@example.com"},
        {"x-auth-key": TOKEN},
        {"x-auth-user-service-key": TOKEN},
        {"authorization": f"Bearer {TOKEN}", "x-auth-email": "user@example.com"},
        {"authorization": f"Bearer {TOKEN}", "x-auth-key": "left-over"},
        {"authorization": "Bearer left-over", "x-auth-key": TOKEN},
    ],
)
async def test_a_valid_token_in_any_header_opens(api: Api, headers: dict[str, str]) -> None:
    assert (await get(api, headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"x-auth-key": "wrong", "x-auth-email": "user@example.com"},
        {"x-auth-user-service-key": "wrong"},
        {"authorization": "Bearer \u00fcml\u00e4ut"},
    ],
)
async def test_an_invalid_token_is_named(api: Api, headers: dict[str, str]) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    transport = httpx.ASGITransport(api.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://slurper") as client:
        answer = await client.get(JOBS, headers=raw)
    assert "not valid for this account" in refusal(answer)


@pytest.mark.parametrize(
    "headers", [NO_HEADERS, {"authorization": "Bearer "}, {"authorization": f"Basic {TOKEN}"}]
)
async def test_without_a_token_the_text_says_where_it_goes(
    api: Api, headers: dict[str, str]
) -> None:
    assert "Authorization: Bearer" in refusal(await get(api, headers))


async def test_an_email_alone_is_traced_to_the_environment(api: Api) -> None:
    answer = await get(api, {"x-auth-email": "user@example.com"})
    assert "unset CLOUDFLARE_EMAIL" in refusal(answer)


async def test_a_token_of_the_database_is_good_for_its_account_only(api: Api) -> None:
    token = await api.tokens.create("one", (ACCOUNT,))
    headers = {"authorization": f"Bearer {token}"}
    assert (await get(api, headers)).status_code == 200
    refusal(await get(api, headers, account="another"))
    await api.tokens.revoke("one")
    refusal(await get(api, headers))


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("scope", list(Scope))
async def test_a_scope_that_is_too_small_is_named(api: Api, scope: Scope) -> None:
    headers = bearer(await api.tokens.create("one", scope=scope))
    assert (await get(api, headers)).status_code == 200
    answer = await api.client.put(f"{JOBS}/abortAll", headers=headers)
    if scope is not Scope.READ:
        assert answer.status_code == 200
        return
    assert answer.status_code == 403
    (error,) = answer.json()["errors"]
    assert error["code"] == Code.SCOPE
    assert "has the scope read, and this operation needs write" in error["message"]
    assert "--scope write" in error["message"]


ACCOUNTS = st.sampled_from(("a", "b", "c"))


@given(
    scope=st.sampled_from(list(Scope)),
    accounts=st.none() | st.lists(ACCOUNTS, max_size=2).map(tuple),
    expired=st.booleans(),
    needs=st.sampled_from(list(Scope)),
    account=st.none() | ACCOUNTS,
)
def test_a_token_opens_what_all_of_its_limits_allow(
    scope: Scope, accounts: tuple[str, ...] | None, expired: bool, needs: Scope, account: str | None
) -> None:
    """A call of no account is about the whole service."""
    token = TokenInfo(
        name="n",
        accounts=accounts,
        scope=scope,
        created_at=datetime.now(UTC),
        expires_at=None,
        has_expired=expired,
        used_at=None,
    )
    call = Call(address=None, needs=needs, account_id=account)
    denied = auth._denied(token, call)
    in_reach = not expired and (accounts is None or account in accounts)
    is_enough = list(Scope).index(scope) >= list(Scope).index(needs)
    assert (denied is None) == (in_reach and is_enough)
    if denied is not None:
        assert denied.who == "n"
        assert denied.needs is (needs if in_reach else None)


async def test_what_concerns_the_whole_service_needs_an_admin(api: Api) -> None:
    async def admit(token: str) -> None:
        call = Call(address=None, operation="metrics")
        await api.app.state.gate.admit(call, bearer(token))

    await admit(TOKEN)
    await admit(await api.tokens.create("admin", scope=Scope.ADMIN))
    for name, accounts, status in (("all", None, 403), ("some", (ACCOUNT,), 401)):
        with pytest.raises(Refusal) as caught:
            await admit(await api.tokens.create(name, accounts))
        assert caught.value.status == status


async def test_of_several_tokens_the_one_that_may_counts(api: Api) -> None:
    reads = await api.tokens.create("reads", scope=Scope.READ)
    writes = await api.tokens.create("writes", scope=Scope.WRITE)
    for first, second in ((reads, writes), (writes, reads)):
        headers = bearer(first) | {"x-auth-key": second}
        assert (await api.client.put(f"{JOBS}/abortAll", headers=headers)).status_code == 200
    for first, second in ((reads, "wrong"), ("wrong", reads)):
        headers = bearer(first) | {"x-auth-key": second}
        answer = await api.client.put(f"{JOBS}/abortAll", headers=headers)
        assert answer.status_code == 403, "the text about the token that exists helps more"


async def test_an_expired_token_is_void_and_says_so(api: Api) -> None:
    token = await api.tokens.create("brief", expires=timedelta(hours=1))
    assert (await get(api, bearer(token))).status_code == 200
    past = update(schema.tokens).values(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    await api.store.database.write(lambda connection: connection.execute(past))
    assert "has expired" in refusal(await get(api, bearer(token)))


async def test_the_use_of_a_token_is_noted_once_a_minute(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await api.tokens.create("busy")
    noted: list[str] = []
    note = TokenStore.note_use

    async def noting(tokens: TokenStore, name: str) -> None:
        noted.append(name)
        await note(tokens, name)

    monkeypatch.setattr(TokenStore, "note_use", noting)
    for _ in range(5):
        assert (await get(api, bearer(token))).status_code == 200
    await asyncio.gather(*api.app.state.gate._noting)
    assert noted == ["busy"]
    (info,) = await api.tokens.list()
    assert info.used_at is not None


async def test_a_request_does_not_wait_for_the_note_of_its_use(api: Api) -> None:
    """Reads never wait for those who write."""
    token = await api.tokens.create("busy")
    async with held(api.store.database):
        async with asyncio.timeout(30):
            assert (await get(api, bearer(token))).status_code == 200
        assert (await api.tokens.list())[0].used_at is None
    await asyncio.gather(*api.app.state.gate._noting)


async def test_failures_are_limited_and_a_right_token_works_all_the_time(api: Api) -> None:
    for _ in range(BURST):
        refusal(await get(api, bearer("wrong")))
        assert (await get(api, bearer(TOKEN))).status_code == 200
    for headers in (bearer("wrong"), NO_HEADERS, bearer("wrong") | {"x-forwarded-for": "::9"}):
        answer = await get(api, headers)
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 3
        assert answer.headers["x-should-retry"] == "false"
        (error,) = answer.json()["errors"]
        assert error["code"] == Code.AUTHENTICATION_LIMIT
    assert (await get(api, bearer(TOKEN))).status_code == 200
    token = await api.tokens.create("never used before")
    await asyncio.sleep(READ_SECONDS)
    assert (await get(api, bearer(token))).status_code == 200


async def test_a_token_that_is_revoked_while_it_makes_a_job_makes_none(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def create(*_: object, **__: object) -> str:
        raise errors.TokenRevoked("revoked")

    monkeypatch.setattr(JobService, "create", create)
    answer = await api.client.post(JOBS, json=bodies.create())
    assert "was revoked while" in refusal(answer)


async def test_the_service_checks_that_before_anything_else(tmp_path: Path) -> None:
    class Listener:
        def getsockname(self) -> tuple[str, int]:
            return "192.0.2.1", 8080

    settings = Settings.model_validate({"data_dir": tmp_path / "new", "api_token": "short"})
    door = serving.Door(listener=cast("Any", Listener()))
    with pytest.raises(errors.ConfigurationError, match="SLURPER_API_TOKEN has 5 characters"):
        await serving.serve(settings, door, access_log=False)
    assert not (tmp_path / "new").exists()


async def test_without_any_token_the_text_says_how_to_make_one(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path})
    async with running(settings) as api:
        for headers in (NO_HEADERS, {"authorization": f"Bearer {TOKEN}"}):
            assert "slurper token create" in refusal(await get(api, headers))
        token = await api.tokens.create("first")
        assert "Authorization: Bearer" in refusal(await get(api, NO_HEADERS))
        assert (await get(api, {"x-auth-key": token})).status_code == 200


async def test_nothing_is_read_before_the_caller_is_known(api: Api) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"{"

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(api.app), base_url="http://slurper"
    ) as client:
        refusal(await client.post(JOBS, content=body()))
    assert read == 0
