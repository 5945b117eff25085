"""Who may do what at a running service, and what it tells of those who try more."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudflare
import httpx
import pytest
from cloudflare import Cloudflare

from slurper.api.attempts import BURST
from slurper.api.envelope import Code
from slurper.demo.servers import S3Server
from tests.chaos import proxy
from tests.chaos.faults import Fault, passed_on
from tests.chaos.wire import Exchange
from tests.e2e import program
from tests.e2e.program import ACCOUNT, Service

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

OTHER = "b" * 32
ABSENT = "0" * 64
ONE_AT_A_TIME = {"SLURPER_IN_FLIGHT_REQUESTS": "1"}
"""So a job with slow objects is under way for half a minute."""


@dataclass(frozen=True)
class Operation:
    """One operation of the service's own document."""

    method: str
    path: str
    scope: str
    id: str

    def ask(
        self, service: Service, token: str | None, *, account: str = ACCOUNT, job: str = ABSENT
    ) -> httpx.Response:
        """Ask for it, without a body: whoever may is told what is wrong with that."""
        path = self.path.replace("{account_id}", account).replace("{job_id}", job)
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return service.client.request(self.method, service.url + path, headers=headers)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens")


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    with program.serving(folder, env=ONE_AT_A_TIME) as running:
        yield running


@pytest.fixture(scope="module")
def operations(service: Service) -> list[Operation]:
    document = service.client.get(f"{service.url}/openapi.json").json()
    return [
        Operation(method, path, one["x-scope"], one["operationId"])
        for path, methods in document["paths"].items()
        for method, one in methods.items()
    ]


def create(folder: Path, name: str, *options: str) -> str:
    """Make a token as an operator does."""
    made = program.run("token", "create", name, *options, "--data-dir", str(folder))
    assert made.code == 0, made.err
    return made.out.strip()


def code(answer: httpx.Response) -> int:
    """The code of a refusal."""
    first: int = answer.json()["errors"][0]["code"]
    return first


@contextmanager
def wound(folder: Path, sql: str) -> Iterator[None]:
    """Change the database behind the service's back."""
    with closing(sqlite3.connect(folder / "slurper.db", timeout=60)) as database:
        with database:
            assert database.execute(sql).rowcount == 1
        yield


def test_every_operation_asks_for_its_scope(
    service: Service, operations: list[Operation], folder: Path
) -> None:
    reads = create(folder, "reads", "--scope", "read", "--account", ACCOUNT)
    writes = create(folder, "writes", "--scope", "write", "--account", ACCOUNT, "--account", "x")
    admin = create(folder, "admin", "--scope", "admin")
    assert len(operations) == 14
    for operation in operations:
        answer = operation.ask(service, reads)
        if operation.scope == "read":
            assert answer.status_code in (200, 404), operation
        else:
            assert (answer.status_code, code(answer)) == (403, Code.SCOPE), operation
            assert "needs write" in answer.json()["errors"][0]["message"]
        for token in (writes, admin, service.token):
            answer = operation.ask(service, token)
            assert answer.status_code in (200, 400, 404), operation
        assert operation.ask(service, writes, account="x").status_code in (200, 400, 404)


def test_the_official_sdk_is_told_which_scope_it_needs(service: Service, folder: Path) -> None:
    token = create(folder, "sdk", "--scope", "read")
    with Cloudflare(base_url=f"{service.url}/client/v4", api_token=token) as sdk:
        jobs = sdk.r2.super_slurper.jobs
        assert jobs.list(account_id=secrets.token_hex(16)).result == []
        with pytest.raises(cloudflare.PermissionDeniedError, match="needs write"):
            jobs.abort_all(account_id=ACCOUNT)


def test_nobody_else_gets_in(service: Service, operations: list[Operation], folder: Path) -> None:
    """With 429 the service only says that it has said no often enough."""
    other = create(folder, "other", "--account", OTHER)
    revoked = create(folder, "revoked")
    assert program.run("token", "revoke", "revoked", "--data-dir", str(folder)).code == 0
    expired = create(folder, "expired", "--expires", "12h")
    with wound(folder, "UPDATE tokens SET expires_at = '2020-01-01' WHERE name = 'expired'"):
        for token in (None, other, revoked, expired, f"{service.token}x", service.token[:-1]):
            for operation in operations:
                answer = operation.ask(service, token)
                limited = answer.status_code == 429
                assert limited or answer.status_code == 401, (operation, token)
                wanted = Code.AUTHENTICATION_LIMIT if limited else Code.AUTHENTICATION
                assert code(answer) == wanted


def test_an_expired_token_says_so(tmp_path: Path) -> None:
    with program.serving(tmp_path) as service:
        token = create(tmp_path, "brief", "--expires", "12h")
        named = replace(service, token=token)
        assert named.call("GET", "").status_code == 200
        with wound(tmp_path, "UPDATE tokens SET expires_at = '2020-01-01' WHERE name = 'brief'"):
            answer = named.call("GET", "")
    assert answer.status_code == 401
    assert "has expired" in answer.text


