"""What a target makes of keys and headers is found out, and nothing stays of the asking."""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

import pytest

from slurper import errors
from slurper.http.client import TransportOptions
from slurper.http.places import Owner
from slurper.job.model import Location, Vendor
from slurper.objectstore import factory, own_keys, storable
from slurper.objectstore.base import (
    Body,
    Download,
    ListingPage,
    ObjectHeaders,
    ObjectMeta,
    StoreAddress,
)
from slurper.objectstore.key_shapes import KeyShape
from slurper.secrets import S3Credentials
from slurper.service import precheck
from slurper.service.precheck import Precheck, Side
from slurper.service.probes import clean_up
from slurper.service.probes.specimens import Specimens
from slurper.settings import Settings
from tests.memory.faults import Faults
from tests.memory.store import MemoryStore

S = KeyShape
Rewrite = Callable[[str], str]

USERS = ("a", "b", "f", "g/g", "i", "m/m", "r\u00fc", "x", "lead/x", "..", "/k")
"""Somebody's objects, under keys that a rewritten one could hit."""


class Rewriting(MemoryStore):
    """A store that keeps another key than it is given, and finds it again by the given one."""

    def __init__(self, rewrite: Rewrite, **options: object) -> None:
        super().__init__(faults=Faults())
        self._rewrite = rewrite
        self.options = options
        for key in USERS:
            super()._keep(key, b"theirs", ObjectHeaders(), '"e"', "STANDARD")

    def _name(self, key: str) -> str:
        return self._rewrite(key)

    @property
    def left(self) -> set[str]:
        """What is there that was not there before."""
        return set(self.keys) - {self._name(key) for key in USERS}

    def _keep(
        self, key: str, body: bytes, headers: ObjectHeaders, etag: str, storage_class: str
    ) -> ObjectMeta:
        assert self._name(key) not in map(self._name, USERS), "somebody's object is written over"
        return super()._keep(key, body, headers, etag, storage_class)


def collapsed(key: str) -> str:
    """As a path is cleaned."""
    kept: list[str] = []
    for segment in key.split("/"):
        if segment == ".." and kept:
            kept.pop()
        elif segment not in ("", ".", ".."):
            kept.append(segment)
    return "/".join(kept) + ("/" if key.endswith("/") else "")


REWRITES: list[tuple[str, Rewrite, set[KeyShape]]] = [
    ("nothing", str, set()),
    ("leading slashes dropped", lambda key: key.lstrip("/"), {S.LEADING_SLASH}),
    ("one leading slash dropped", lambda key: key.removeprefix("/"), {S.LEADING_SLASH}),
    ("slashes merged", lambda key: re.sub("//+", "/", key), {S.EMPTY_SEGMENT}),
    (
        "paths cleaned",
        collapsed,
        {S.LEADING_SLASH, S.EMPTY_SEGMENT, S.DOT_SEGMENT, S.DOUBLE_DOT_SEGMENT},
    ),
    ("trailing slashes dropped", lambda key: key.rstrip("/"), {S.FOLDER, S.FOLDER_WITH_BYTES}),
    ("backslashes turned", lambda key: key.replace("\\", "/"), {S.BACKSLASH}),
    ("NFC", lambda key: unicodedata.normalize("NFC", key), {S.DECOMPOSED}),
    ("NFD", lambda key: unicodedata.normalize("NFD", key), {S.COMPOSED}),
    ("decoded twice", lambda key: unquote(key, errors="surrogateescape"), {S.PERCENT}),
    ("plus is a space", lambda key: key.replace("+", " "), {S.PLUS}),
    (
        "control characters dropped",
        lambda key: re.sub(r"[\x00-\x1f\x7f]", "", key),
        {S.CONTROL_CHARACTER, S.LINE_BREAK},
    ),
    ("lines cut off", lambda key: key.split("\n")[0], {S.LINE_BREAK}),
    (
        "segments trimmed",
        lambda key: "/".join(segment.strip(" ") for segment in key.split("/")),
        {S.EDGE_SPACE},
    ),
    (
        "file names of Windows",
        lambda key: "/".join(segment.rstrip(" .") or segment for segment in key.split("/")),
        {S.EDGE_SPACE, S.TRAILING_DOT},
    ),
    (
        "segments cut off",
        lambda key: "/".join(segment[:255] for segment in key.split("/")),
        {S.LONG_SEGMENT},
    ),
    (
        "three bytes a letter",
        lambda key: re.sub("[\U00010000-\U0010ffff]", "?", key),
        {S.BEYOND_BMP},
    ),
    ("the last segment only", lambda key: key.rstrip("/").split("/")[-1] or key, set(S)),
]


