"""What Google Cloud Storage asks of a client beyond what every store does."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from slurper import errors
from slurper.http import client as http_client
from slurper.http.client import TransportOptions
from slurper.objectstore.base import Body, ByteRange, ObjectHeaders, ObjectMeta, StoreAddress
from slurper.objectstore.gcs.store import GcsObjectStore
from slurper.objectstore.gcs.tokens import TOKEN_URI, Accounts
from slurper.planning.keyspace import KeyRange
from slurper.transfer import listing
from tests.servers.gcs.server import GcsServer, Kept, Refused, address_of, gcs_server
from tests.servers.gcs.serving import Answer
from tests.servers.gcs.tokens import ACCOUNT, pem

NO_HEADERS = ObjectHeaders()
MIB = 1 << 20
RATE = Refused(403, "rateLimitExceeded", "The rate is too high.")
USER_RATE = Refused(403, "userRateLimitExceeded", "The rate is too high.")

Open = Callable[..., GcsObjectStore]


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with gcs_server() as running:
        yield running


@pytest.fixture
def bucket(server: GcsServer) -> str:
    return server.make_bucket()


@pytest.fixture
async def open_store(server: GcsServer, bucket: str) -> AsyncIterator[Open]:
    opened: list[GcsObjectStore] = []

    def start(
        *,
        accounts: Accounts | None = None,
        clock: Callable[[], float] = time.time,
        **changes: object,
    ) -> GcsObjectStore:
        address: StoreAddress = replace(address_of(server, bucket), **changes)  # type: ignore[arg-type]
        options = TransportOptions(request_retries=2)
        opened.append(GcsObjectStore(address, options, accounts=accounts, clock=clock))
        return opened[-1]

    yield start
    for store in opened:
        await store.close()


@pytest.fixture
def store(open_store: Open) -> GcsObjectStore:
    return open_store()


ITEM = '{{"name": "{}", "size": "1", "generation": "7"}}'


def lines(server: GcsServer, part: str) -> list[str]:
    return [asked.line for asked in server.asked if part in asked.path]


# Tokens


async def test_one_token_serves_all_requests(server: GcsServer, store: GcsObjectStore) -> None:
    await asyncio.gather(*(store.put(f"k{n}", Body([b"x"]), NO_HEADERS) for n in range(20)))
    assert len(server.tokens.given) == 1


@pytest.fixture
def accounts() -> Accounts:
    return Accounts()


async def test_stores_of_one_account_share_its_token(
    server: GcsServer, open_store: Open, accounts: Accounts
) -> None:
    first, second = open_store(accounts=accounts), open_store(accounts=accounts)
    await asyncio.gather(first.list_page(), second.list_page())
    assert len(server.tokens.given) == 1
    server.tokens.revoke_all()
    await asyncio.gather(first.list_page(), second.list_page())
    assert len(server.tokens.given) == 2


async def test_a_token_stays_until_the_last_store_of_its_account_is_closed(
    server: GcsServer, bucket: str, accounts: Accounts
) -> None:
    def start() -> GcsObjectStore:
        return GcsObjectStore(address_of(server, bucket), TransportOptions(), accounts=accounts)

    first, second = start(), start()
    await first.list_page()
    await first.close()
    await second.list_page()
    assert len(server.tokens.given) == 1
    await second.close()
    third = start()
    await third.list_page()
    assert len(server.tokens.given) == 2
    await third.close()


async def test_another_key_of_an_account_gets_a_token_of_its_own(
    server: GcsServer, open_store: Open, accounts: Accounts
) -> None:
    await open_store(accounts=accounts).list_page()
    wrong = replace(ACCOUNT, private_key=pem("wrong"))
    with pytest.raises(errors.CredentialsRejected):
        await open_store(accounts=accounts, credentials=wrong).list_page()
    assert server.tokens.refused > 0


async def test_a_token_is_renewed_while_it_still_serves(
    server: GcsServer, store: GcsObjectStore
) -> None:
    server.tokens.lifetime_seconds = 5
    await store.list_page()
    (first,) = server.tokens.given
    store._tokens._renew_at = 0.0
    await store.list_page()  # does not wait for the new one
    assert store._tokens._renewal is not None
    await store._tokens._renewal
    await store.list_page()
    assert server.tokens.given[0] == first
    assert server.asked[-1].headers["authorization"] == f"Bearer {server.tokens.given[1]}"
    assert server.tokens.refused == 0


async def test_a_renewal_that_fails_in_the_background_harms_nobody(
    server: GcsServer, store: GcsObjectStore
) -> None:
    await store.list_page()
    store._tokens._credentials = replace(ACCOUNT, private_key=pem("wrong"))
    store._tokens._renew_at = 0.0
    await store.list_page()
    assert store._tokens._renewal is not None
    await asyncio.wait([store._tokens._renewal])
    refused = server.tokens.refused
    assert refused > 0
    await store.list_page()
    await store.list_page()
    assert server.tokens.refused == refused  # it is not tried again with every request


async def test_a_revoked_token_is_replaced(server: GcsServer, store: GcsObjectStore) -> None:
    await store.list_page()
    server.tokens.revoke_all()
    await store.list_page()
    assert len(server.tokens.given) == 2


@pytest.mark.parametrize("hours", [-3, 3])
async def test_a_clock_that_is_off_is_corrected(
    server: GcsServer, open_store: Open, hours: int
) -> None:
    store = open_store(clock=lambda: time.time() + hours * 3600)
    await store.list_page()
    assert (server.tokens.refused, len(server.tokens.given)) == (1, 1)


async def test_an_account_that_is_refused_stops_the_job(
    server: GcsServer, open_store: Open
) -> None:
    store = open_store(credentials=replace(ACCOUNT, private_key=pem("wrong")))
    with pytest.raises(errors.CredentialsRejected, match="invalid_grant") as refused:
        await store.list_page()
    assert refused.value.blocks_job
    assert lines(server, "/storage/") == []


async def test_a_token_endpoint_obeys_the_endpoint_policy(
    server: GcsServer, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slurper.objectstore.gcs.tokens.TOKEN_URI", server.token_uri)
    with pytest.raises(errors.EndpointRefused):
        await open_store().list_page()
    assert server.token_uri != TOKEN_URI


async def test_a_token_does_not_show_in_errors(server: GcsServer, store: GcsObjectStore) -> None:
    await store.list_page()
    server.refusals = [Refused(400, "invalid", f"what is {server.tokens.given[0]}?")]
    with pytest.raises(errors.StoreError) as refused:
        await store.list_page()
    assert "***" in str(refused.value)
    assert server.tokens.given[0] not in str(refused.value)


# Reading


async def test_gzip_arrives_as_it_is_stored(
    server: GcsServer, bucket: str, store: GcsObjectStore
) -> None:
    stored = gzip.compress(b"plain" * 1000)
    server.add(bucket, "k", stored, contentEncoding="gzip", contentType="text/plain")
    download = await store.get("k")
    assert bytes(download.body) == stored
    assert download.stored.headers.content["content-encoding"] == "gzip"
    part = await store.get("k", byte_range=ByteRange(2, 9))
    assert bytes(part.body) == stored[2:9]


CODINGS = ("gzip", "x-gzip", "gzip,gzip", "gzip, gzip", "aws-chunked,gzip", "GZIP", " gzip", "br")


@pytest.mark.parametrize("coding", CODINGS)
async def test_whatever_its_coding_is_called_an_object_arrives_as_it_is_stored(
    server: GcsServer, bucket: str, store: GcsObjectStore, coding: str
) -> None:
    stored = gzip.compress(b"plain" * 1000)
    server.add(bucket, "k", stored, contentEncoding=coding, contentType="text/plain")
    download = await store.get("k")
    assert bytes(download.body) == stored
    part = await store.get("k", byte_range=ByteRange(2, 9))
    assert bytes(part.body) == stored[2:9]
    kept = download.stored.headers.content["content-encoding"]
    assert kept == coding.replace("aws-chunked,", "")
    await store.put("copy", download.body, download.stored.headers)
    assert bytes((await store.get("copy")).body) == stored


@pytest.mark.parametrize("kind", ["image/png", "application/gzip", "video/mp4"])
async def test_what_google_unzips_whatever_it_is_asked_fails_alone_and_says_what_helps(
    server: GcsServer, bucket: str, store: GcsObjectStore, kind: str
) -> None:
    stored = gzip.compress(b"plain" * 1000)
    server.add(bucket, "k", stored, contentEncoding="gzip", contentType=kind)
    with pytest.raises(errors.IntegrityError, match="stored with the coding gzip") as refused:
        await store.get("k")
    assert not refused.value.retryable
    assert "no-transform" in refused.value.advice
    server.touch(bucket, "k", cacheControl="public, no-transform")
    assert bytes((await store.get("k")).body) == stored


async def test_what_is_listed_costs_one_request_each(
    server: GcsServer, bucket: str, store: GcsObjectStore
) -> None:
    for n in range(5):
        server.add(bucket, f"k{n}", b"x", metadata={"n": str(n)}, cacheControl="no-store")
    page = await store.list_page()
    server.asked.clear()
    for n, meta in enumerate(page.objects):
        headers = (await store.get(meta.key, if_match=meta.etag)).stored.headers
        assert headers == ObjectHeaders({"cache-control": "no-store"}, {"n": str(n)})
    assert len(server.asked) == 5


async def test_metadata_that_changed_since_the_listing_is_read_again(
    server: GcsServer, bucket: str, store: GcsObjectStore
) -> None:
    server.add(bucket, "k", b"x", metadata={"n": "old"})
    (meta,) = (await store.list_page()).objects
    server.touch(bucket, "k", metadata={"n": "new"})
    download = await store.get("k", if_match=meta.etag)
    assert download.stored.headers.metadata == {"n": "new"}


async def test_what_google_makes_up_for_a_download_is_not_kept(
    server: GcsServer, bucket: str, store: GcsObjectStore
) -> None:
    server.add(bucket, "k", b"x", contentType="a/b")
    assert (await store.get("k")).stored.headers == ObjectHeaders({"content-type": "a/b"}, {})


async def test_bytes_that_contradict_their_checksum_are_refused(
    server: GcsServer, bucket: str, store: GcsObjectStore
) -> None:
    server.add(bucket, "k", b"12345").data = b"12346"
    with pytest.raises(errors.IntegrityError, match="crc32c"):
        await store.get("k")


async def test_every_storage_class_is_read(
    server: GcsServer, bucket: str, store: GcsObjectStore
) -> None:
    for name in ("STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"):
        server.add(bucket, name, b"x", storageClass=name)
        assert (await store.get(name)).stored.meta.storage_class == name
    assert store.dialect.unreadable_storage_classes == frozenset()


# Writing


async def test_custom_time_and_case_stay_at_google(
    server: GcsServer, bucket: str, store: GcsObjectStore
) -> None:
    about = {"customTime": "2001-02-03T04:05:06.789Z", "metadata": {"CamelCase": "grün\n😀"}}
    server.add(bucket, "from", b"x", **about)
    download = await store.get("from")
    await store.put("to", download.body, download.stored.headers)
    kept = server.buckets[bucket].objects["to"].resource
    assert {name: kept[name] for name in about} == about
    upload = (
        await store.create_upload(
            "large",
            replace(
                download.stored.headers, metadata={"goog-custom-time": "2001-02-03T04:05:06.789Z"}
            ),
        )
    ).upload_id
    part = await store.put_part("large", upload, 1, Body([b"x"]))
    await store.complete_upload("large", upload, [part])
    assert server.buckets[bucket].objects["large"].resource["customTime"] == about["customTime"]


async def test_another_process_may_complete_an_upload(
    server: GcsServer, bucket: str, open_store: Open
) -> None:
    first, second = open_store(), open_store()
    headers = ObjectHeaders({"content-type": "a/b"}, {"CamelCase": "gr\xc3\xbcn"})
    upload = (await first.create_upload("k", headers)).upload_id
    assert [found.upload_id for found in await second.list_uploads()] == [upload]
    part = await second.put_part("k", upload, 1, Body([b"x"]))
    await second.complete_upload("k", upload, [part])
    assert server.buckets[bucket].objects["k"].resource["metadata"] == {"CamelCase": "grün"}
    assert (await first.head("k")).headers == headers


async def test_metadata_is_read_that_could_not_be_unpacked(
    server: GcsServer, store: GcsObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise Refused(403, "forbidden", "no storage.objects.update")

    monkeypatch.setattr(server, "_patch", forbidden)
    headers = ObjectHeaders({}, {"CamelCase": "1"})
    upload = (await store.create_upload("k", headers)).upload_id
    part = await store.put_part("k", upload, 1, Body([b"x"]))
    with pytest.raises(errors.AccessDenied):
        await store.complete_upload("k", upload, [part])
    assert (await store.head("k")).headers == headers


@pytest.mark.parametrize("wrong", [{"crc32c": "AAAAAA=="}, {"size": "2"}, {"crc32c": None}])
async def test_a_copy_that_is_not_its_source_is_none(
    server: GcsServer,
    bucket: str,
    store: GcsObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    wrong: dict[str, str],
) -> None:
    await store.put("from", Body([b"x"]), NO_HEADERS)
    source, keep = await store.head("from"), server._keep

    def keep_another(*arguments: Any, **more: Any) -> Kept:  # noqa: ANN401 - passed through
        kept = keep(*arguments, **more)
        kept.resource.update(wrong)
        return kept

    monkeypatch.setattr(server, "_keep", keep_another)
    with pytest.raises(errors.IntegrityError, match="the copy has"):
        await store.copy_object("to", bucket, source)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b'{"done": false}',
        b'{"done": false, "rewriteToken": 1}',
        b'{"done": true}',
        b'{"done": true, "resource": {"name": "k"}}',
    ],
)
async def test_what_is_no_answer_to_a_copy_is_not_taken_for_one(
    server: GcsServer,
    bucket: str,
    store: GcsObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    answer: bytes,
) -> None:
    await store.put("from", Body([b"x"]), NO_HEADERS)
    source = await store.head("from")
    monkeypatch.setattr(server, "_rewrite", lambda *_: Answer(200, answer))
    with pytest.raises(errors.UnavailableStore, match="describes no copy"):
        await store.copy_object("to", bucket, source)


async def test_a_copy_of_what_has_no_type_has_the_type_that_google_makes_up(
    server: GcsServer, bucket: str, store: GcsObjectStore
) -> None:
    server.add(bucket, "from", b"x")
    await store.copy_object("to", bucket, await store.head("from"))
    made = (await store.head("to")).headers
    assert made == ObjectHeaders({"content-type": "application/octet-stream"})


@pytest.mark.parametrize("text", ["", "=", "e30", "W10=", "bnVsbA=="])
async def test_what_is_not_packed_is_left_alone(
    server: GcsServer, bucket: str, store: GcsObjectStore, text: str
) -> None:
    server.add(bucket, "k", b"x", metadata={"slurper-metadata": text})
    assert (await store.head("k")).headers.metadata == {"slurper-metadata": text}


async def test_a_custom_time_that_is_none_is_plain_metadata(store: GcsObjectStore) -> None:
    headers = ObjectHeaders({}, {"goog-custom-time": "yesterday"})
    await store.put("k", Body([b"x"]), headers)
    assert (await store.head("k")).headers.metadata == headers.metadata


async def test_a_retried_put_may_meet_itself(server: GcsServer, store: GcsObjectStore) -> None:
    await store.put("k", Body([b"x"]), NO_HEADERS)
    server.refusals = [Refused(503, "backendError", "Try again.")]
    with pytest.raises(errors.PreconditionFailed) as refused:
        await store.put("k", Body([b"x"]), NO_HEADERS, if_absent=True)
    assert refused.value.retries == 1


@pytest.mark.parametrize(
    ("reason", "is_given_up"), [("backendError", True), ("rateLimitExceeded", False)]
)
async def test_only_a_503_that_does_not_ask_to_slow_down_is_given_up_sooner(
    server: GcsServer,
    bucket: str,
    store: GcsObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
    is_given_up: bool,
) -> None:
    monkeypatch.setattr(http_client, "QUIET_SECONDS", 0.0)
    for key in ("good", "bad"):
        server.add(bucket, key, b"x")
    await store.get("good")
    server.refusals = [Refused(503, reason, "Try again.")] * (1 + http_client.LASTING_RETRIES)
    if is_given_up:
        with pytest.raises(errors.UnavailableStore) as given_up:
            await store.get("bad")
        assert given_up.value.retries == http_client.LASTING_RETRIES
    else:
        assert (await store.get("bad")).body.length == 1


async def test_parts_of_many_sizes_are_checked_as_a_whole(
    server: GcsServer, bucket: str, store: GcsObjectStore
) -> None:
    upload = (await store.create_upload("k", NO_HEADERS)).upload_id
    sizes = (5 * MIB + 1, 6 * MIB, 3)
    parts = [
        await store.put_part("k", upload, n, Body([bytes([n]) * size]))
        for n, size in enumerate(sizes, 1)
    ]
    wrong = [*parts[:2], replace(parts[2], checksum=parts[1].checksum)]
    with pytest.raises(errors.IntegrityError, match="CRC32C"):
        await store.complete_upload("k", upload, wrong)
    # The upload is gone, the object is there: as after a completion whose answer was lost.
    assert await store.complete_upload("k", upload, parts) == (await store.head("k")).meta.etag
    with pytest.raises(errors.NotFound):
        await store.complete_upload("k", upload, wrong)
    assert "md5Hash" not in server.buckets[bucket].objects["k"].resource


# Being refused


@pytest.mark.parametrize("limit", [RATE, USER_RATE])
async def test_limits_that_are_answered_with_403_are_waited_for(
    server: GcsServer, store: GcsObjectStore, limit: Refused
) -> None:
    server.refusals = [limit, limit]
    await store.list_page()
    assert store.statistics.retries == 2


async def test_a_limit_that_lasts_is_no_missing_right(
    server: GcsServer, store: GcsObjectStore
) -> None:
    server.refusals = [RATE] * 3
    with pytest.raises(errors.Throttled):
        await store.list_page()


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refused(403, "forbidden", "no storage.objects.list"), errors.AccessDenied),
        (Refused(403, "insufficientPermissions", "scope"), errors.AccessDenied),
        (Refused(403, "accountDisabled", "billing"), errors.AccessDenied),
        (Refused(400, "invalid", "argument"), errors.StoreError),
        (Refused(412, "conditionNotMet", "precondition"), errors.PreconditionFailed),
    ],
)
async def test_refusals_say_what_they_are(
    server: GcsServer, store: GcsObjectStore, refusal: Refused, kind: type[Exception]
) -> None:
    server.refusals = [refusal]
    with pytest.raises(errors.StoreError, match=refusal.message) as refused:
        await store.list_page()
    assert type(refused.value) is kind


# Listing


async def rows(store: GcsObjectStore) -> dict[str, listing.Found]:
    """What a task finds under each key."""
    pages = listing.listed_pages(store, "", KeyRange())
    return {key: found async for page in pages for key, found in page.rows}


async def test_a_page_that_holds_only_the_key_before_it_is_passed_over(
    server: GcsServer, bucket: str, store: GcsObjectStore
) -> None:
    for key in ("a", "a\x01", "b"):
        server.add(bucket, key)
    page = await store.list_page(start_after="a", max_keys=1)
    assert ([meta.key for meta in page.objects], page.finished) == (["a\x01"], False)
    last = await store.list_page(start_after="a\x01", max_keys=1)
    assert ([meta.key for meta in last.objects], last.finished) == (["b"], True)


@pytest.mark.parametrize(
    "lacking",
    [
        ("size",),
        ("generation",),
        ("size", "generation", "metageneration", "timeCreated", "storageClass", "crc32c"),
        ("timeCreated", "storageClass", "metageneration"),
    ],
)
async def test_a_row_of_a_listing_that_lacks_members_is_asked_for_by_name(
    server: GcsServer, bucket: str, store: GcsObjectStore, lacking: tuple[str, ...]
) -> None:
    for key in ("a", "b", "c"):
        server.add(bucket, key, b"12345", metadata={"n": key})
    server.unlisted = {"b": lacking}
    found = await rows(store)
    assert {key: meta.size for key, meta in found.items() if isinstance(meta, ObjectMeta)} == {
        "a": 5,
        "b": 5,
        "c": 5,
    }
    meta = found["b"]
    assert isinstance(meta, ObjectMeta)
    download = await store.get("b", if_match=meta.etag, max_bytes=5)
    assert (bytes(download.body), download.stored.headers.metadata) == (b"12345", {"n": "b"})


@pytest.mark.parametrize(
    "told",
    [
        {"size": None},
        {"size": "many"},
        {"size": "-3"},
        {"size": ""},
        {"size": {}},
    ],
)
async def test_an_object_whose_size_is_told_nowhere_fails_alone(
    server: GcsServer, bucket: str, store: GcsObjectStore, told: dict[str, object]
) -> None:
    server.add(bucket, "a", b"1")
    server.add(bucket, "b", b"12", **told)
    page = await store.list_page()
    assert [meta.key for meta in page.objects] == ["a", "b"]
    with pytest.raises(errors.StoreError, match="does not tell the size of 'b'") as refused:
        await store.get("b")
    assert not refused.value.retryable


@pytest.mark.parametrize(
    "told",
    [{"timeCreated": "yesterday"}, {"storageClass": None}, {"metadata": None}, {"updated": 7}],
)
async def test_what_else_a_row_says_oddly_stops_nothing(
    server: GcsServer, bucket: str, store: GcsObjectStore, told: dict[str, object]
) -> None:
    server.add(bucket, "a", b"12", **told)
    (meta,) = (await store.list_page()).objects
    assert bytes((await store.get("a", if_match=meta.etag)).body) == b"12"


async def test_a_row_that_is_denied_when_it_is_asked_for_stops_no_listing(
    server: GcsServer, bucket: str, store: GcsObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(bucket, "a", b"12")
    server.add(bucket, "b", b"12")
    server.unlisted = {"a": ("size",)}
    find = server._find

    def deny(bucket: str, key: str) -> Kept:
        if key == "a":
            raise Refused(403, "forbidden", "no storage.objects.get for it")
        return find(bucket, key)

    monkeypatch.setattr(server, "_find", deny)
    found = await rows(store)
    assert isinstance(found["a"], errors.AccessDenied)
    assert isinstance(found["b"], ObjectMeta)


async def test_empty_pages_are_followed(
    store: GcsObjectStore, monkeypatch: pytest.MonkeyPatch, server: GcsServer
) -> None:
    pages = [
        server_page('{"nextPageToken": "t1"}'),
        server_page('{"items": [], "nextPageToken": "t2"}'),
        server_page('{"items": [{"name": "k", "size": "1", "generation": "7"}]}'),
    ]
    monkeypatch.setattr(server, "_list", lambda *_: pages.pop(0))
    page = await store.list_page()
    assert ([meta.key for meta in page.objects], page.finished) == (["k"], True)
    tokens = [asked.query.get("pageToken") for asked in server.asked if "maxResults" in asked.query]
    assert tokens == [None, "t1", "t2"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"items": [{"name": "k"',
        '{"items": [{"size": "1", "generation": "7"}]}',
        '{"items": [{"name": 7, "size": "1", "generation": "7"}]}',
        '{"items": [7]}',
        '{"items": {}}',
        '{"nextPageToken": "same"}',
        f'{{"items": [{ITEM.format("b")}, {ITEM.format("a")}]}}',
        '{"items": [{"name": "k", "size": 1, "generation": 7}], "nextPageToken": 7}',
    ],
)
async def test_what_is_no_listing_is_refused(
    store: GcsObjectStore, monkeypatch: pytest.MonkeyPatch, server: GcsServer, text: str
) -> None:
    monkeypatch.setattr(server, "_list", lambda *_: server_page(text))
    with pytest.raises(errors.ListingError):
        await store.list_page()


@pytest.mark.parametrize("date", ['"soon"', f'"{"9" * 5000}-01-01"', "7", "[]", "{}", "null"])
async def test_a_listing_with_malformed_dates_is_read(
    store: GcsObjectStore, monkeypatch: pytest.MonkeyPatch, server: GcsServer, date: str
) -> None:
    item = f'{{"name": "k", "size": "1", "generation": "7", "timeCreated": {date}}}'
    monkeypatch.setattr(server, "_list", lambda *_: server_page(f'{{"items": [{item}]}}'))
    (found,) = (await store.list_page()).objects
    assert (found.key, found.last_modified) == ("k", None)


def server_page(text: str) -> Answer:
    return Answer(200, text.encode(), {"content-type": "application/json"})
