"""A check asks side by side what needs no other answer, and nothing stays whatever hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from slurper.http.client import FAR_SECONDS, ClientStatistics, TransportOptions
from slurper.http.places import Owner
from slurper.job.model import Location, Vendor
from slurper.objectstore import dialects, factory
from slurper.objectstore.base import StoreAddress
from slurper.objectstore.dialects import Dialect
from slurper.secrets import S3Credentials
from slurper.service import precheck
from slurper.service.precheck import Checked, Precheck, Side
from slurper.service.probes import clean_up
from slurper.settings import Settings
from tests.memory.store import MemoryStore

LOCATION = Location(vendor=Vendor.S3, bucket="photos", endpoint="https://s3.example")
PAIR = S3Credentials(access_key_id="AKIDEXAMPLE", secret_access_key="hunter2")
THEIRS = ("a", "b")
OPERATIONS = (
    *("list_page", "list_uploads", "keeps_versions", "delete", "get", "put"),
    *("create_upload", "put_part", "complete_upload", "abort_upload"),
)

Wrapper = Callable[[str, Callable[[], Awaitable[object]]], Awaitable[object]]


def store_with(wrapper: Wrapper, dialect: Dialect = dialects.GENERIC) -> MemoryStore:
    """A store with two objects, whose every request goes through a wrapper."""
    store = MemoryStore(dialect=dialect)
    for key in THEIRS:
        store.add(key, b"theirs")
    for operation in OPERATIONS:
        setattr(store, operation, _wrapped(store, operation, wrapper))
    return store


def _wrapped(store: MemoryStore, operation: str, wrapper: Wrapper) -> object:
    method = getattr(store, operation)

    def request(*given: object, **named: object) -> Awaitable[object]:
        return wrapper(operation, lambda: method(*given, **named))

    return request


class Rounds:
    """Answers whatever was asked as soon as nobody asks anything more: that is a round."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self._answer: asyncio.Future[None] | None = None

    async def __call__(self, operation: str, request: Callable[[], Awaitable[object]]) -> object:
        if self._answer is None:
            self.asked.append([])
            self._answer = asyncio.ensure_future(self._wait())
        self.asked[-1].append(operation)
        await asyncio.shield(self._answer)
        return await request()

    async def _wait(self) -> None:
        for _ in range(100):  # turns of the loop: more than any question needs to be asked
            await asyncio.sleep(0)
        self._answer = None


class Hanging:
    """The `nth` request gets no answer; `after`: though it is carried out."""

    def __init__(self, nth: int, *, after: bool) -> None:
        self.asked: list[str] = []
        self.is_hanging = asyncio.Event()
        self.nth = nth
        self._after = after

    async def __call__(self, operation: str, request: Callable[[], Awaitable[object]]) -> object:
        self.asked.append(operation)
        is_nth = len(self.asked) == self.nth
        try:
            return await request() if self._after or not is_nth else None
        finally:
            if is_nth:
                self.is_hanging.set()
                await asyncio.sleep(60)


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> dict[str, MemoryStore]:
    """What the names of buckets lead to."""
    found: dict[str, MemoryStore] = {}

    def open_store(address: StoreAddress, _options: TransportOptions) -> MemoryStore:
        return found[address.bucket]

    monkeypatch.setattr(factory, "open_store", open_store)
    return found


async def checked(side: Side, bucket: str = "photos") -> Checked:
    check = Precheck(Settings())
    location = replace(LOCATION, bucket=bucket)
    address = check.resolve(side, Owner("a" * 32), location, PAIR)
    return await (check.source if side is Side.SOURCE else check.target)(location, address)


def left_in(store: MemoryStore) -> set[str]:
    return {*store.keys, *store.open_uploads} - {*THEIRS}


async def test_a_target_of_unknown_make_is_asked_in_six_rounds(
    stores: dict[str, MemoryStore],
) -> None:
    """The listing, then the upload, beside it what else can be asked; then what needs that."""
    rounds = Rounds()
    stores["photos"] = store_with(rounds)
    assert (await checked(Side.TARGET)).problems == ()
    assert [sorted(asked) for asked in rounds.asked] == [
        ["list_page"],
        ["create_upload", "keeps_versions", "list_page", "list_uploads"],
        ["delete", "list_page", "list_page", "put_part", "put_part", "put_part"],
        ["put"] * 6,
        ["complete_upload", *["get"] * 5, "list_page", "list_page", "put"],
        ["abort_upload", *["delete"] * 6],
    ]
    assert left_in(stores["photos"]) == set()