def deadline() -> float:
    return asyncio.get_running_loop().time() + 60


@pytest.fixture(params=[False, True], ids=["near", "far"])
def is_far(request: pytest.FixtureRequest) -> bool:
    """Whether everything is written at once: it must not change what is found out."""
    return bool(request.param)


async def examined(store: MemoryStore, *, is_far: bool) -> set[KeyShape]:
    specimens = Specimens(store, own_keys.new_key())
    try:
        return set((await specimens.examine(deadline(), is_far=is_far)).keys)
    finally:
        await specimens.remove(store)


@pytest.mark.parametrize(
    ("rewrite", "shapes"), [row[1:] for row in REWRITES], ids=[row[0] for row in REWRITES]
)
async def test_a_target_that_rewrites_keys_is_found_out_and_nothing_stays(
    rewrite: Rewrite, shapes: set[KeyShape], is_far: bool
) -> None:
    store = Rewriting(rewrite)
    if shapes == set(S):  # no ordinary key is kept either
        with pytest.raises(errors.ListingError, match="just written is not listed"):
            await examined(store, is_far=is_far)
    else:
        found = await examined(store, is_far=is_far)
        # A key that ends with a slash is one of a folder however it is asked about.
        assert found - {S.FOLDER_WITH_HEADERS} == shapes
        assert (S.FOLDER_WITH_HEADERS in found) == (S.FOLDER in shapes)
    assert store.left == set()
    assert all(store.read(rewrite(key))[0] == b"theirs" for key in USERS)


async def test_where_everything_is_kept_few_requests_are_needed() -> None:
    store = Rewriting(str)
    assert await examined(store, is_far=False) == set()
    assert store.faults.requests == {"put": 5, "get": 5, "list_page": 2, "delete": 5}


class Folders(Rewriting):
    """What ends with a slash is a folder, without bytes and headers."""

    def _keep(
        self, key: str, body: bytes, headers: ObjectHeaders, etag: str, storage_class: str
    ) -> ObjectMeta:
        if key.endswith("/"):
            body, headers = b"", ObjectHeaders()
        return super()._keep(key, body, headers, etag, storage_class)


async def test_a_store_that_makes_folders_is_found_out(is_far: bool) -> None:
    assert await examined(Folders(str), is_far=is_far) == {
        S.FOLDER_WITH_BYTES,
        S.FOLDER_WITH_HEADERS,
    }


class Refusing(Rewriting):
    """Refuses what has a shape; `retryable`: with an answer that may pass."""

    async def put(
        self, key: str, body: Body, headers: ObjectHeaders, *, if_absent: bool = False
    ) -> str:
        shape, kind = self.options["shape"], self.options["kind"]
        assert isinstance(shape, re.Pattern)
        if shape.search(key):
            assert isinstance(kind, errors.SlurperError)
            raise kind
        return await super().put(key, body, headers, if_absent=if_absent)


@pytest.mark.parametrize(
    "kind",
    [
        errors.StoreError("PutObject", status=400, code="InvalidArgument"),
        errors.CredentialsRejected("PutObject", status=403, code="SignatureDoesNotMatch"),
        errors.AccessDenied("PutObject", status=403, code="AccessDenied"),
    ],
)
async def test_keys_that_are_refused_are_not_kept(kind: errors.StoreError, is_far: bool) -> None:
    store = Refusing(str, shape=re.compile(r"(^|/)\.\.?(/|$)"), kind=kind)
    assert await examined(store, is_far=is_far) == {S.DOT_SEGMENT, S.DOUBLE_DOT_SEGMENT}
    assert store.left == set()


@pytest.mark.parametrize(
    "kind",
    [
        errors.UnavailableStore("PutObject", status=503, code="SlowDown"),
        errors.TransportError("reset"),
    ],
)
async def test_what_may_pass_is_not_known(kind: errors.SlurperError, is_far: bool) -> None:
    store = Refusing(str, shape=re.compile(r"\\"), kind=kind)
    specimens = Specimens(store, own_keys.new_key())
    found = await specimens.examine(deadline(), is_far=is_far)
    await specimens.remove(store)
    assert (found.keys, found.unknown) == ((), (S.BACKSLASH,))


class ShortPages(Rewriting):
    """Shows three keys at a time."""

    async def list_page(
        self, *, prefix: str = "", start_after: str | None = None, max_keys: int = 1000
    ) -> ListingPage:
        return await super().list_page(
            prefix=prefix, start_after=start_after, max_keys=min(max_keys, 3)
        )


