"""What a precheck asks, leaves behind, and says about what it saw."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from slurper import errors
from slurper.http.client import TransportOptions
from slurper.http.places import Owner
from slurper.job.model import Jurisdiction, Location, Vendor
from slurper.objectstore import dialects, factory, own_keys
from slurper.objectstore.base import Body, CreatedUpload, ObjectHeaders, StoreAddress
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import Dialect
from slurper.secrets import GcsCredentials, S3Credentials
from slurper.service import precheck
from slurper.service.precheck import Precheck, Side
from slurper.service.probes import clean_up, source
from slurper.settings import Settings
from tests.memory.faults import Faults
from tests.memory.store import MemoryStore

ACCOUNT = "a" * 32
PAIR = S3Credentials(access_key_id="AKIDEXAMPLE", secret_access_key="hunter2")
S3 = Location(vendor=Vendor.S3, bucket="photos", endpoint="https://s3.example")
AWS = Location(vendor=Vendor.S3, bucket="photos", region="eu-west-1")
R2 = Location(vendor=Vendor.R2, bucket="photos")
R2_EU = replace(R2, jurisdiction=Jurisdiction.EU)


def _answer(
    kind: type[errors.StoreError], status: int, code: str, detail: str = ""
) -> errors.StoreError:
    return kind("ListObjectsV2", status=status, code=code, detail=detail, bucket="photos")


REJECTED = _answer(errors.CredentialsRejected, 403, "SignatureDoesNotMatch")
MALFORMED = _answer(errors.CredentialsRejected, 400, "AuthorizationHeaderMalformed")
WRONG_REGION = _answer(
    errors.CredentialsRejected,
    400,
    "AuthorizationHeaderMalformed",
    "the region 'us-east-1' is wrong; expecting 'eu-west-1'",
)
REDIRECT = _answer(errors.NoSuchBucket, 301, "PermanentRedirect")
DENIED = _answer(errors.AccessDenied, 403, "AccessDenied")
NO_BUCKET = _answer(errors.NoSuchBucket, 404, "NoSuchBucket")
BAD_NAME = _answer(errors.StoreError, 400, "InvalidBucketName")
SLOW = _answer(errors.Throttled, 503, "SlowDown")
TEAPOT = _answer(errors.StoreError, 418, "")
UNREACHABLE = errors.TransportError("connect to s3.example:443: Connection refused")
SKEWED = _answer(errors.CredentialsRejected, 403, "RequestTimeTooSkewed")
KMS = _answer(errors.AccessDenied, 403, "AccessDenied", "not allowed to perform kms:Decrypt")
UNTRUSTED = errors.TlsRefused("s3.example:443: certificate not accepted (tls)")
UNKNOWN_HOST = errors.TransportError("s3.example:443: host name not found (connect)")
PRIVATE = errors.EndpointRefused("s3.example:443 has an address that the endpoint policy forbids")
NO_LISTING = errors.ListingError("the answer is no listing")


@pytest.mark.parametrize(
    ("location", "error", "field", "advice"),
    [
        (S3, REJECTED, "secret", "check the access key id and secret"),
        (R2, REJECTED, "secret", "check the access key id and secret"),
        (S3, MALFORMED, "secret", "check the access key id"),
        (S3, DENIED, "secret", "permission to list the bucket"),
        (S3, WRONG_REGION, "region", "give the region the bucket is in (none was given)"),
        (AWS, REDIRECT, "region", "give the region the bucket is in (it is not in eu-west-1)"),
        (R2, REDIRECT, "jurisdiction", "give the jurisdiction the bucket was made in"),
        (S3, NO_BUCKET, "bucket", "check its name"),
        (R2, NO_BUCKET, "bucket", "jurisdiction (looked in: default)"),
        (R2_EU, NO_BUCKET, "bucket", "jurisdiction (looked in: eu)"),
        (S3, BAD_NAME, "bucket", "check its name"),
        (S3, SLOW, "endpoint", "try again in a moment"),
        (S3, TEAPOT, "endpoint", "S3-compatible endpoint"),
        (S3, NO_LISTING, "endpoint", "S3-compatible endpoint"),
        (S3, UNREACHABLE, "endpoint", "check endpoint, network and proxy"),
        (S3, SKEWED, "endpoint", "the clock of this machine"),
        (S3, KMS, "secret", "and kms:Decrypt"),
        (S3, UNTRUSTED, "endpoint", "SLURPER_CA_FILE"),
        (S3, UNKNOWN_HOST, "endpoint", "how it is spelt"),
        (S3, PRIVATE, "endpoint", "SLURPER_ALLOWED_ENDPOINTS"),
        (replace(S3, region="x"), UNREACHABLE, "endpoint", "check endpoint"),
        (AWS, UNREACHABLE, "region", "check endpoint"),
        (replace(AWS, region=None), UNREACHABLE, "endpoint", "check endpoint"),
        (R2, UNREACHABLE, "bucket", "check endpoint"),
        (R2_EU, UNREACHABLE, "jurisdiction", "check endpoint"),
    ],
)
@pytest.mark.parametrize("side", list(Side))
def test_an_error_points_at_the_field_to_change(
    side: Side, location: Location, error: errors.SlurperError, field: str, advice: str
) -> None:
    problem = precheck.explain(side, location, error)
    assert problem.pointer == f"/{side.value}/{field}"
    assert str(error) in problem.message
    assert f"{side.value} bucket photos" in problem.message
    assert advice in problem.message


def test_what_was_seen_is_quoted_with_status_and_code() -> None:
    message = precheck.explain(Side.TARGET, R2, NO_BUCKET).message
    assert "HTTP 404 NoSuchBucket" in message


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryStore]:
    """What every address leads to."""
    store = MemoryStore(bucket="photos", faults=Faults())
    opened: list[TransportOptions] = []

    def open_store(_address: StoreAddress, options: TransportOptions) -> MemoryStore:
        opened.append(options)
        return store

    monkeypatch.setattr(factory, "open_store", open_store)
    yield store
    assert all(options.request_retries <= 1 for options in opened)
    assert all(options.retry_deadline_seconds < precheck.CHECK_SECONDS for options in opened)


async def _source(
    prefix: str = "", keys: tuple[str, ...] | None = None
) -> tuple[errors.PrecheckProblem, ...]:
    check = Precheck(Settings())
    address = check.resolve(Side.SOURCE, Owner(ACCOUNT), S3, PAIR)
    return (await check.source(S3, address, prefix=prefix, keys=keys)).problems


async def _target() -> tuple[errors.PrecheckProblem, ...]:
    check = Precheck(Settings())
    address = check.resolve(Side.TARGET, Owner(ACCOUNT), R2, PAIR)
    quietly = {"asks_condition": False, "asks_what_is_kept": False}
    return (await check.target(R2, address, **quietly)).problems


async def test_a_source_is_listed_once(bucket: MemoryStore) -> None:
    assert await _source(prefix="nothing/here/") == ()
    assert bucket.faults.requests == {"list_page": 1}


async def test_a_source_of_explicit_keys_is_asked_for_one_of_them(bucket: MemoryStore) -> None:
    bucket.add("a", b"1")
    assert await _source(keys=("a", "b")) == ()
    assert bucket.faults.requests == {"head": 1, "get": 1}


async def test_a_missing_explicit_key_is_fine_but_a_missing_bucket_is_not(
    bucket: MemoryStore,
) -> None:
    assert await _source(keys=("a",)) == ()
    bucket.faults.fail(NO_BUCKET, operation="list_page")
    (problem,) = await _source(keys=("a",))
    assert problem.pointer == "/source/bucket"


async def test_explicit_keys_need_no_permission_to_list(bucket: MemoryStore) -> None:
    bucket.faults.fail(DENIED, operation="list_page", times=9)
    bucket.add("a")
    assert await _source(keys=("a",)) == ()
    assert await _source(keys=("missing",)) == ()


@pytest.mark.parametrize(
    ("listing", "field"), [(None, "secret"), (DENIED, "secret"), (NO_BUCKET, "bucket")]
)
async def test_a_403_without_a_body_is_explained_by_listing(
    bucket: MemoryStore, listing: errors.SlurperError | None, field: str
) -> None:
    bucket.add("a")
    bucket.faults.fail(errors.AccessDenied("HeadObject", status=403), operation="head")
    if listing is not None:
        bucket.faults.fail(listing, operation="list_page")
    (problem,) = await _source(keys=("a",))
    assert problem.pointer == f"/source/{field}"


@pytest.mark.parametrize("body", [b"", b"12345"])
async def test_a_byte_of_a_sources_first_object_is_read(bucket: MemoryStore, body: bytes) -> None:
    bucket.add("a", body)
    assert await _source() == ()
    assert bucket.faults.requests == {"list_page": 1, "get": 1}
    bucket.faults.fail(DENIED, operation="get")
    (problem,) = await _source()
    assert problem.pointer == "/source/secret"
    assert "(reading a byte of 'a')" in problem.message


async def test_what_cannot_be_read_for_reasons_of_its_own_is_no_problem(
    bucket: MemoryStore,
) -> None:
    bucket.add("a", b"1", storage_class="GLACIER")
    assert await _source() == ()
    assert bucket.faults.requests == {"list_page": 1}
    bucket.add("a", b"1")
    for error in (
        errors.NotFound("GetObject", status=404),
        errors.RequiresRetrieval("GetObject", status=403, code="InvalidObjectState"),
    ):
        bucket.faults.fail(error, operation="get")
        assert await _source() == ()


# A first object that cannot be read


def _of_object(
    kind: type[errors.StoreError], status: int, code: str, detail: str = ""
) -> errors.StoreError:
    return kind("GetObject", status=status, code=code, detail=detail, key="a")


OF_ITS_OWN = [
    _of_object(errors.StoreError, 400, "InvalidRequest", "must provide the correct secret key"),
    _of_object(errors.AccessDenied, 403, "AccessDenied", "not allowed: kms:Decrypt"),
    _of_object(errors.CredentialsRejected, 403, "SignatureDoesNotMatch"),
    _of_object(errors.Misdirected, 307, "TemporaryRedirect"),
    _of_object(errors.Misdirected, 302, ""),
    _of_object(errors.Misdirected, 404, "NoSuchBucket"),
    _of_object(errors.StoreError, 405, "MethodNotAllowed"),
    _of_object(errors.StoreError, 451, "UnavailableForLegalReasons"),
    _of_object(errors.UnavailableStore, 500, "InternalError"),
    errors.TransportError("the head of the answer cannot be read"),
    errors.IntegrityError("8 bytes came, 9 were announced"),
]


POINTERS = {302: "region", 307: "region", 404: "bucket"}


class Unreadable(Faults):
    """Some reads fail, the first ones."""

    def __init__(self, error: errors.SlurperError, count: int, *operations: str) -> None:
        super().__init__()
        for operation in operations:
            self.fail(error, operation=operation, times=count)


@pytest.mark.parametrize("keys", [None, ("a", "b", "c")], ids=["listed", "named"])
@pytest.mark.parametrize("error", OF_ITS_OWN, ids=str)
async def test_a_first_object_that_cannot_be_read_refuses_no_source(
    bucket: MemoryStore, error: errors.SlurperError, keys: tuple[str, ...] | None
) -> None:
    for key in ("a", "b", "c"):
        bucket.add(key, b"1")
    bucket.faults = Unreadable(error, 1, "get")
    (note,) = await _source(keys=keys)
    assert not note.blocks
    assert f"'a' could not be read, and its copy will fail if that lasts: {error}" in note.message
    assert bucket.faults.requests["get"] == 3


@pytest.mark.parametrize("keys", [None, ("a", "b", "c")], ids=["listed", "named"])
@pytest.mark.parametrize("error", OF_ITS_OWN, ids=str)
async def test_where_no_object_can_be_read_only_a_refusal_refuses_the_source(
    bucket: MemoryStore, error: errors.SlurperError, keys: tuple[str, ...] | None
) -> None:
    for key in ("a", "b", "c"):
        bucket.add(key, b"1")
    bucket.faults = Unreadable(error, 9, "get")
    (problem,) = await _source(keys=keys)
    assert problem.blocks is isinstance(error, errors.Refused)
    assert str(error) in problem.message
    if problem.blocks:
        pointer = POINTERS.get(error.status, "secret") if isinstance(error, errors.Refused) else ""
        assert problem.pointer == f"/source/{pointer}"
        assert "(reading a byte of 'a')" in problem.message


async def test_what_is_gone_or_archived_does_not_make_up_for_what_is_denied(
    bucket: MemoryStore,
) -> None:
    bucket.add("a", b"1")
    bucket.add("b", b"1", storage_class="GLACIER")
    bucket.faults = Unreadable(DENIED, 1, "get")
    (problem,) = await _source()
    assert problem.blocks
    bucket.faults = Unreadable(DENIED, 1, "get")
    (problem,) = await _source(keys=("a", "missing"))
    assert problem.blocks


async def test_so_many_objects_are_tried_and_no_more(bucket: MemoryStore) -> None:
    keys = tuple(f"{number:04}" for number in range(100))
    for key in keys:
        bucket.add(key, b"1")
    for named in (None, keys):
        bucket.faults = Unreadable(DENIED, 99, "get")
        (problem,) = await _source(keys=named)
        assert problem.blocks
        assert bucket.faults.requests["get"] == source.MOST_READ


async def test_keys_that_get_no_answer_at_all_refuse_the_source(bucket: MemoryStore) -> None:
    bucket.add("a", b"1")
    bucket.faults = Unreadable(UNREACHABLE, 9, "head", "list_page")
    (problem,) = await _source(keys=("a", "b"))
    assert problem.blocks
    assert problem.pointer == "/source/endpoint"


@pytest.mark.parametrize("silent", [1, 9])
async def test_an_object_that_gives_no_answer_refuses_no_source_unless_all_do(
    bucket: MemoryStore, monkeypatch: pytest.MonkeyPatch, silent: int
) -> None:
    class Hanging(Faults):
        async def begin(self, operation: str) -> errors.SlurperError | None:
            lost = await super().begin(operation)
            if operation == "get" and self.requests[operation] <= silent:
                await asyncio.sleep(60)
            return lost

    for key in ("a", "b", "c"):
        bucket.add(key, b"1")
    bucket.faults = Hanging()
    with monkeypatch.context() as patch:
        patch.setattr(precheck, "CHECK_SECONDS", 0.4)
        (problem,) = await _source()
    assert problem.blocks is (silent > 1)
    assert "no answer" in problem.message


@pytest.mark.parametrize("refused", ["put_part", None])
async def test_an_upload_that_cannot_be_removed_is_named(
    bucket: MemoryStore, refused: str | None
) -> None:
    if refused is not None:
        bucket.faults.fail(DENIED, operation=refused)
    bucket.faults.fail(DENIED, operation="abort_upload")
    (problem,) = await _target()
    (key,) = bucket.open_uploads
    assert f"of the key {key}" in problem.message
    assert "an upload of the check is left" in problem.message


async def test_a_target_is_listed_and_an_upload_begun_and_dropped(bucket: MemoryStore) -> None:
    assert await _target() == ()
    once = ("list_page", "list_uploads", "create_upload", "abort_upload")
    assert bucket.faults.requests == {**dict.fromkeys(once, 1), "put_part": 3}
    assert (bucket.keys, bucket.open_uploads) == ((), ())


@pytest.mark.parametrize("operation", ["list_page", "create_upload", "put_part", "abort_upload"])
async def test_a_target_must_allow_each_of_these(bucket: MemoryStore, operation: str) -> None:
    bucket.faults.fail(DENIED, operation=operation)
    (problem,) = await _target()
    assert problem.pointer == "/target/secret"
    assert "write objects, multipart uploads included" in problem.message


async def test_the_key_of_the_target_check_is_reserved_and_new_each_time(
    bucket: MemoryStore,
) -> None:
    lost = errors.AccessDenied("AbortMultipartUpload", status=403)
    bucket.faults.fail(lost, operation="abort_upload", times=2)
    await _target()
    await _target()
    first, second = bucket.open_uploads
    assert first != second
    assert first.startswith(".slurper-precheck-")


@pytest.mark.parametrize(
    "lost",
    [
        errors.TransportError("reset"),
        errors.UnavailableStore("CreateMultipartUpload", status=500, code="InternalError"),
    ],
)
async def test_an_upload_whose_creation_got_no_answer_is_found_and_dropped(
    bucket: MemoryStore, lost: errors.SlurperError
) -> None:
    bucket.faults.fail(lost, operation="create_upload", takes_effect=True)
    (problem,) = await _target()
    assert problem.pointer.startswith("/target/")
    assert bucket.open_uploads == ()


async def test_a_store_that_does_not_answer_ends_the_check(
    bucket: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.faults.latency_seconds = 60
    with monkeypatch.context() as patch:
        patch.setattr(precheck, "CHECK_SECONDS", 0.05)
        (problem,) = await _source()
    assert problem.pointer == "/source/endpoint"
    assert "no answer within 0.05 seconds (listing it)" in problem.message


async def test_a_check_that_is_cancelled_leaves_no_upload(bucket: MemoryStore) -> None:
    bucket.faults.latency_seconds = 0.02
    check = asyncio.create_task(_target())
    while "abort_upload" not in bucket.faults.requests:  # noqa: ASYNC110 - the store tells nobody
        await asyncio.sleep(0.001)
    assert len(bucket.open_uploads) == 1
    check.cancel()
    await asyncio.wait([check])
    assert check.cancelled()
    assert bucket.open_uploads == ()


@pytest.mark.parametrize(
    ("location", "pointer"),
    [
        (Location(vendor=Vendor.GCS, bucket="photos"), "/source/secret"),
        (replace(S3, endpoint="https://s3.example/path"), "/source/endpoint"),
        (replace(S3, endpoint="http://s3.example"), "/source/endpoint"),
        (replace(S3, region="no/region"), "/source/region"),
    ],
)
def test_a_location_that_cannot_be_one_is_refused_before_anything_is_sent(
    location: Location, pointer: str
) -> None:
    with pytest.raises(errors.InvalidField) as caught:
        Precheck(Settings()).resolve(Side.SOURCE, Owner(ACCOUNT), location, PAIR)
    assert caught.value.pointer == pointer


def test_credentials_of_another_vendor_are_refused() -> None:
    account = GcsCredentials(client_email="a@b", private_key="pem")
    with pytest.raises(errors.InvalidField) as caught:
        Precheck(Settings()).resolve(Side.TARGET, Owner(ACCOUNT), R2, account)
    assert caught.value.pointer == "/target/secret"


class Program(MemoryStore):
    """A bucket of a program that nobody has heard of: which checksums does it compare?"""

    def __init__(self, verifies: set[Algorithm], refuses: set[Algorithm]) -> None:
        super().__init__()
        self.verifies = verifies
        self.refuses = refuses

    def speaking(self, dialect: Dialect) -> Program:
        self._dialect = dialect
        return copy(self)

    async def create_upload(self, key: str, headers: ObjectHeaders) -> CreatedUpload:
        if self.dialect.checksum in self.refuses:
            raise _answer(errors.StoreError, 501, "NotImplemented")
        return await super().create_upload(key, headers)

    def _verify(self, body: Body) -> None:
        if self.dialect.checksum in self.verifies:
            super()._verify(body)


CRC32C, MD5 = Algorithm.CRC32C, Algorithm.MD5


@pytest.mark.parametrize(
    ("verifies", "refuses", "checksum", "verified"),
    [
        ({CRC32C, MD5}, set(), CRC32C, True),
        ({MD5}, set(), MD5, True),
        ({MD5}, {CRC32C}, MD5, True),
        (set(), set(), None, False),
        (set(), {CRC32C}, None, False),
    ],
)
async def test_the_checksum_that_a_store_verifies_is_found(
    monkeypatch: pytest.MonkeyPatch,
    verifies: set[Algorithm],
    refuses: set[Algorithm],
    checksum: Algorithm | None,
    verified: bool,
) -> None:
    program = Program(verifies, refuses)
    monkeypatch.setattr(factory, "open_store", lambda to, _: program.speaking(to.dialect))
    check = Precheck(Settings())
    answer = await check.target(S3, check.resolve(Side.TARGET, Owner(ACCOUNT), S3, PAIR))
    found = answer.capabilities
    assert (found.checksum, found.verifies_checksum) == (checksum, verified)
    assert found.verifies_md5 == (True if verified else None)
    assert found.conditional_put is True
    assert [note.blocks for note in answer.problems] == ([] if verified else [False])
    assert (program.keys, program.open_uploads) == ((), ())


@pytest.mark.parametrize(
    ("answered", "verified"),
    [
        (errors.BytesRefused("BadDigest"), True),
        (errors.StoreError("UploadPart", status=400, code="InvalidRequest"), False),
        (errors.UnavailableStore("UploadPart", status=500), None),
        (errors.TransportError("reset"), None),
    ],
)
async def test_whether_a_store_verifies_content_md5_is_found_as_far_as_it_answers(
    bucket: MemoryStore, answered: errors.SlurperError, verified: bool | None
) -> None:
    bucket.faults.fail(answered, operation="put_part", nth=3)
    answer = await _generic_target()
    assert answer.problems == ()
    assert (answer.capabilities.verifies_checksum, answer.capabilities.verifies_md5) == (
        True,
        verified,
    )


async def test_a_store_that_refuses_every_checksum_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = Program(set(), {CRC32C, MD5})
    monkeypatch.setattr(factory, "open_store", lambda to, _: program.speaking(to.dialect))
    check = Precheck(Settings())
    answer = await check.target(S3, check.resolve(Side.TARGET, Owner(ACCOUNT), S3, PAIR))
    assert [problem.blocks for problem in answer.problems] == [True]


@pytest.mark.parametrize(
    ("dialect", "obeys"), [(dialects.R2, True), (dialects.GCS, True), (dialects.WASABI, False)]
)
async def test_what_is_known_of_a_provider_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
    dialect: Dialect,
    obeys: bool,
) -> None:
    store = MemoryStore(dialect=dialect)
    monkeypatch.setattr(factory, "open_store", lambda *_: store)
    check = Precheck(Settings())
    answer = await check.target(R2, check.resolve(Side.TARGET, Owner(ACCOUNT), R2, PAIR))
    assert answer.capabilities.conditional_put is obeys
    assert not {"put", "delete", "keeps_versions"} & store.faults.requests.keys()


async def test_an_object_that_a_killed_check_left_is_deleted_and_no_other() -> None:
    moment = datetime.now(UTC)
    store = MemoryStore(now=lambda: moment)
    old = own_keys.PREFIX + "0" * 32
    for key in (old, f"{own_keys.PREFIX}notes.txt", "somebody-elses"):
        store.add(key, b"x")
    moment += timedelta(seconds=clean_up.STALE_SECONDS + 1)
    under_way = store.add(own_keys.PREFIX + "1" * 32, b"x").key
    await clean_up.remove_stale_objects(store, ())
    assert {*store.keys} == {under_way, f"{own_keys.PREFIX}notes.txt", "somebody-elses"}


async def test_what_a_killed_check_left_is_dropped_once_nobody_can_be_at_it() -> None:
    moment = datetime.now(UTC)
    store = MemoryStore(now=lambda: moment)
    for key in (f"{own_keys.PREFIX}old", "somebody-elses"):
        await store.create_upload(key, ObjectHeaders())
    moment += timedelta(seconds=clean_up.STALE_SECONDS + 1)
    await store.create_upload(f"{own_keys.PREFIX}under-way", ObjectHeaders())
    await clean_up.remove_stale_uploads(store, ())
    assert sorted(store.open_uploads) == [f"{own_keys.PREFIX}under-way", "somebody-elses"]


# What the job can do without


class Silence(Faults):
    """The `nth` request of an operation gets no answer."""

    def __init__(self, operation: str, nth: int) -> None:
        super().__init__()
        self._silent = operation, nth

    async def begin(self, operation: str) -> errors.SlurperError | None:
        is_silent = (operation, self.requests.get(operation, 0) + 1) == self._silent
        lost = await super().begin(operation)
        if is_silent:
            await asyncio.sleep(60)
        return lost


async def _generic_target(*, asks_what_is_kept: bool = False) -> precheck.Checked:
    check = Precheck(Settings())
    address = check.resolve(Side.TARGET, Owner(ACCOUNT), S3, PAIR)
    return await check.target(S3, address, asks_what_is_kept=asks_what_is_kept)


@pytest.mark.parametrize(
    ("operation", "nth", "put"),
    [
        ("keeps_versions", 1, None),
        ("delete", 1, None),
        ("put", 1, None),
        ("complete_upload", 1, True),
    ],
)
async def test_without_time_for_the_question_of_conditions_a_target_is_not_refused(
    bucket: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    nth: int,
    put: bool | None,
) -> None:
    bucket.faults = Silence(operation, nth)
    with monkeypatch.context() as patch:
        patch.setattr(precheck, "CHECK_SECONDS", 0.5)
        answer = await _generic_target()
    (note,) = answer.problems
    assert not note.blocks
    assert "could not be found out" in note.message
    assert "no answer in time" in note.message
    found = answer.capabilities
    assert (found.conditional_put, found.conditional_completion) == (put, None)
    assert found.verifies_checksum
    assert (bucket.keys, bucket.open_uploads) == ((), ())


async def test_nor_without_time_for_the_question_of_md5s(
    bucket: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.faults = Silence("put_part", 3)
    with monkeypatch.context() as patch:
        patch.setattr(precheck, "CHECK_SECONDS", 0.5)
        answer = await _generic_target()
    assert answer.problems == ()
    assert (answer.capabilities.verifies_md5, answer.capabilities.conditional_put) == (None, True)


async def test_nor_without_time_for_what_earlier_checks_have_left(
    bucket: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.faults = Silence("list_uploads", 1)
    with monkeypatch.context() as patch:
        patch.setattr(precheck, "CHECK_SECONDS", 0.5)
        answer = await _generic_target()
    assert (answer.problems, answer.capabilities.conditional_put) == ((), True)


FAILS = _answer(errors.UnavailableStore, 500, "InternalError")


class Unverifying(MemoryStore):
    """Takes bytes with any checksum. So an upload of its own is begun to ask about conditions."""

    def _verify(self, body: Body) -> None:
        pass


@pytest.mark.parametrize(
    ("operation", "nth", "put", "completion"),
    [
        ("put", 2, None, True),
        ("create_upload", 3, True, None),
        ("put_part", 7, True, None),
        ("abort_upload", 3, True, True),
    ],
)
@pytest.mark.parametrize("is_silent", [False, True])
async def test_what_goes_wrong_with_one_condition_takes_nothing_from_the_other(
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    nth: int,
    put: bool | None,
    completion: bool | None,
    is_silent: bool,
) -> None:
    store = Unverifying(faults=Silence(operation, nth) if is_silent else Faults())
    if is_silent:
        monkeypatch.setattr(precheck, "CHECK_SECONDS", 0.5)
        monkeypatch.setattr(clean_up, "SECONDS", 0.2)
    else:
        store.faults.fail(
            FAILS, operation=operation, nth=nth, takes_effect=operation == "create_upload"
        )
    monkeypatch.setattr(factory, "open_store", lambda *_: store)
    answer = await _generic_target()
    found = answer.capabilities
    assert (found.conditional_put, found.conditional_completion) == (put, completion)
    notes = [
        note.message for note in answer.problems if "verifies no checksums" not in note.message
    ]
    assert not any(note.blocks for note in answer.problems)
    assert len(notes) == 1
    assert store.keys == ()
    assert all(key in notes[0] for key in store.open_uploads)


async def test_an_upload_that_nobody_drops_in_time_is_named(
    bucket: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that the job needs: a target that keeps it is refused, and the text says why."""
    bucket.faults = Silence("abort_upload", 1)
    with monkeypatch.context() as patch:
        patch.setattr(precheck, "CHECK_SECONDS", 0.5)
        patch.setattr(clean_up, "SECONDS", 0.2)
        (problem,) = await _target()
    assert problem.blocks
    assert "(aborting the upload)" in problem.message
    assert "an upload of the check is left" in problem.message


