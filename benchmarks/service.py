"""Tells a running `slurper serve` what to copy, as any client of the API would."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import MeasurementFailed

TOKEN = "bench-token"  # noqa: S105 - of a service that lives for one measurement
_ACCOUNT = "0" * 32
_START_SECONDS = 30.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Order:
    """A job: buckets and endpoints of both sides, and the key pair for both."""

    source: dict[str, str]
    target: dict[str, str]
    access_key_id: str
    secret_access_key: str

    @property
    def body(self) -> dict[str, Any]:
        """The request that creates it."""
        pair = {"accessKeyId": self.access_key_id, "secretAccessKey": self.secret_access_key}
        side = {"vendor": "s3", "region": "us-east-1", "secret": pair}
        return {"source": {**side, **self.source}, "target": {**side, **self.target}}


def run_job(order: Order, log: Path) -> float:
    """Create the job at the service that writes `log`; return the seconds until it is completed.

    Raises:
        MeasurementFailed: the service did not start, refused the job, or did not copy everything.
    """
    address = _listening(log)
    jobs = f"{address}/accounts/{_ACCOUNT}/slurper/jobs"
    began = time.monotonic()
    job_id = _call("POST", jobs, order.body)["id"]
    while True:
        progress = _call("GET", f"{jobs}/{job_id}/progress")
        if progress["status"] == "completed":
            break
        if progress["status"] != "running":
            raise MeasurementFailed(f"the job is {progress['status']}")
        time.sleep(_POLL_SECONDS)
    seconds = time.monotonic() - began
    if progress["failedObjects"]:
        raise MeasurementFailed(f"{progress['failedObjects']} objects failed")
    return seconds


def _listening(log: Path) -> str:
    give_up = time.monotonic() + _START_SECONDS
    while time.monotonic() < give_up:
        found = re.search(r"slurper listens on (\S+)", log.read_text())
        if found:
            return found[1]
        time.sleep(0.01)
    raise MeasurementFailed("the service does not listen")


def _call(method: str, url: str, body: dict[str, Any] | None = None) -> Any:  # noqa: ANN401 - JSON
    request = urllib.request.Request(  # noqa: S310 - http, to ourselves
        url,
        None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
            return json.load(answer)["result"]
    except urllib.error.HTTPError as error:
        raise MeasurementFailed(f"{method} {url}: {error.read().decode()}") from error