async def test_keys_are_looked_for_on_every_page(is_far: bool) -> None:
    assert await examined(ShortPages(str), is_far=is_far) == set()
    assert await examined(ShortPages(lambda key: key.lstrip("/")), is_far=is_far) == {
        S.LEADING_SLASH
    }


class Failing(Refusing):
    """Fails so often, and then no more."""

    async def put(
        self, key: str, body: Body, headers: ObjectHeaders, *, if_absent: bool = False
    ) -> str:
        shape, times = self.options["shape"], self.options["times"]
        assert isinstance(shape, re.Pattern)
        assert isinstance(times, list)
        if shape.search(key) and times:
            times.pop()
            raise errors.UnavailableStore("PutObject", status=500, code="InternalError")
        return await Rewriting.put(self, key, body, headers, if_absent=if_absent)


@pytest.mark.parametrize(("times", "unkept"), [(2, set()), (1, set()), (9, {S.LONG_SEGMENT})])
async def test_a_key_for_which_a_store_fails_twice_is_not_kept(
    times: int, unkept: set[KeyShape], is_far: bool
) -> None:
    """As rclone does for a name that is too long; the first time is with everything in a key."""
    store = Failing(str, shape=re.compile(r"[^/]{256}"), times=[None] * times)
    assert await examined(store, is_far=is_far) == unkept
    assert store.left == set()


class Unlisted(Rewriting):
    """No listing whose prefix is short can be read: it shows keys that break it."""

    async def list_page(
        self, *, prefix: str = "", start_after: str | None = None, max_keys: int = 1000
    ) -> ListingPage:
        page = await super().list_page(prefix=prefix, start_after=start_after, max_keys=max_keys)
        if any("\x01" in meta.key for meta in page.objects):
            raise errors.ListingError("not well-formed")
        return page


async def test_one_key_that_cannot_be_listed_hides_no_other(is_far: bool) -> None:
    store = Unlisted(lambda key: key.replace("+", " "))
    specimens = Specimens(store, own_keys.new_key())
    found = await specimens.examine(deadline(), is_far=is_far)
    assert set(found.keys) == {S.CONTROL_CHARACTER, S.PLUS}
    with_bad = [key for key in store.left if "\x01" in key]
    assert with_bad
    await specimens.remove(store)
    assert not [key for key in store.left if "\x01" in key]


# Headers


class Losing(MemoryStore):
    """Loses headers."""

    def __init__(self, lose: Callable[[ObjectHeaders], None]) -> None:
        super().__init__(faults=Faults())
        self._lose = lose

    async def get(self, key: str, **given: object) -> Download:
        download = await super().get(key, **given)  # type: ignore[arg-type]
        self._lose(download.stored.headers)
        return download


def _without(*names: str) -> Callable[[ObjectHeaders], None]:
    def lose(headers: ObjectHeaders) -> None:
        for name in names:
            headers.content.pop(name, None)

    return lose


def _changed(change: Callable[[str], str]) -> Callable[[ObjectHeaders], None]:
    def lose(headers: ObjectHeaders) -> None:
        headers.metadata = {name: change(value) for name, value in headers.metadata.items()}

    return lose


def _renamed(change: Callable[[str], str]) -> Callable[[ObjectHeaders], None]:
    def lose(headers: ObjectHeaders) -> None:
        headers.metadata = {change(name): value for name, value in headers.metadata.items()}

    return lose


def _without_underscores(headers: ObjectHeaders) -> None:
    headers.metadata = {name: text for name, text in headers.metadata.items() if "_" not in name}


LOST: list[tuple[Callable[[ObjectHeaders], None], tuple[str, ...]]] = [
    (_without(), ()),
    *((_without(name), (name,)) for name in storable.HEADERS[:6]),
    (
        _without("content-encoding", "content-language", "expires"),
        ("content-encoding", "content-language", "expires"),
    ),
    (lambda headers: headers.metadata.clear(), ("metadata",)),
    (_changed(lambda value: value[:255]), ("long-metadata",)),
    (_renamed(lambda name: name.replace("_", "-")), ("underscored-metadata",)),
    (_without_underscores, ("underscored-metadata",)),
    (_changed(lambda value: value if value.isascii() else "?"), ("metadata-beyond-ascii",)),
    # Stores that keep text give it back in another form.
    (
        _changed(lambda value: value.replace("Ã¼", "ü").replace("â\x82¬", "?")),
        ("metadata-beyond-ascii",),
    ),
    (_changed(lambda value: value if value.isascii() else "=?UTF-8?B?Z3LDvG4g4oKs?="), ()),
    (
        lambda headers: headers.content.update({"content-type": "application/x-precheck"}),
        ("content-type",),
    ),
]