@pytest.mark.parametrize(
    ("operation", "nth"),
    [("create_upload", 2), ("put_part", 4), ("put_part", 5)],
)
@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_second_checksum_that_cannot_be_tried_takes_nothing_from_the_first(
    monkeypatch: pytest.MonkeyPatch, operation: str, nth: int, is_silent: bool
) -> None:
    program = Program(set(), set())
    if is_silent:
        program.faults = Silence(operation, nth)
        monkeypatch.setattr(precheck, "CHECK_SECONDS", 0.5)
        monkeypatch.setattr(clean_up, "SECONDS", 0.2)
    else:
        program.faults.fail(FAILS, operation=operation, nth=nth)
    monkeypatch.setattr(factory, "open_store", lambda to, _: program.speaking(to.dialect))
    answer = await _generic_target()
    found = answer.capabilities
    assert (found.checksum, found.verifies_checksum) == (None, False)
    assert not any(note.blocks for note in answer.problems)
    untried, unverified = [note.message for note in answer.problems][:2]
    assert "whether the target verifies MD5 could not be found out" in untried
    assert "took bytes with a wrong CRC32C:" in unverified
    assert program.keys == ()


@pytest.mark.parametrize(
    ("status", "code"),
    [(501, "NotImplemented"), (405, "MethodNotAllowed"), (405, ""), (400, "NotSupported")],
)
@pytest.mark.parametrize("asks_condition", [True, False])
async def test_a_target_without_uploads_in_parts_can_be_used_and_is_told_of(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str, *, asks_condition: bool
) -> None:
    bucket = Program({MD5}, set())
    monkeypatch.setattr(factory, "open_store", lambda where, _: bucket.speaking(where.dialect))
    refusal = errors.StoreError("CreateMultipartUpload", status=status, code=code)
    bucket.faults.fail(refusal, operation="create_upload", times=9)
    check = Precheck(Settings())
    address = check.resolve(Side.TARGET, Owner(ACCOUNT), S3, PAIR)
    checked = await check.target(S3, address, asks_condition=asks_condition)
    (note,) = checked.problems
    assert (note.blocks, note.pointer) == (False, "/target/endpoint")
    assert "knows no uploads in parts" in note.message
    found = checked.capabilities
    assert (found.checksum, found.verifies_checksum) == ("md5", None)
    assert found.conditional_put is (True if asks_condition else None)
    assert bucket.keys == ()


async def test_a_target_that_refuses_uploads_for_another_reason_cannot_be_used(
    bucket: MemoryStore,
) -> None:
    refusal = errors.StoreError("CreateMultipartUpload", status=400, code="InvalidArgument")
    bucket.faults.fail(refusal, operation="create_upload", times=9)
    (problem,) = await _target()
    assert problem.blocks