async def test_a_far_target_is_asked_about_both_checksums_in_as_many(
    stores: dict[str, MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both checksums are tried in the same rounds."""
    far = property(lambda _: ClientStatistics(delay=FAR_SECONDS))
    monkeypatch.setattr(MemoryStore, "statistics", far)
    rounds = Rounds()
    stores["photos"] = store_with(rounds)
    assert (await checked(Side.TARGET)).problems == ()
    assert [sorted(asked) for asked in rounds.asked][:3] == [
        ["list_page"],
        ["create_upload", "create_upload", "keeps_versions", "list_page", "list_uploads"],
        ["delete", "list_page", "list_page", *["put_part"] * 6],
    ]
    assert len(rounds.asked) == 6
    assert left_in(stores["photos"]) == set()


async def test_a_target_of_known_make_is_asked_in_four_rounds(
    stores: dict[str, MemoryStore],
) -> None:
    rounds = Rounds()
    stores["photos"] = store_with(rounds, dialects.R2)
    assert (await checked(Side.TARGET)).problems == ()
    assert [sorted(asked) for asked in rounds.asked] == [
        ["list_page"],
        ["create_upload", "list_uploads"],
        ["put_part", "put_part"],
        ["abort_upload"],
    ]


async def test_a_source_is_read_beside_the_other_listings(stores: dict[str, MemoryStore]) -> None:
    rounds = Rounds()
    stores["photos"] = store_with(rounds)
    assert (await checked(Side.SOURCE)).problems == ()
    assert [sorted(asked) for asked in rounds.asked] == [
        ["list_page"],
        ["get", "list_page"],
    ]


async def _requests_of_a_check(stores: dict[str, MemoryStore]) -> int:
    counted = Hanging(0, after=False)
    stores["counted"] = store_with(counted)
    await checked(Side.TARGET, "counted")
    return len(counted.asked)


@pytest.mark.parametrize("after", [False, True])
async def test_whichever_request_hangs_nothing_stays_or_it_is_named(
    stores: dict[str, MemoryStore], monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    hanging = [Hanging(n + 1, after=after) for n in range(await _requests_of_a_check(stores))]
    monkeypatch.setattr(precheck, "CHECK_SECONDS", 1.5)
    monkeypatch.setattr(clean_up, "SECONDS", 1.0)
    stores.update({f"hangs-{n}": store_with(one) for n, one in enumerate(hanging)})
    answers = await asyncio.gather(
        *(checked(Side.TARGET, f"hangs-{n}") for n in range(len(hanging)))
    )
    for n, answer in enumerate(answers):
        told = " ".join(problem.message for problem in answer.problems)
        for key in left_in(stores[f"hangs-{n}"]):
            assert key.lstrip("/").split("/")[0] in told, (n + 1, hanging[n].asked[n], told)
        if any(problem.blocks for problem in answer.problems):
            assert "no answer within 1.5 seconds (" in told


@pytest.mark.parametrize("after", [False, True])
async def test_wherever_a_check_is_cancelled_nothing_stays(
    stores: dict[str, MemoryStore], monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    async def cancel(bucket: str, hanging: Hanging) -> None:
        stores[bucket] = store_with(hanging)
        check = asyncio.create_task(checked(Side.TARGET, bucket))
        hangs = asyncio.create_task(hanging.is_hanging.wait())
        await asyncio.wait([check, hangs], return_when=asyncio.FIRST_COMPLETED)
        assert hangs.done()
        check.cancel()
        await asyncio.wait([check])
        assert check.cancelled()
        if hanging.asked[hanging.nth - 1] not in ("delete", "abort_upload"):
            assert left_in(stores[bucket]) == set(), (hanging.nth, hanging.asked)

    requests = range(1, await _requests_of_a_check(stores) + 1)
    monkeypatch.setattr(precheck, "CHECK_SECONDS", 6.0)
    monkeypatch.setattr(clean_up, "SECONDS", 1.0)
    await asyncio.gather(*(cancel(f"hangs-{n}", Hanging(n, after=after)) for n in requests))


async def test_an_upload_of_this_check_is_not_one_that_an_earlier_has_left(
    stores: dict[str, MemoryStore],
) -> None:
    """Some stores tell the same old date of every upload."""

    async def as_asked(_operation: str, request: Callable[[], Awaitable[object]]) -> object:
        return await request()

    stores["photos"] = store = store_with(as_asked)
    ages = iter(range(1000))

    def now() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=next(ages) * clean_up.STALE_SECONDS * 2)

    store._now = now
    assert (await checked(Side.TARGET)).capabilities.verifies_checksum
    assert left_in(store) == set()