@pytest.mark.parametrize(("lose", "lost"), LOST)
async def test_headers_that_do_not_come_back_are_found_out(
    lose: Callable[[ObjectHeaders], None], lost: tuple[str, ...], is_far: bool
) -> None:
    store = Losing(lose)
    specimens = Specimens(store, own_keys.new_key())
    assert set((await specimens.examine(deadline(), is_far=is_far)).headers) == set(lost)
    await specimens.remove(store)
    assert store.keys == ()


# The whole check

LOCATION = Location(vendor=Vendor.S3, bucket="photos", endpoint="https://s3.example")
PAIR = S3Credentials(access_key_id="AKIDEXAMPLE", secret_access_key="hunter2")


async def checked(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> precheck.Checked:
    def open_store(_address: StoreAddress, _options: TransportOptions) -> MemoryStore:
        return store

    monkeypatch.setattr(factory, "open_store", open_store)
    check = Precheck(Settings())
    address = check.resolve(Side.TARGET, Owner("a" * 32), LOCATION, PAIR)
    return await check.target(LOCATION, address, asks_condition=False)


async def test_what_is_not_kept_is_noted_and_kept_with_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Rewriting(lambda key: re.sub("//+", "/", key))
    answer = await checked(store, monkeypatch)
    (note,) = answer.problems
    assert not note.blocks
    assert "does not keep every key" in note.message
    assert "keys that hold '//'" in note.message
    assert answer.capabilities.unkept_keys == ("empty-segment",)
    assert answer.capabilities.unkept_headers == ()

    answer = await checked(Losing(_without("expires")), monkeypatch)
    (note,) = answer.problems
    assert "does not keep expires: objects arrive without" in note.message
    assert answer.capabilities.unkept_headers == ("expires",)


@pytest.mark.parametrize("operation", ["put", "get", "list_page", "delete"])
@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5])
async def test_whatever_fails_nothing_stays_or_it_is_named(
    monkeypatch: pytest.MonkeyPatch, operation: str, nth: int
) -> None:
    store = MemoryStore(faults=Faults())
    fails = errors.UnavailableStore("PutObject", status=500, code="InternalError")
    skipped = {"list_page": 1, "delete": 1}.get(operation, 0)  # those before the question
    store.faults.fail(fails, operation=operation, nth=nth + skipped, takes_effect=True)
    answer = await checked(store, monkeypatch)
    assert not any(note.blocks for note in answer.problems)
    named = [note for note in answer.problems if "may be left: delete what" in note.message]
    assert store.keys == () or named


async def test_a_check_that_runs_out_of_time_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow(Faults):
        async def begin(self, operation: str) -> errors.SlurperError | None:
            lost = await super().begin(operation)
            if operation == "get":
                await asyncio.sleep(60)
            return lost

    store = MemoryStore(faults=Slow())
    monkeypatch.setattr(precheck, "CHECK_SECONDS", 0.3)
    answer = await checked(store, monkeypatch)
    (note,) = answer.problems
    assert "could not be found out, and is assumed (writing" in note.message
    assert answer.capabilities.unkept_keys is None
    assert store.keys == ()


async def test_what_a_far_target_has_answered_counts_although_time_is_short() -> None:
    store = Rewriting(collapsed)
    specimens = Specimens(store, own_keys.new_key())
    now = asyncio.get_running_loop().time()
    assert KeyShape.EMPTY_SEGMENT in (await specimens.examine(now, is_far=True)).keys
    await specimens.remove(store)
    with pytest.raises(TimeoutError):
        await Specimens(store, own_keys.new_key()).examine(now, is_far=False)


@pytest.mark.parametrize("rewrite", [str, collapsed], ids=["faithful", "cleaning"])
async def test_what_a_killed_check_left_is_deleted_by_the_next(
    rewrite: Rewrite, is_far: bool
) -> None:
    moment = datetime.now(UTC)
    store = Rewriting(rewrite)
    store._now = lambda: moment
    await Specimens(store, own_keys.new_key()).examine(deadline(), is_far=is_far)
    assert store.left
    moment += timedelta(seconds=clean_up.STALE_SECONDS + 1)
    await Specimens(store, own_keys.new_key()).examine(deadline(), is_far=is_far)
    young = {key for key in store.left if store._entries[key].stored.meta.last_modified == moment}
    await clean_up.remove_stale_objects(store, ())
    assert store.left == young


async def test_of_a_bucket_that_keeps_versions_it_is_not_known_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore(versioned=True)
    answer = await checked(store, monkeypatch)
    (note,) = answer.problems
    assert "its bucket keeps versions" in note.message
    assert answer.capabilities.unkept_keys is None
    assert not {"put", "delete"} & store.faults.requests.keys()