def test_a_job_of_another_account_is_no_job(
    service: Service,
    operations: list[Operation],
    folder: Path,
    ministack: S3Server,
    make_bucket: Callable[[S3Server], str],
) -> None:
    """Its id alone is of no use, whether it is asked for at one's own account or at theirs."""
    mine = replace(service, account=secrets.token_hex(16))
    job_id = mine.create_job(ministack, make_bucket(ministack), make_bucket(ministack))
    stranger = create(folder, "stranger", "--account", OTHER)
    before = mine.call("GET", f"/{job_id}").json()
    for operation in operations:
        if "{job_id}" not in operation.path:
            continue
        answer = operation.ask(service, stranger, account=OTHER, job=job_id)
        # A PATCH is told first that its body is missing.
        expected = 400 if operation.method == "patch" else 404
        assert answer.status_code == expected, operation
        theirs = operation.ask(service, stranger, account=mine.account, job=job_id)
        assert theirs.status_code in (401, 429), operation
    aborting = next(one for one in operations if one.id == "slurper-abort-all-jobs")
    assert aborting.ask(service, stranger, account=OTHER).status_code == 200
    after = mine.call("GET", f"/{job_id}").json()
    assert after["result"]["createdBy"] == before["result"]["createdBy"] == "static"
    assert after["result"]["status"] in ("running", "completed")


@pytest.fixture
def slow(
    ministack: S3Server,
    make_bucket: Callable[[S3Server], str],
    boto: Callable[[S3Server], S3Client],
) -> Iterator[tuple[proxy.FaultProxy, S3Server, str, str]]:
    """A server in front of ministack whose objects take long to read, and two buckets there."""
    source, target = make_bucket(ministack), make_bucket(ministack)
    for number in range(30):
        boto(ministack).put_object(Bucket=source, Key=f"item-{number}", Body=b"x")
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(proxy.delayed(1.0), "^GET /[^?]*item-")
        yield front, replace(ministack, endpoint=front.endpoint), source, target


SlowStore = tuple[proxy.FaultProxy, S3Server, str, str]


def test_revoking_a_token_ends_its_jobs_and_no_other(
    service: Service, folder: Path, slow: SlowStore
) -> None:
    _, store, *buckets = slow
    account = secrets.token_hex(16)
    owner = replace(service, account=account)
    thief = replace(owner, token=create(folder, "thief", "--account", account))
    stolen = thief.create_job(store, *buckets)
    own = owner.create_job(store, *buckets)
    assert thief.call("GET", f"/{stolen}").json()["result"]["createdBy"] == "thief"
    assert owner.call("GET", f"/{own}").json()["result"]["createdBy"] == "static"
    arguments = ("token", "revoke", "thief", "--abort-jobs", "--data-dir", str(folder))
    assert program.run(*arguments).out == "revoked thief, and aborted 1 job\n"
    assert thief.call("GET", f"/{stolen}").status_code in (401, 429)
    found = {job["id"]: job["status"] for job in owner.call("GET", "").json()["result"]}
    assert found[stolen] == "aborted"
    assert found[own] == "running"
    owner.call("PUT", f"/{own}/abort")


def test_no_job_is_made_with_a_token_that_was_revoked_meanwhile(
    service: Service, folder: Path, slow: SlowStore
) -> None:
    """Both sides are checked before a job is stored, which takes some time."""
    front, store, source, target = slow
    revoked = threading.Event()
    listing = rf"^GET /{source}/?\?"
    front.add(held_until(revoked), listing)
    account = secrets.token_hex(16)
    thief = replace(service, account=account, token=create(folder, "late", "--account", account))
    with ThreadPoolExecutor(1) as pool:
        creating = pool.submit(thief.call, "POST", "", create_body(store, source, target))
        program.wait_until(lambda: front.count(listing) > 0, "the check of the source")
        arguments = ("token", "revoke", "late", "--abort-jobs", "--data-dir", str(folder))
        ended = program.run(*arguments)
        revoked.set()
        answer = creating.result()
    assert ended.out == "revoked late, and aborted 0 jobs\n"
    assert answer.status_code == 401, answer.text
    assert "was revoked" in answer.text
    owner = replace(service, account=account)
    assert owner.call("GET", "").json()["result"] == []


def held_until(event: threading.Event) -> Fault:
    """The answer comes when the event has come."""

    async def fault(exchange: Exchange) -> bool:
        await asyncio.to_thread(event.wait, 60)
        return await passed_on(exchange)

    return fault


def create_body(store: S3Server, source: str, target: str) -> dict[str, Any]:
    secret = {"accessKeyId": store.access_key_id, "secretAccessKey": store.secret_access_key}
    side = {"vendor": "s3", "endpoint": store.endpoint, "region": store.region, "secret": secret}
    return {"source": {**side, "bucket": source}, "target": {**side, "bucket": target}}


