"""Each of the 15 log types through what really causes it: the service, and a store that answers.

Where a provider can be made to give an answer, it gives it: storage classes, bucket policies. The
proxy only makes objects slow, so that there is time to step in.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from slurper.demo.servers import S3Server
from slurper.job.model import LogType
from tests.chaos import proxy
from tests.chaos.proxy import FaultProxy
from tests.e2e import program
from tests.e2e.program import Service

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Boto = Callable[[S3Server], "S3Client"]
MakeBucket = Callable[[S3Server], str]

SETTINGS = {
    "SLURPER_IN_FLIGHT_REQUESTS": "2",
    "SLURPER_MAX_CONCURRENT_JOBS": "100",
    "SLURPER_OBJECT_ATTEMPTS": "2",
    "SLURPER_REQUEST_RETRIES": "0",
    "SLURPER_TASK_SECONDS": "0.3",
}
PLAIN = tuple(f"plain-{number:02}" for number in range(8))
ODD = "plain-05-odd"
"""Named so that others come before it and after it."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A service, and two buckets of one store before which a proxy stands."""

    service: Service
    behind: S3Server
    store: FaultProxy
    client: S3Client
    source: str
    target: str

    def put(self, key: str, body: bytes = b"text", **more: Any) -> None:  # noqa: ANN401 - boto3's arguments
        """Write an object to the source."""
        more = {"ContentType": "text/plain"} | more
        self.client.put_object(Bucket=self.source, Key=key, Body=body, **more)

    def start(self, **more: Any) -> str:  # noqa: ANN401 - members of a request
        """Create a job from source to target."""
        return self.service.create_job(self.behind, self.source, self.target, **more)

    def start_slow(self) -> str:
        """Create a job and wait until it has begun; it will take its time."""
        self.store.add(proxy.delayed(0.3), "^GET /[^?]*/plain")
        job_id = self.start()
        program.wait_until(lambda: self.progress(job_id)["objects"] > 0, "the first object")
        return job_id

    def command(self, job_id: str, verb: str) -> None:
        """Pause, resume or abort."""
        answer = self.service.call("PUT", f"/{job_id}/{verb}")
        assert answer.status_code == 200, answer.text

    def progress(self, job_id: str) -> Any:  # noqa: ANN401 - as JSON is
        """What the API says of a job."""
        return self.service.call("GET", f"/{job_id}/progress").json()["result"]

    def wait(self, job_id: str, status: str = "completed") -> None:
        """Wait for a status."""
        program.wait_until(lambda: self.progress(job_id)["status"] == status, status)

    def logs(self, job_id: str) -> list[dict[str, str | None]]:
        """What the API shows of a job's log."""
        entries: list[dict[str, str | None]] = self.service.call("GET", f"/{job_id}/logs").json()[
            "result"
        ]
        return entries

    def deny(self, action: str, resource: str) -> None:
        """Let nobody do that any more, at the source."""
        statement = {"Effect": "Deny", "Principal": "*", "Action": action}
        where = f"arn:aws:s3:::{self.source}{resource}"
        policy = {"Version": "2012-10-17", "Statement": [{**statement, "Resource": where}]}
        self.client.put_bucket_policy(Bucket=self.source, Policy=json.dumps(policy))

    def allow(self) -> None:
        """Take that back."""
        self.client.delete_bucket_policy(Bucket=self.source)


