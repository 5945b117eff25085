"""Who may call, and what a refusal says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from slurper.api.envelope import Code
from slurper.settings import Settings
from tests.unit.api.conftest import ACCOUNT, JOBS, TOKEN, Api, running

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
    token = await api.tokens.create("one", ACCOUNT)
    headers = {"authorization": f"Bearer {token}"}
    assert (await get(api, headers)).status_code == 200
    refusal(await get(api, headers, account="another"))
    await api.tokens.revoke("one")
    refusal(await get(api, headers))


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