def test_guessing_is_limited_and_a_right_token_works_all_the_time(tmp_path: Path) -> None:
    with program.serving(tmp_path) as service:
        fresh = create(tmp_path, "fresh")

        def guess(number: int) -> httpx.Response:
            headers = {"authorization": f"Bearer guess-{number}", "x-forwarded-for": f"::{number}"}
            return service.client.get(
                f"{service.url}/accounts/{ACCOUNT}/slurper/jobs", headers=headers
            )

        answers = [guess(number) for number in range(BURST * 5)]
        statuses = [answer.status_code for answer in answers]
        assert statuses[:BURST] == [401] * BURST
        # A failure is answered as one, and told, every 3 seconds. Here that may be a few.
        assert statuses.count(401) + statuses.count(429) == len(statuses)
        limited = answers[statuses.index(429)]
        assert 1 <= int(limited.headers["retry-after"]) <= 3
        told = statuses.count(401) + asks_once_when_limited(service)
        assert service.call("GET", "").status_code == 200
        assert replace(service, token=fresh).call("GET", "").status_code == 200
        service.process.send_signal(signal.SIGTERM)
        lines = audit(program.end(service.process))
    assert len(lines) == told
    assert {line["address"] for line in lines} == {"127.0.0.1"}, "no header changes who one is"


def asks_once_when_limited(service: Service) -> int:
    """Show that the SDK does not send again what fails again; return its other failures."""
    asked: list[httpx.Request] = []
    with (
        httpx.Client(event_hooks={"request": [asked.append]}) as client,
        Cloudflare(base_url=service.url, api_token="wrong", http_client=client) as sdk,
    ):
        while True:
            try:
                sdk.r2.super_slurper.jobs.list(account_id=ACCOUNT)
            except cloudflare.AuthenticationError:
                continue  # three seconds had passed
            except cloudflare.RateLimitError:
                break
    return len(asked) - 1


def audit(ended: program.Ended) -> list[dict[str, Any]]:
    """The lines of the audit log, without what every line has."""
    lines = [json.loads(line) for line in ended.err.splitlines() if line.startswith("{")]
    found = [line for line in lines if line["logger"] == "slurper.audit"]
    for line in found:
        del line["timestamp"], line["logger"]
    return found


def test_the_log_tells_who_did_what_from_where(
    tmp_path: Path, ministack: S3Server, make_bucket: Callable[[S3Server], str]
) -> None:
    with program.serving(tmp_path) as service:
        laptop = create(tmp_path, "laptop", "--account", ACCOUNT)
        reader = create(tmp_path, "reader", "--account", ACCOUNT, "--scope", "read")
        named = replace(service, token=laptop)
        job_id = named.create_job(ministack, make_bucket(ministack), make_bucket(ministack))
        assert named.call("GET", f"/{job_id}").status_code == 200
        assert replace(named, token=reader).call("PUT", f"/{job_id}/abort").status_code == 403
        assert replace(named, account=OTHER).call("GET", "").status_code == 401
        assert service.call("PUT", "/abortAll").status_code == 200
        service.process.send_signal(signal.SIGTERM)
        ended = program.end(service.process)
    common = {"address": "127.0.0.1", "account": ACCOUNT, "job": None}
    change = common | {"level": "info", "message": "change"}
    failed = common | {"level": "warning", "message": "authentication failed"}
    created, scope, account, aborted = audit(ended)
    made = {"operation": "slurper-create-job", "who": "laptop", "job": job_id, "status": 201}
    assert created == change | made
    assert scope.pop("reason").startswith("the token has the scope read")
    tried = {"operation": "slurper-abort-job", "who": "reader", "job": job_id, "status": 403}
    assert scope == failed | tried
    listing = {"operation": "slurper-list-jobs", "who": "laptop", "account": OTHER, "status": 401}
    assert account == failed | listing | {"reason": "the token is not valid for this account"}
    everything = {"operation": "slurper-abort-all-jobs", "who": "static", "status": 200}
    assert aborted == change | everything
    for secret in (laptop, reader, service.token, ministack.secret_access_key):
        assert secret not in ended.err


def test_many_accounts_have_a_limit_together(tmp_path: Path, slow: SlowStore) -> None:
    """A token for every account can name as many accounts as it likes."""
    _, store, source, target = slow
    with program.serving(
        tmp_path, env=ONE_AT_A_TIME | {"SLURPER_MAX_CONCURRENT_JOBS_TOTAL": "2"}
    ) as service:
        for _ in range(2):
            replace(service, account=secrets.token_hex(16)).create_job(store, source, target)
        third = replace(service, account=secrets.token_hex(16))
        answer = third.call("POST", "", create_body(store, source, target))
        assert (answer.status_code, code(answer)) == (409, Code.JOB_LIMIT)
        assert "of all accounts has been reached (2)" in answer.text
        assert answer.headers["x-should-retry"] == "false"