@pytest.fixture(scope="module")
def service(ministack: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    env = SETTINGS | {"SLURPER_R2_ENDPOINT": ministack.endpoint}
    with program.serving(tmp_path_factory.mktemp("log-types"), env=env) as running:
        yield running


@pytest.fixture
def scene(
    service: Service, ministack: S3Server, boto: Boto, make_bucket: MakeBucket
) -> Iterator[Scene]:
    with FaultProxy(ministack.endpoint).running() as front:
        buckets = make_bucket(ministack), make_bucket(ministack)
        behind = replace(ministack, endpoint=front.endpoint)
        made = Scene(service, behind, front, boto(ministack), *buckets)
        for key in PLAIN:
            made.put(key)
        yield made


# What leads to an entry: each returns the job that has it


def completed(scene: Scene) -> str:
    job_id = scene.start()
    scene.wait(job_id)
    return job_id


def paused(scene: Scene) -> str:
    job_id = scene.start_slow()
    scene.command(job_id, "pause")
    return job_id


def resumed(scene: Scene) -> str:
    job_id = paused(scene)
    scene.command(job_id, "resume")
    scene.wait(job_id)
    return job_id


def aborted(scene: Scene) -> str:
    job_id = scene.start_slow()
    scene.command(job_id, "abort")
    return job_id


def denied(action: str, resource: str) -> Callable[[Scene], str]:
    """A permission is lost on the way; the job pauses, and goes on when there is one again."""

    def arrange(scene: Scene) -> str:
        job_id = scene.start_slow()
        scene.deny(action, resource)
        scene.wait(job_id, "paused")
        scene.allow()
        scene.command(job_id, "resume")
        scene.wait(job_id)
        return job_id

    return arrange


def one_denied(scene: Scene) -> str:
    scene.put(ODD)
    scene.deny("s3:GetObject", f"/{ODD}")
    return completed(scene)


def odd(
    body: bytes = b"text", *, options: Mapping[str, object] | None = None, **more: str
) -> Callable[[Scene], str]:
    """One object is not like the others."""

    def arrange(scene: Scene) -> str:
        scene.put(ODD, body, **more)
        job_id = scene.start(options=options or {})
        scene.wait(job_id)
        return job_id

    return arrange


def archived_out_of_sight(scene: Scene) -> str:
    """R2's listings name no class that cannot be read, so only the GET shows it."""
    scene.put(ODD, StorageClass="GLACIER")
    job_id = scene.start(chosen={"vendor": "r2", "endpoint": None, "region": None})
    scene.wait(job_id)
    return job_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How a log type comes about, and what its entry says: what was seen; what to do."""

    arrange: Callable[[Scene], str]
    says: str | None = None
    """A pattern for the whole message; None: there is nothing to add to the type."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """How `ODD`, which the entry names, is counted; nothing for what concerns no object."""


SKIPPED = {"skippedObjects": 1, "failedObjects": 0}
FAILED = {"skippedObjects": 0, "failedObjects": 1}

CASES = {
    LogType.MIGRATION_START: Case(arrange=completed),
    LogType.MIGRATION_COMPLETE: Case(arrange=completed),
    LogType.MIGRATION_PAUSE: Case(arrange=paused),
    LogType.MIGRATION_RESUME: Case(arrange=resumed),
    LogType.MIGRATION_ABORT: Case(arrange=aborted),
    LogType.MIGRATION_ERROR: Case(
        arrange=denied("s3:GetObject", "/*"),
        says=r"at '.+': no object of the source can be read any more: GetObject answered HTTP 403 "
        r"AccessDenied: .*; give these credentials the permission back, then resume.*",
    ),
    LogType.MIGRATION_ERROR_FAILED_CONTINUATION: Case(
        arrange=denied("s3:ListBucket", ""),
        says=r"ListObjectsV2 answered HTTP 403 AccessDenied: .*; grant these credentials .*",
    ),
    LogType.IMPORT_ERROR_RETRY_EXHAUSTION: Case(
        arrange=one_denied,
        says=r"GetObject answered HTTP 403 AccessDenied: .*; grant these credentials .*",
        counts=FAILED,
    ),
    LogType.IMPORT_SKIPPED_STORAGE_CLASS: Case(
        arrange=odd(StorageClass="GLACIER"),
        says="storage class GLACIER cannot be read; restore the object, then copy it .*",
        counts=SKIPPED,
    ),
    LogType.IMPORT_SKIPPED_REQUIRES_RETRIEVAL: Case(
        arrange=archived_out_of_sight,
        says="GetObject answered HTTP 403 InvalidObjectState: .*; it is archived: restore the .*",
        counts=SKIPPED,
    ),
    LogType.IMPORT_SKIPPED_OVERSIZED: Case(
        arrange=odd(b"x" * 11, options={"maxObjectSize": 10}),
        says=r"11 bytes; the limit is 10 bytes .*options\.maxObjectSize, which can be raised.*",
        counts=SKIPPED,
    ),
    LogType.IMPORT_SKIPPED_EMPTY_OBJECT: Case(
        arrange=odd(b"", options={"skipEmpty": True}),
        says=r"zero bytes, and options\.skipEmpty is set; leave that out .*",
        counts=SKIPPED,
    ),
    LogType.IMPORT_SKIPPED_UNSUPPORTED_CONTENT_TYPE: Case(
        arrange=odd(options={"contentTypes": {"include": ["text/plain"]}}, ContentType="text/odd"),
        says=r"content type text/odd is not in options\.contentTypes\.include; add it there .*",
        counts=SKIPPED,
    ),
    LogType.IMPORT_SKIPPED_EXCLUDED_CONTENT_TYPE: Case(
        arrange=odd(options={"contentTypes": {"exclude": ["text/odd"]}}, ContentType="text/odd"),
        says=r"content type text/odd is in options\.contentTypes\.exclude; remove it there .*",
        counts=SKIPPED,
    ),
    LogType.IMPORT_SKIPPED_INVALID_MEDIA: Case(
        arrange=odd(b"no picture", options={"validateMedia": True}, ContentType="image/png"),
        says=r"the first bytes are not those of image/png, and .* is set; correct the object .*",
        counts=SKIPPED,
    ),
}


@pytest.mark.parametrize("log_type", LogType)
def test_what_causes_a_log_type_leads_to_one_entry_that_explains_itself(
    scene: Scene, log_type: LogType
) -> None:
    case = CASES[log_type]
    job_id = case.arrange(scene)
    entries = [entry for entry in scene.logs(job_id) if entry["logType"] == log_type]
    assert len(entries) == 1, scene.logs(job_id)
    (entry,) = entries
    assert entry["job"] == job_id
    if case.says is None:
        assert entry.get("message") is None
    else:
        assert re.fullmatch(case.says, entry["message"] or ""), entry["message"]
    assert entry.get("objectKey") == (ODD if case.counts else None)
    progress = scene.progress(job_id)
    if case.counts:
        assert progress["objects"] == progress["transferredObjects"] + 1 == len(PLAIN) + 1
        assert {name: progress[name] for name in case.counts} == case.counts
    elif progress["status"] == "completed":
        assert progress["objects"] == progress["transferredObjects"] == len(PLAIN)


def test_the_table_holds_every_log_type() -> None:
    assert set(CASES) == set(LogType)


def test_the_advice_for_an_archived_object_works(scene: Scene) -> None:
    """Restored, it keeps its class; HEAD shows that it can be read."""
    job_id = odd(StorageClass="GLACIER")(scene)
    assert scene.progress(job_id)["skippedObjects"] == 1
    scene.client.restore_object(Bucket=scene.source, Key=ODD, RestoreRequest={"Days": 1})

    def is_restored() -> bool:
        head = scene.client.head_object(Bucket=scene.source, Key=ODD)
        return 'ongoing-request="false"' in head.get("Restore", "")

    program.wait_until(is_restored, "the restore")
    named = scene.start(chosen={"keys": [ODD]})
    scene.wait(named)
    assert scene.progress(named)["transferredObjects"] == 1
    with scene.client.get_object(Bucket=scene.target, Key=ODD)["Body"] as body:
        assert body.read() == b"text"


def test_an_entry_is_written_in_the_commit_that_counts_it(
    ministack: S3Server, boto: Boto, make_bucket: MakeBucket, tmp_path: Path
) -> None:
    """Whoever reads the database at any moment finds one entry for each object not copied."""
    source, target = make_bucket(ministack), make_bucket(ministack)
    for number in range(40):
        body = b"" if number % 2 else b"no picture"
        boto(ministack).put_object(
            Bucket=source, Key=f"item-{number:02}", Body=body, ContentType="image/png"
        )
    both = {"skipEmpty": True, "validateMedia": True}
    with (
        FaultProxy(ministack.endpoint).running() as front,
        program.serving(tmp_path, env=SETTINGS) as service,
    ):
        front.add(proxy.delayed(0.15), "^GET /[^?]*/item")
        behind = replace(ministack, endpoint=front.endpoint)
        service.create_job(behind, source, target, options=both)
        seen = _watch(tmp_path / "slurper.db")
    assert seen[-1] == (40, 40)
    assert len(set(seen)) >= 3, "the job was over too soon to be watched"
    assert [pair for pair in seen if pair[0] != pair[1]] == []


def _watch(database: Path) -> list[tuple[int, int]]:
    """(objects not copied, entries that say so), each pair of one moment, until the job ends."""
    query = (
        "SELECT skipped + failed, (SELECT count(*) FROM logs WHERE job_number = number"
        " AND object_key IS NOT NULL), status FROM jobs"
    )
    seen: list[tuple[int, int]] = []
    reader = sqlite3.connect(f"file:{database}?mode=ro", uri=True)

    def is_over() -> bool:
        counted, logged, status = reader.execute(query).fetchone()
        seen.append((counted, logged))
        return bool(status == "completed")

    try:
        program.wait_until(is_over, "the end of the job")
    finally:
        reader.close()
    return seen
