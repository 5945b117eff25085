"""Jobs that users of several accounts make, one after the other and at once, each compared."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from slurper.objectstore import own_keys
from tests.servers.r2.bucket import Bucket, Stored
from tests.servers.r2.server import R2Stub
from tests.soak.service import TOKEN, Service

ACCOUNTS = tuple(character * 32 for character in "abcdef")
PAIRS = 24
"""Key pairs. Each makes other credentials, and so another store in a worker."""
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 120.0


class Failed(AssertionError):
    """A job that did not end as it must, or an answer that must not come."""


@dataclass(frozen=True, slots=True)
class Stores:
    """A source and a target, each with many key pairs."""

    source: R2Stub
    target: R2Stub
    sizes: Mapping[str, int]
    """How many objects each bucket of the source has."""

    @classmethod
    def filled(cls, source: R2Stub, target: R2Stub, objects: int, chance: random.Random) -> Stores:
        """Add key pairs to both, and buckets of up to `objects` objects to the source."""
        for stub in (source, target):
            stub.pairs |= {f"key-{n}": f"secret-{n}-{chance.random()}" for n in range(PAIRS)}
        sizes = {f"source-{n}": max(1, objects * n // 8) for n in range(9)}
        for name, size in sizes.items():
            bucket = source.buckets[name] = Bucket()
            for number in range(size):
                body = chance.randbytes(chance.choice((0, 10, 700, 4096)))
                bucket.put(_key(number), {"content-type": f"text/x-{number % 7}"}, body)
        return cls(source, target, sizes)

    def objects(self, bucket: str) -> dict[str, tuple[bytes, Mapping[str, str]]]:
        """What a bucket of the source holds."""
        return {key: _seen(stored) for key, stored in self.source.buckets[bucket]._objects.items()}


def _key(number: int) -> str:
    return f"{'ab' if number % 2 else 'cd'}/{number % 5}/object {number:06}"


def _seen(stored: Stored) -> tuple[bytes, Mapping[str, str]]:
    return stored.body, stored.content


@dataclass(slots=True)
class Tally:
    """What has come of the jobs of one user."""

    jobs: int = 0
    objects: int = 0
    requests: int = 0
    failures: list[str] = field(default_factory=list)


class User:
    """Makes one job after the other, and compares what each has copied."""

    def __init__(self, service: Service, stores: Stores, seed: str, *, is_killed: bool) -> None:
        self._service = service
        self._stores = stores
        self._chance = random.Random(seed)  # noqa: S311 - repeatable
        self._seed = seed
        self._is_killed = is_killed
        self.tally = Tally()

    def job(self, number: int) -> None:
        """Make a job, wait for its end, compare, and delete it or not. Note what fails."""
        try:
            with httpx.Client(
                timeout=PATIENCE_SECONDS, headers={"authorization": f"Bearer {TOKEN}"}
            ) as client:
                self._job(client, f"target-{self._seed}-{number}")
        except Exception as error:
            self.tally.failures.append(f"job {number} of {self._seed}: {error!r}")

    def _job(self, client: httpx.Client, target: str) -> None:
        account = self._chance.choice(ACCOUNTS)
        source = self._chance.choice(list(self._stores.sizes))
        self._stores.target.buckets[target] = Bucket()
        body: dict[str, Any] = {
            "source": self._side(self._stores.source, source),
            "target": self._side(self._stores.target, target),
            "overwrite": self._chance.random() < 0.7,
        }
        expected = self._stores.objects(source)
        narrowed = self._chance.random()
        if narrowed < 0.2:
            body["source"]["pathPrefix"] = "ab/"
            expected = {key: one for key, one in expected.items() if key.startswith("ab/")}
        elif narrowed < 0.3:
            keys = self._chance.sample(sorted(expected), (len(expected) + 1) // 2)
            body["source"]["keys"] = keys
            expected = {key: expected[key] for key in keys}
        if not expected:
            return
        jobs = f"{self._service.url}/accounts/{account}/slurper/jobs"
        key = {"idempotency-key": str(uuid.uuid4())}
        job_id = self._ask(client, "POST", jobs, 201, json=body, headers=key)["id"]
        progress = self._end_of(client, f"{jobs}/{job_id}")
        self._compare(progress, expected, self._stores.target.buckets.pop(target))
        self.tally.jobs += 1
        self.tally.objects += len(expected)
        if self._chance.random() < 0.5:
            self._ask(client, "DELETE", f"{jobs}/{job_id}", 200)

    def _side(self, stub: R2Stub, bucket: str) -> dict[str, Any]:
        key_id = f"key-{self._chance.randrange(PAIRS)}"
        pair = {"accessKeyId": key_id, "secretAccessKey": stub.pairs[key_id]}
        endpoint = stub.address.endpoint
        return {
            "vendor": "s3",
            "bucket": bucket,
            "endpoint": endpoint,
            "region": "auto",
            "secret": pair,
        }

    def _end_of(self, client: httpx.Client, job: str) -> dict[str, Any]:
        give_up = time.monotonic() + PATIENCE_SECONDS
        while True:
            progress: dict[str, Any] = self._ask(client, "GET", f"{job}/progress", 200)
            if progress["status"] == "completed":
                return progress
            if progress["status"] != "running" or time.monotonic() > give_up:
                log = self._ask(client, "GET", f"{job}/logs", 200)
                raise Failed(f"the job is {progress}; its log: {log}")
            time.sleep(POLL_SECONDS)

    def _ask(self, client: httpx.Client, method: str, url: str, status: int, **more: Any) -> Any:  # noqa: ANN401 - as JSON is
        """Ask the service. While it is killed and started again, ask again."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while True:
            self.tally.requests += 1
            try:
                answer = client.request(method, url, **more)
            except httpx.TransportError:
                if not self._is_killed or time.monotonic() > give_up:
                    raise
                time.sleep(POLL_SECONDS)
                continue
            if answer.status_code != status:
                raise Failed(f"{method} {url}: {answer.status_code} {answer.text[:2000]}")
            return answer.json()["result"]

    def _compare(
        self,
        progress: Mapping[str, Any],
        expected: Mapping[str, tuple[bytes, Mapping[str, str]]],
        target: Bucket,
    ) -> None:
        counts = {
            "objects": len(expected),
            "transferredObjects": len(expected),
            "skippedObjects": 0,
            "failedObjects": 0,
            "transferredBytes": sum(len(body) for body, _ in expected.values()),
        }
        told = {name: progress[name] for name in counts}
        if told != counts:
            raise Failed(f"{told} was told in place of {counts}")
        # A service that was killed in the middle of a check leaves what that has written.
        copied = {
            key: _seen(stored)
            for key, stored in target._objects.items()
            if not (self._is_killed and own_keys.is_own(key))
        }
        if copied != expected:
            wrong = [key for key in {*copied, *expected} if copied.get(key) != expected.get(key)]
            raise Failed(f"{len(wrong)} objects differ, such as {wrong[:3]}")


def added(tallies: Sequence[Tally]) -> Tally:
    """What has come of all jobs."""
    return Tally(
        jobs=sum(one.jobs for one in tallies),
        objects=sum(one.objects for one in tallies),
        requests=sum(one.requests for one in tallies),
        failures=[failure for one in tallies for failure in one.failures],
    )
