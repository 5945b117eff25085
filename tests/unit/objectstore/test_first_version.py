"""Listing stores that know ListObjects only, of both kinds: refusing, and not noticing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from slurper import errors
from slurper.job.model import Capabilities
from slurper.objectstore import factory
from slurper.objectstore.s3.store import S3ObjectStore
from slurper.service.probes.check import Check
from slurper.service.probes.source import check_listed
from tests.unit.http.scripted import Peer, Script, ScriptedServer, answer
from tests.unit.objectstore.answers import PLAIN, Open, error, line_of

KEYS = [f"k{number:02d}" for number in range(7)]


def of_first_version(*, refuses: bool) -> Script:
    """A store of three keys a page that knows `marker`, and `list-type` not at all."""

    async def script(peer: Peer) -> None:
        while True:
            target = (await peer.request()).line.decode().split(" ")[1]
            query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
            if refuses and "list-type" in query:
                await peer.send(error("501 Not Implemented", "NotImplemented"))
                continue
            marker = query.get("marker", "")
            left = [key for key in KEYS if key > marker]
            rows = "".join(f"<Contents><Key>{k}</Key><Size>1</Size></Contents>" for k in left[:3])
            flag = f"<IsTruncated>{str(len(left) > 3).lower()}</IsTruncated>"
            body = f"<ListBucketResult><Marker>{marker}</Marker>{flag}{rows}</ListBucketResult>"
            await peer.send(answer(body.encode()))

    return script


async def everything(store: S3ObjectStore) -> list[str]:
    keys: list[str] = []
    while True:
        page = await store.list_page(start_after=keys[-1] if keys else None)
        keys += [meta.key for meta in page.objects]
        if page.finished:
            return keys


@pytest.mark.parametrize("refuses", [True, False])
async def test_every_page_is_listed_once(open_s3: Open, *, refuses: bool) -> None:
    store, server = await open_s3(script=of_first_version(refuses=refuses))
    assert await everything(store) == KEYS
    assert len(server.requests) == 4  # three pages, and one question too many
    assert factory.found_since(PLAIN, store.dialect) == Capabilities(list_version=1)
    before = len(server.requests)
    assert await everything(store) == KEYS
    assert len(server.requests) == before + 3


@pytest.mark.parametrize("refuses", [True, False])
async def test_by_what_the_pages_name_every_page_is_listed_once(
    open_s3: Open, *, refuses: bool
) -> None:
    """Where no marker is named, it is the last key."""
    store, _ = await open_s3(script=of_first_version(refuses=refuses))
    page = await store.list_on()
    keys = [meta.key for meta in page.objects]
    while not page.finished:
        page = await store.list_on(token=page.token)
        keys += [meta.key for meta in page.objects]
    assert keys == KEYS


async def test_a_token_that_is_refused_is_no_marker(open_s3: Open) -> None:
    """A store of version 2 that does not take it would begin somewhere after its text."""
    store, server = await open_s3(error("400 Bad Request", "InvalidArgument"))
    with pytest.raises(errors.StoreError, match="InvalidArgument"):
        await store.list_on(token="1ueGcxLPRx1Tr")
    assert len(server.requests) == 1
    assert "continuation-token=1ueGcxLPRx1Tr" in line_of(server)


@pytest.mark.parametrize("refuses", [True, False])
async def test_a_check_finds_it_out(open_s3: Open, *, refuses: bool) -> None:
    dialect = replace(PLAIN, assumed=True)
    store, _ = await open_s3(script=of_first_version(refuses=refuses), dialect=dialect)
    now = asyncio.get_running_loop().time()
    check = Check(began=now, deadline=now + 60, open_hasty=lambda same: same)
    await check_listed(store, "", check)
    assert check.found.list_version == 1
    (note,) = check.notes  # of the read that follows: the script knows none
    assert "could not be read" in note


async def test_the_dialect_can_say_so_before(open_s3: Open) -> None:
    dialect = replace(PLAIN, list_version=1)
    store, server = await open_s3(script=of_first_version(refuses=True), dialect=dialect)
    assert await everything(store) == KEYS
    assert "list-type" not in "".join(line_of(server, n) for n in range(len(server.requests)))


async def test_a_store_that_refuses_both_is_told_by_its_first_word(open_s3: Open) -> None:
    store, server = await open_s3(
        error("501 Not Implemented", "NotImplemented"), error("400 Bad Request", "Other")
    )
    with pytest.raises(errors.StoreError, match="ListObjectsV2 answered HTTP 501"):
        await store.list_page()
    assert _both_asked(server)


async def test_a_second_version_that_repeats_itself_is_no_first(open_s3: Open) -> None:
    body = (
        b"<ListBucketResult><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>"
        b"<Contents><Key>a</Key><Size>1</Size></Contents></ListBucketResult>"
    )
    store, server = await open_s3(answer(body))
    with pytest.raises(errors.ListingError, match="begins with"):
        await store.list_page(start_after="b")
    assert ["list-type=2" in line_of(server, n) for n in range(len(server.requests))] == [True] * 3


def _both_asked(server: ScriptedServer) -> bool:
    return ["list-type" in line_of(server, number) for number in (0, 1)] == [True, False]
