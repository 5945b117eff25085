"""Dates, lengths and counts that a store makes up: none is a fault of ours, and none stops a job.

A real create with its checks, and then a real task, meet a store whose answers hold any value where
a number or a date belongs. Either the job can be made, and its task runs to its end. Or the answer
cannot be used, and the create says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from html import escape
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from slurper.http import client as http_client
from slurper.objectstore.base import StoreAddress
from slurper.objectstore.dialects import GCS, GENERIC
from slurper.planning.keyspace import KeyRange
from slurper.secrets import S3Credentials
from slurper.settings import Settings
from slurper.transfer.task import RangeReport, RangeTask
from slurper.transfer.worker import Worker
from tests.security.hostile import Asked, HostileStore, Reply, hostile_store
from tests.servers.gcs import tokens
from tests.unit.api.conftest import ACCOUNT, TOKEN, Api, running

PAIR = {"accessKeyId": "AKIDEXAMPLE", "secretAccessKey": "hunter2hunter2"}

HUGE = "9" * 5000
VALUES = [
    "", "0", "-0", "-1", "+1", "1_0", " 1 ", "1.5", "1e999", "-1e999", "NaN", "Infinity", "0x10",
    "\xb2", "true", "null", HUGE, f"-{HUGE}", str(2**31), str(2**63 - 1), str(2**63), str(2**64),
    f"Wed, 21 Oct {HUGE} 07:28:00 GMT", "Wed, 21 Oct 99999 07:28:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9998 23:59:59 GMT",
    "Fri, 31 Dec 9998 23:59:59 -1400", "Mon, 01 Jan 0001 00:00:00 GMT",
    "Mon, 01 Jan 1900 00:00:00 +1400", "Wed, 21 Oct 2015 07:28:00 +9999",
    "Wed, 21 Oct 2015 07:28:60 GMT", "Wed, 99 Oct 2015 99:99:99 GMT",
    "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-14:00", f"{HUGE}-01-01T00:00:00Z", "2015-10-21T07:28:00.000Z",
    "2015-W54-7", "20151021",
    f"bytes 0-0/{HUGE}", f"bytes {HUGE}-{HUGE}/{HUGE}", "bytes 0-0/9999999999999999999",
    'ongoing-request="false", expiry-date="Fri, 31 Dec 99999 00:00:00 GMT"',
]  # fmt: skip
TEXTS = st.sampled_from(VALUES) | st.text(
    st.characters(max_codepoint=0xFF, exclude_categories=["Cc"]), max_size=40
)
HEADERS = (
    "Date", "Last-Modified", "Expires", "Age", "Retry-After", "x-amz-restore", "Content-Range",
    "x-amz-mp-parts-count", "x-amz-object-size", "x-amz-expiration", "Warning", "Keep-Alive",
)  # fmt: skip
ELEMENTS = ("LastModified", "Size", "Initiated", "MaxKeys", "KeyCount", "PartNumber", "ETag")


class Stage:
    """A service and workers in one loop, and the store that they ask."""

    def __init__(self, directory: Path, store: HostileStore) -> None:
        self._runner = asyncio.Runner()
        self.store = store
        self.settings = Settings.model_validate({
            "api_token": TOKEN,
            "data_dir": directory,
            "allow_http": True,
            "allow_private_endpoints": True,
            "gcs_endpoint": store.url,
            "gcs_token_uri": f"{store.url}/token",
            "max_concurrent_jobs": 1_000_000,
            "object_attempts": 1,
            "request_retries": 0,
            "retry_deadline_seconds": 0.3,
        })  # fmt: skip
        self._context = running(self.settings)
        self._api: Api = self.run(self._context.__aenter__())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - as the work returns
        return self._runner.run(work)

    def close(self) -> None:
        self.run(self._context.__aexit__(None, None, None))
        self._runner.close()

    def create(self, source: dict[str, object], target: dict[str, object]) -> httpx.Response:
        path = f"/accounts/{ACCOUNT}/slurper/jobs"
        answer: httpx.Response = self.run(
            self._api.client.post(path, json={"source": source, "target": target})
        )
        return answer

    def s3_side(self, bucket: str) -> dict[str, object]:
        return {
            "vendor": "s3",
            "bucket": bucket,
            "endpoint": self.store.url,
            "region": "auto",
            "secret": PAIR,
        }

    def s3_address(self, bucket: str) -> StoreAddress:
        return StoreAddress(
            origin=self.store.url,
            bucket=bucket,
            region="auto",
            dialect=replace(GENERIC, server_side_copy=False),
            credentials=S3Credentials(
                access_key_id=PAIR["accessKeyId"], secret_access_key=PAIR["secretAccessKey"]
            ),
            trusted=True,
        )

    def task(self, source: StoreAddress) -> RangeReport:
        """Run the task that the driver would begin with."""
        task = RangeTask(
            job_id="j",
            range_id=1,
            source=source,
            target=self.s3_address("target"),
            slice=KeyRange(),
            budget_seconds=100.0,
        )

        async def run() -> RangeReport:
            worker = Worker(self.settings)
            try:
                report = await worker.run(task)
            finally:
                await worker.close()
            assert isinstance(report, RangeReport)
            return report

        report: RangeReport = self.run(run())
        return report


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with pytest.MonkeyPatch.context() as patch:
        # A wait that a store asks for is obeyed, and here it would only take time.
        patch.setattr(http_client, "RETRY_AFTER_CAP_SECONDS", 0.01)
        with hostile_store(lambda _: Reply(b"", status=404)) as store:
            stage = Stage(tmp_path_factory.mktemp("service"), store)
            yield stage
            stage.close()


def check(stage: Stage, source: dict[str, object], address: StoreAddress) -> None:
    """Create a job, and run its task if it was made."""
    answer = stage.create(source, stage.s3_side("target"))
    if answer.status_code == HTTPStatus.CREATED:
        report = stage.task(address)
        assert report.halt is None, report.halt
        return
    assert answer.status_code == HTTPStatus.FORBIDDEN, answer.text
    _, *causes = answer.json()["errors"]
    assert causes
    assert all(cause["message"].startswith(("source.", "target.")) for cause in causes)


# Stores that speak S3


def s3_answers(headers: dict[str, str], elements: dict[str, str]) -> Callable[[Asked], Reply]:
    told = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in elements.items())
    kept = {name: value for name, value in headers.items() if value}

    def answers(asked: Asked) -> Reply:
        if asked.method == "POST":
            return Reply(b"<R><UploadId>u</UploadId></R>", kept)
        if asked.method == "DELETE":
            return Reply(b"", kept, 204)
        if asked.method == "GET" and asked.path.count("/") == 1:
            return Reply(_listing(asked, told).encode(), kept)
        return Reply(b"x" if asked.method == "GET" else b"", {"ETag": '"e"', **kept})

    return answers


def _listing(asked: Asked, told: str) -> str:
    if "versioning" in asked.query:
        return "<VersioningConfiguration/>"
    if "uploads" in asked.query:
        row = f"<Upload><Key>k</Key><UploadId>u</UploadId>{told}</Upload>"
        done = "<IsTruncated>false</IsTruncated>"
        return f"<ListMultipartUploadsResult>{done}{row}</ListMultipartUploadsResult>"
    is_first = not {"start-after", "marker"} & asked.query.keys()
    is_source = asked.path == "/photos" and is_first
    row = f"<Contents><Key>a</Key><Size>1</Size>{told}</Contents>" if is_source else ""
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{row}</ListBucketResult>"


FEW = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # each example is a whole check of both sides


@pytest.mark.slow
@FEW
@given(
    headers=st.dictionaries(st.sampled_from(HEADERS), TEXTS, min_size=1),
    elements=st.dictionaries(st.sampled_from(ELEMENTS), TEXTS),
)
@example(headers=dict.fromkeys(HEADERS, HUGE), elements=dict.fromkeys(ELEMENTS, HUGE))
@example(
    headers=dict.fromkeys(HEADERS, "Fri, 31 Dec 9998 23:59:59 GMT"),
    elements=dict.fromkeys(ELEMENTS, "0001-01-01T00:00:00+14:00"),
)
@example(headers=dict.fromkeys(HEADERS, "-1"), elements=dict.fromkeys(ELEMENTS, str(2**64)))
def test_values_of_a_store_that_speaks_s3(
    stage: Stage, headers: dict[str, str], elements: dict[str, str]
) -> None:
    stage.store.answers = s3_answers(headers, elements)
    check(stage, stage.s3_side("photos"), stage.s3_address("photos"))


@pytest.mark.parametrize("value", VALUES)
def test_a_store_that_says_how_long_to_wait(stage: Stage, value: str) -> None:
    headers = {"Retry-After": value, "Date": value}
    stage.store.answers = lambda _: Reply(b"", headers, 503)
    check(stage, stage.s3_side("photos"), stage.s3_address("photos"))


@pytest.mark.parametrize(
    "document",
    [
        f"<Error><Code>&#{HUGE};</Code><Message>&#{HUGE};</Message></Error>",
        f"<Error><Code>AccessDenied</Code><Region>{HUGE}</Region></Error>",
        f"<html><title>&#{HUGE};</title></html>",
        f"<html>&#{HUGE};</html>",
        f'{{"error": {{"code": {HUGE}, "errors": [{{"reason": "{HUGE}"}}]}}}}',
        "[" * 10_000,
    ],
    ids=["number of a character", "region", "title", "page", "JSON", "nested"],
)
@pytest.mark.parametrize("status", [200, 301, 400, 403, 404, 500])
def test_errors_with_numbers_that_nobody_can_read(stage: Stage, document: str, status: int) -> None:
    stage.store.answers = lambda _: Reply(document.encode(), {"Date": HUGE}, status)
    check(stage, stage.s3_side("photos"), stage.s3_address("photos"))


# Google

JSON_VALUES = (
    TEXTS
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.none()
    | st.booleans()
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.sampled_from(["a", "\ud800"]), TEXTS, max_size=1)
    | st.sampled_from(["\ud800", "ü" * 100, 10**400, -(10**400)])
)
MEMBERS = (
    "size", "generation", "metageneration", "timeCreated", "storageClass", "crc32c", "md5Hash",
    "metadata", "customTime", "contentType", "contentEncoding", "name",
)  # fmt: skip


def google_answers(
    token: dict[str, object], resource: dict[str, object], page: dict[str, object]
) -> Callable[[Asked], Reply]:
    described = {"name": "a", "size": "1", "generation": "1", "metageneration": "1", **resource}
    own = s3_answers({}, {})

    def answers(asked: Asked) -> Reply:
        if asked.path == "/token":
            body = {"access_token": "t", "expires_in": 3600, **token}
            return Reply(json.dumps(body).encode())
        if not asked.path.startswith("/storage/"):
            return own(asked)
        if asked.path.endswith("/o"):
            is_second = (
                "pageToken" in asked.query
            )  # a token that leads to itself ends a job, rightly
            items = [] if is_second or "startOffset" in asked.query else [described]
            return Reply(json.dumps({"items": items, **({} if is_second else page)}).encode())
        if asked.query.get("alt") == "media":
            return Reply(b"x", {"x-goog-generation": "1", "x-goog-metageneration": "1"})
        return Reply(json.dumps(described).encode())

    return answers


@pytest.mark.slow
@FEW
@given(
    token=st.dictionaries(st.sampled_from(["expires_in", "access_token"]), JSON_VALUES),
    resource=st.dictionaries(st.sampled_from(MEMBERS), JSON_VALUES),
    page=st.just({}) | st.dictionaries(st.sampled_from(["items", "nextPageToken"]), JSON_VALUES),
)
@example(token={"expires_in": 10**400}, resource={}, page={})
@example(token={"expires_in": "9" * 400}, resource={}, page={})
@example(token={"expires_in": float("nan")}, resource={}, page={})
@example(token={}, resource={"size": 10**400, "generation": 10**400}, page={})
@example(token={}, resource={"timeCreated": "0001-01-01T00:00:00+14:00"}, page={})
@example(token={}, resource={"metadata": ["a"], "customTime": 1, "crc32c": 1}, page={})
@example(token={}, resource={"name": "\ud800"}, page={})
@example(token={}, resource={}, page={"nextPageToken": "0"})
def test_values_of_google(
    stage: Stage, token: dict[str, object], resource: dict[str, object], page: dict[str, object]
) -> None:
    stage.store.answers = google_answers(token, resource, page)
    secret = {"clientEmail": tokens.EMAIL, "privateKey": tokens.pem("right")}
    address = StoreAddress(
        origin=stage.store.url,
        bucket="photos",
        region="auto",
        dialect=GCS,
        credentials=tokens.ACCOUNT,
        token_uri=f"{stage.store.url}/token",
        trusted=True,
    )
    check(stage, {"vendor": "gcs", "bucket": "photos", "secret": secret}, address)
