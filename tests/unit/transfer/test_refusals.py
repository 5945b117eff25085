"""A refusal or redirect: for one object it fails that object, for all it halts.

Each answer that a store has for a request it will not serve is given to each request that a copy
makes: once for one object only, and once for all of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from slurper import errors
from slurper.http.messages import Response
from slurper.job.model import LogType
from slurper.objectstore import error_answers
from slurper.objectstore.base import (
    CreatedUpload,
    Download,
    ObjectHeaders,
    ObjectStore,
    Part,
    StoreAddress,
    StoredObject,
)
from slurper.planning.keyspace import KeyRange
from slurper.settings import MIB, Settings
from slurper.transfer import attempts
from slurper.transfer.task import RangeReport, RangeTask
from slurper.transfer.worker import Worker
from tests.chain import first_task, folded, settle
from tests.memory.store import MemoryStore
from tests.unit.transfer.test_server_side import DIALECT, address

ANSWERS = [
    # status, code
    (403, "SignatureDoesNotMatch"),
    (403, "InvalidAccessKeyId"),
    (400, "InvalidToken"),
    (400, "ExpiredToken"),
    (403, "RequestTimeTooSkewed"),
    (400, "AuthorizationHeaderMalformed"),
    (401, "Unauthorized"),
    (401, ""),
    (403, ""),
    (403, "AccessDenied"),
    (403, "AccountProblem"),
    (403, "AllAccessDisabled"),
    (301, "PermanentRedirect"),
    (302, ""),
    (307, ""),
    (307, "TemporaryRedirect"),
    (308, ""),
    (404, "NoSuchBucket"),
]
KEYS = tuple(f"k{number:02}" for number in range(12))
BAD = "k05"
SMALL, LARGE = 10, 5 * MIB + 1

Refuses = Callable[[str, str], bool]


class RefusingStore(MemoryStore):
    """Refuses what `refuses(method, key)` says, with one answer."""

    def __init__(self, **more: Any) -> None:  # noqa: ANN401 - as it is
        super().__init__(**more)
        self.refuses: Refuses = lambda _method, _key: False
        self.answer = (403, "AccessDenied")
        self.refusals = 0
        self.names: dict[str, str] = {}
        """How this store names operations, where it is not as S3 does."""

    def _guard(self, method: str, operation: str, key: str) -> None:
        if self.refuses(method, key):
            self.refusals += 1
            status, code = self.answer
            body = f"<Error><Code>{code}</Code></Error>".encode() if code else b""
            response = Response(status, {}, [body], len(body))
            name = self.names.get(operation, operation)
            raise error_answers.to_error(response, name, bucket="b", key=key)

    async def head(self, key: str, **more: Any) -> StoredObject:  # noqa: ANN401 - as it is
        self._guard("head", "HeadObject", key)
        return await super().head(key, **more)

    async def get(self, key: str, **more: Any) -> Download:  # noqa: ANN401 - as it is
        self._guard("get", "GetObject", key)
        return await super().get(key, **more)

    async def put(self, key: str, *args: Any, **more: Any) -> str:  # noqa: ANN401 - as it is
        self._guard("put", "PutObject", key)
        return await super().put(key, *args, **more)

    async def create_upload(self, key: str, headers: ObjectHeaders) -> CreatedUpload:
        self._guard("create_upload", "CreateMultipartUpload", key)
        return await super().create_upload(key, headers)

    async def put_part(self, key: str, *args: Any) -> Part:  # noqa: ANN401 - as it is
        self._guard("put_part", "UploadPart", key)
        return await super().put_part(key, *args)

    async def complete_upload(self, key: str, *args: Any, **more: Any) -> str:  # noqa: ANN401
        self._guard("complete_upload", "CompleteMultipartUpload", key)
        return await super().complete_upload(key, *args, **more)

    async def copy_object(self, key: str, *args: Any, **more: Any) -> str:  # noqa: ANN401
        self._guard("copy_object", "CopyObject", key)
        return await super().copy_object(key, *args, **more)


@dataclass(frozen=True)
class Way:
    """Of a copy, the request that is refused."""

    side: str
    method: str
    size: int = SMALL
    named: bool = False
    overwrite: bool = True
    inside: bool = False


WAYS = {
    "GET": Way("source", "get"),
    "HEAD of the source": Way("source", "head", named=True),
    "HEAD of a large object": Way("source", "head", size=LARGE),
    "HEAD of the target": Way("target", "head", named=True, overwrite=False),
    "PUT": Way("target", "put"),
    "CreateMultipartUpload": Way("target", "create_upload", size=LARGE),
    "UploadPart": Way("target", "put_part", size=LARGE),
    "CompleteMultipartUpload": Way("target", "complete_upload", size=LARGE),
    "CopyObject": Way("target", "copy_object", inside=True),
}
SETTINGS = Settings(
    in_flight_requests=4, multipart_threshold_bytes=5 * MIB, part_bytes=5 * MIB, object_attempts=2
)


class Scene:
    """Two buckets and a worker, and a task for one way of copying."""

    def __init__(self, way: Way, answer: tuple[int, str]) -> None:
        dialect = replace(DIALECT, max_copy_bytes=5 * MIB)
        self.source = RefusingStore(dialect=dialect, bucket="from")
        self.target = RefusingStore(dialect=dialect, bucket="to", neighbours=[self.source])
        self.refusing = self.source if way.side == "source" else self.target
        self.refusing.answer = answer
        self.task = RangeTask(
            job_id="j",
            range_id=1,
            source=address("from", key_id="a" if way.inside else "other"),
            target=address("to"),
            slice=KeyRange(),
            keys=KEYS if way.named else None,
            overwrite=way.overwrite,
        )
        self.worker = Worker(SETTINGS, open_store=self._open)
        for key in KEYS:
            self.source.add(key, bytes(way.size if key in (BAD, "k08") else SMALL))

    def _open(self, where: StoreAddress, _: object) -> ObjectStore:
        return self.source if where.bucket == "from" else self.target

    async def run(self, cursor: str | None = None) -> RangeReport:
        task = replace(self.task, slice=KeyRange(cursor))
        found = await self.worker.run(task)
        parts: Callable[..., Awaitable[Any]] = self.worker.run
        reports, _ = await settle([first_task(task, meta) for meta in found.large], parts)
        return folded(found, reports)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "ATTEMPT_PAUSE_SECONDS", 0.0)


def words(answer: tuple[int, str]) -> str:
    return f"answered HTTP {answer[0]} {answer[1]}".strip()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("answer", ANSWERS)
async def test_an_answer_for_one_object_fails_that_object_alone(
    way: Way, answer: tuple[int, str]
) -> None:
    scene = Scene(way, answer)
    scene.refusing.refuses = lambda method, key: (method, key) == (way.method, BAD)
    report = await scene.run()
    assert (report.halt, report.counts.objects) == (None, len(KEYS))
    assert scene.target.open_uploads == ()
    if way.inside:  # the ordinary way is left
        assert (report.events, report.counts.transferred) == ((), len(KEYS))
        return
    (event,) = report.events
    assert (event.key, event.log_type) == (BAD, LogType.IMPORT_ERROR_RETRY_EXHAUSTION)
    assert words(answer) in event.message
    assert "resume" not in event.message
    assert report.counts.transferred == len(KEYS) - 1


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("answer", ANSWERS)
async def test_an_answer_for_every_object_halts_and_names_a_key(
    way: Way, answer: tuple[int, str]
) -> None:
    scene = Scene(way, answer)
    scene.refusing.refuses = lambda _method, _key: True
    report = await scene.run()
    assert report.halt is not None
    assert words(answer) in report.halt.message
    assert "resume" in report.halt.message
    assert report.halt.message.startswith("at 'k")
    assert (report.counts.failed, report.events) == (0, ())

    scene.refusing.refuses = lambda _method, _key: False
    rest = await scene.run(report.cursor)
    assert rest.halt is None
    assert rest.counts.failed == report.counts.failed == 0
    assert scene.target.keys == KEYS


@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_key_that_is_refused_pauses_nothing_after_a_resume(answer: tuple[int, str]) -> None:
    """The resumed task begins with that very key, before anything else has been read."""
    for way in (WAYS["GET"], WAYS["PUT"], WAYS["HEAD of the source"]):
        scene = Scene(way, answer)
        scene.refusing.refuses = lambda method, key, way=way: (method, key) == (way.method, BAD)  # type: ignore[misc]
        report = await scene.run("k04")
        assert (report.halt, [event.key for event in report.events]) == (None, [BAD])


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((403, "SignatureDoesNotMatch"), "in another form than the signed one; copy the object by"),
        ((400, "ExpiredToken"), "has a wrong clock, or does not know the credentials; try the"),
        ((403, "RequestTimeTooSkewed"), "has a wrong clock, or does not know the credentials; try"),
        ((307, "TemporaryRedirect"), "sends requests for this object elsewhere, and no redirect"),
        ((404, "NoSuchBucket"), "reads the name of another bucket in this key; copy the object by"),
    ],
)
async def test_the_entry_says_what_such_an_answer_means(answer: tuple[int, str], says: str) -> None:
    scene = Scene(WAYS["GET"], answer)
    scene.source.refuses = lambda method, key: (method, key) == ("get", BAD)
    (event,) = (await scene.run()).events
    assert says in event.message


async def test_many_objects_refused_at_once_cost_few_questions() -> None:
    scene = Scene(WAYS["GET"], (403, "AccessDenied"))
    bad = set(KEYS[4:])
    scene.source.refuses = lambda method, key: method == "get" and key in bad
    report = await scene.run()
    assert {event.key for event in report.events} == bad
    asked = scene.source.faults.requests["get"] - len(KEYS[:4])
    assert scene.source.refusals == len(bad)
    assert 1 <= asked <= len(bad) // 2


async def test_credentials_that_some_machines_know_late_are_tried_once_more() -> None:
    for way in (WAYS["GET"], WAYS["PUT"], WAYS["UploadPart"]):
        scene = Scene(way, (403, "InvalidAccessKeyId"))
        left = [True]
        scene.refusing.refuses = lambda method, key, way=way, left=left: (  # type: ignore[misc]
            (method, key) == (way.method, BAD) and bool(left) and left.pop()
        )
        report = await scene.run()
        assert (report.halt, report.events, report.counts.transferred) == (None, (), len(KEYS))
        assert report.attempts >= 1


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestTimeTooSkewed"])
async def test_credentials_that_end_are_told_by_one_question(code: str) -> None:
    scene = Scene(WAYS["GET"], (403, code))
    scene.source.refuses = lambda _method, _key: len(scene.target.keys) >= 4
    report = await scene.run()
    assert report.halt is not None
    assert code in report.halt.message
    assert report.counts.failed == 0
    assert scene.source.refusals <= SETTINGS.in_flight_requests + 1


@pytest.mark.parametrize("way", [WAYS["GET"], WAYS["HEAD of the source"]])
async def test_a_google_source_that_may_not_be_read_any_more_halts(way: Way) -> None:
    scene = Scene(way, (403, "forbidden"))
    scene.source.names = {"GetObject": "objects.get", "HeadObject": "objects.get"}
    scene.source.refuses = lambda _method, _key: True
    report = await scene.run()
    assert report.halt is not None
    assert "no object of the source can be read any more: objects.get" in report.halt.message
    assert report.counts.failed == 0


async def test_an_account_that_gets_no_token_halts_without_a_question() -> None:
    scene = Scene(WAYS["GET"], (403, ""))
    refused = errors.CredentialsRejected("GetAccessToken", status=400, code="invalid_grant")
    scene.source.faults.fail(refused, operation="get")
    report = await scene.run()
    assert report.halt is not None
    assert "invalid_grant" in report.halt.message
    assert report.counts.failed == 0
