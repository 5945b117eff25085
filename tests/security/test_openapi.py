"""Whatever our OpenAPI document allows, and much that it forbids: no 5xx, and answers that fit it.

Schemathesis makes the requests, and `slurper serve` answers them in a process of its own. A request
that passes leads nowhere: each store is at a port of this machine where nobody listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode, checks
from schemathesis.core.result import Ok

from slurper import data_folder
from slurper.api import routes
from slurper.database.store import JobStore
from slurper.job.lifecycle import Command
from slurper.job.model import Location, Vendor
from slurper.settings import Settings
from tests.e2e import program
from tests.e2e.program import ACCOUNT
from tests.servers.gcs.tokens import pem
from tests.unit.api import bodies
from tests.unit.database import values
from tests.unit.test_key_file import SECRETS

NOBODY = "https://127.0.0.1:1"
OPERATIONS = sorted(
    f"{method} {route.path}"
    for route in routes.router.routes
    if isinstance(route, APIRoute)
    for method in route.methods or ()
)
EXAMPLES = 25
"""Of each operation, for each of the two modes: what the document allows, and what it forbids."""
JOBS = 60
_numbers = count()
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@dataclass(frozen=True)
class Served:
    """The service, its document, and jobs that it has."""

    operations: dict[str, Any]
    """By method and path."""
    origin: str
    token: str
    job_ids: Iterator[str]


def _jobs_in(folder: Path) -> list[str]:
    config = Settings.model_validate({"data_dir": folder})

    async def make() -> list[str]:
        sealer = data_folder.prepare(config)
        store = await JobStore.open(config.resolved_database_url)
        location = Location(vendor=Vendor.S3, bucket="b", endpoint=NOBODY, region="us-east-1")
        made = []
        for number in range(JOBS):
            job = values.job(source=location, target=location)
            sealed = sealer.seal(SECRETS)
            await store.create_job(job, sealed, max_active=JOBS, entry=values.started(job))
            command = Command.PAUSE if number % 2 else Command.ABORT
            await store.apply(ACCOUNT, job.id, command)
            made.append(job.id)
        await store.close()
        return made

    return asyncio.run(make())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("openapi") / "data"
    job_ids = _jobs_in(folder)
    env = {
        "SLURPER_ALLOW_HTTP": "false",
        "SLURPER_ALLOW_PRIVATE_ENDPOINTS": "false",
        "SLURPER_MAX_CONCURRENT_JOBS": str(2 * JOBS),
        "SLURPER_R2_ENDPOINT": NOBODY,
        "SLURPER_GCS_ENDPOINT": NOBODY,
        "SLURPER_GCS_TOKEN_URI": f"{NOBODY}/token",
        "SLURPER_REQUEST_RETRIES": "0",
        "SLURPER_CONNECT_TIMEOUT_SECONDS": "1",
    }
    with program.serving(folder, env=env) as service:
        origin = service.url.partition("/client")[0]
        document = httpx.get(f"{origin}/openapi.json").json()
        schema = schemathesis.openapi.from_dict(document)
        found = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
        operations = {operation.label: operation for operation in found}
        yield Served(operations, service.url, service.token, cycle(job_ids))


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("label", OPERATIONS)
def test_answers_are_those_of_the_document(
    served: Served, label: str, mode: GenerationMode
) -> None:
    made = served.operations[label].as_strategy(generation_mode=mode)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=made)
    def play(case: Case[Any]) -> None:
        has_body = label.startswith(("POST", "PATCH")) or "precheck" in label
        if mode is GenerationMode.POSITIVE or has_body:  # else the body would hardly be reached
            case.path_parameters = {
                name: ACCOUNT if name == "account_id" else next(served.job_ids)
                for name in case.path_parameters
            }
        if mode is GenerationMode.POSITIVE:
            if label.startswith("POST") and isinstance(case.body, dict):
                case.body = {**bodies.create(), **case.body}
            _name_what_there_is(case.body)
        _lead_nowhere(case.body)
        headers = {"authorization": f"Bearer {served.token}"}
        answer = case.call(base_url=served.origin, headers=headers, timeout=60)
        case.validate_response(answer, checks=CHECKS)

    play()


def _lead_nowhere(body: object) -> None:
    """Let each side of a job be at a place where nobody is, unless it is already at none."""
    if not isinstance(body, dict):
        return
    endpoint = body.get("endpoint")
    if body.get("vendor") == "s3" and (not endpoint or str(endpoint).startswith("http")):
        body["endpoint"] = NOBODY
    for inner in body.values():
        _lead_nowhere(inner)


def _name_what_there_is(body: object) -> None:
    """The document does not say what names and keys may be."""
    if isinstance(body, dict):
        known = {
            "bucket": f"bucket-{next(_numbers)}",
            "region": "us-east-1",
            "accessKeyId": "AKIDEXAMPLE",
            "secretAccessKey": "k" * 40,
            "sessionToken": "token",
            "clientEmail": "name@project.iam.gserviceaccount.com",
            "privateKey": pem("right"),
        }
        body.update({name: value for name, value in known.items() if name in body})
        for inner in body.values():
            _name_what_there_is(inner)


def test_the_document_has_every_operation(served: Served) -> None:
    assert sorted(served.operations) == OPERATIONS
