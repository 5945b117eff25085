"""`slurper jobs`: look at and command the jobs of a server."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from slurper.cli import console, limits, new_secrets
from slurper.cli.options import Json

if TYPE_CHECKING:
    from slurper.cli.client import Client
    from slurper.cli.client import Json as JsonValue

WATCH_SECONDS = 0.5
TERMINAL = ("completed", "aborted")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Look at and command the jobs of a server.",
)

Server = Annotated[
    str,
    typer.Option("--server", envvar="SLURPER_SERVER", help="Address of `slurper serve`"),
]
Account = Annotated[
    str | None,
    typer.Option("--account", envvar="CLOUDFLARE_ACCOUNT_ID", help="Account of the jobs"),
]
Token = Annotated[
    str | None, typer.Option("--token", envvar="SLURPER_API_TOKEN", help="Token of the API")
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job")]
DEFAULT_SERVER = "http://127.0.0.1:8080"


@app.command("list")
def list_jobs(
    *,
    limit: Annotated[int, typer.Option(min=1, help="At most this many")] = 50,
    server: Server = DEFAULT_SERVER,
    account: Account = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    with _connected(server, account, token) as client:
        jobs = list(client.pages("jobs", limit=limit))
    if as_json:
        console.print_json(jobs)
        return
    table = console.table("job", "status", "created", "source", "target")
    for job in jobs:
        status = console.status_text(job["status"])
        source, target = _place(job["source"]), _place(job["target"])
        table.add_row(job["id"], status, job["createdAt"], source, target)
    if jobs:
        console.print_table(table)
    else:
        console.out().print("no jobs")


@app.command()
def show(
    job_id: JobId,
    *,
    server: Server = DEFAULT_SERVER,
    account: Account = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Show one job and its counters."""
    from slurper.cli.client import job_path

    with _connected(server, account, token) as client:
        job = client.get(job_path(job_id))
        progress = client.get(job_path(job_id, "progress"))
    if as_json:
        console.print_json(job | {"progress": progress})
        return
    table = console.table("", "")
    table.show_header = False
    for name, value in _description(job, progress):
        table.add_row(name, value)
    console.print_table(table)


@app.command()
def logs(
    job_id: JobId,
    *,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many")] = None,
    offset: Annotated[int, typer.Option(min=0, help="Leave out this many, the oldest")] = 0,
    server: Server = DEFAULT_SERVER,
    account: Account = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Print a job's log, oldest first: its life, and every object that was not copied."""
    from slurper.cli.client import job_path

    with _connected(server, account, token) as client:
        entries = client.pages(job_path(job_id, "logs"), limit=limit, offset=offset)
        if as_json:
            console.print_json(list(entries))
            return
        for entry in entries:
            key, message = entry.get("objectKey"), entry.get("message")
            parts = [entry["createdAt"], entry["logType"]]
            parts += [console.shown(key)] if key is not None else []
            parts += [message] if message else []
            console.out().print("  ".join(parts), soft_wrap=True)


@app.command()
def pause(
    job_id: JobId, *, server: Server = DEFAULT_SERVER, account: Account = None, token: Token = None
) -> None:
    """Pause a running job: transfers under way finish, no new ones start."""
    _command(job_id, "pause", server, account, token)


@app.command()
def resume(
    job_id: JobId,
    *,
    source_access_key_id: new_secrets.SourceKeyId = None,
    source_secret_access_key: new_secrets.SourceSecret = None,
    source_credentials_file: new_secrets.SourceFile = None,
    target_access_key_id: new_secrets.TargetKeyId = None,
    target_secret_access_key: new_secrets.TargetSecret = None,
    target_credentials_file: new_secrets.TargetFile = None,
    server: Server = DEFAULT_SERVER,
    account: Account = None,
    token: Token = None,
) -> None:
    """Resume a paused job where it stopped, with new credentials if some are given."""
    body = new_secrets.body(
        source_access_key_id=source_access_key_id,
        source_secret_access_key=source_secret_access_key,
        source_credentials_file=source_credentials_file,
        target_access_key_id=target_access_key_id,
        target_secret_access_key=target_secret_access_key,
        target_credentials_file=target_credentials_file,
    )
    console.out().print(_put(job_id, "resume", body, server, account, token))


@app.command("set")
def set_limits(
    job_id: JobId,
    *,
    bandwidth_limit: limits.BandwidthLimit = None,
    request_rate_limit: limits.RequestRateLimit = None,
    server: Server = DEFAULT_SERVER,
    account: Account = None,
    token: Token = None,
) -> None:
    """Change the limits of a job that has not ended; `none` lifts one."""
    from slurper.cli.client import job_path

    changes = limits.changes(bandwidth_limit, request_rate_limit)
    if not changes:
        raise typer.BadParameter("give --bandwidth-limit, --request-rate-limit or both")
    members = {"bandwidth_limit": "bandwidthLimit", "request_rate_limit": "requestRateLimit"}
    body = {"options": {members[name]: value for name, value in changes.items()}}
    with _connected(server, account, token) as client:
        job = client.patch(job_path(job_id), body)
    said = [f"{name} {value}" for name, value in _limits(job["options"])]
    console.out().print(", ".join(said) or "no limits", soft_wrap=True)


@app.command("retry-failed")
def retry_failed(
    job_id: JobId,
    *,
    source_access_key_id: new_secrets.SourceKeyId = None,
    source_secret_access_key: new_secrets.SourceSecret = None,
    source_credentials_file: new_secrets.SourceFile = None,
    target_access_key_id: new_secrets.TargetKeyId = None,
    target_secret_access_key: new_secrets.TargetSecret = None,
    target_credentials_file: new_secrets.TargetFile = None,
    server: Server = DEFAULT_SERVER,
    account: Account = None,
    token: Token = None,
) -> None:
    """Start a job of exactly the objects that failed in one that has ended; print its id.

    Credentials must be given when those of the job have been erased, a day after its end by
    default.
    """
    body = new_secrets.body(
        source_access_key_id=source_access_key_id,
        source_secret_access_key=source_secret_access_key,
        source_credentials_file=source_credentials_file,
        target_access_key_id=target_access_key_id,
        target_secret_access_key=target_secret_access_key,
        target_credentials_file=target_credentials_file,
    )
    made = _put(job_id, "retryFailed", body, server, account, token)
    console.out().print(made["id"], soft_wrap=True)


@app.command()
def abort(
    job_id: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Id of the job")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every active job of the account")] = False,
    server: Server = DEFAULT_SERVER,
    account: Account = None,
    token: Token = None,
) -> None:
    """End a job for good; it cannot be resumed. Transfers under way finish."""
    if every == (job_id is not None):
        raise typer.BadParameter("name one job, or give --all")
    if job_id is not None:
        _command(job_id, "abort", server, account, token)
        return
    with _connected(server, account, token) as client:
        console.out().print(client.put("jobs/abortAll"))


@app.command()
def delete(
    job_id: JobId, *, server: Server = DEFAULT_SERVER, account: Account = None, token: Token = None
) -> None:
    """Forget a job that has ended, its counters and its log."""
    from slurper.cli.client import job_path

    with _connected(server, account, token) as client:
        console.out().print(client.delete(job_path(job_id)))


@app.command()
def watch(
    job_id: JobId,
    *,
    server: Server = DEFAULT_SERVER,
    account: Account = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Follow a job to its end. Exit code 0: completed and nothing failed; 1: anything else."""
    with _connected(server, account, token) as client:
        progress = _follow(client, job_id)
    if as_json:
        console.print_json(progress)
    else:
        console.out().print(_counters(progress), soft_wrap=True)
    if progress["status"] != "completed" or progress["failedObjects"]:
        raise typer.Exit(1)


def _follow(client: Client, job_id: str) -> JsonValue:
    from slurper.cli.client import job_path
    from slurper.cli.progress import Display, Snapshot

    display = Display(sys.stderr, f"job {job_id[:8]}")
    with display.shown():
        while True:
            progress = client.get(job_path(job_id, "progress"))
            shares = progress.get("throttledShare") or {}
            display.update(
                Snapshot(
                    objects=progress["objects"],
                    skipped=progress["skippedObjects"],
                    failed=progress["failedObjects"],
                    transferred_bytes=progress.get("transferredBytes"),
                    total=progress.get("totalObjects"),
                    total_is_final=progress.get("totalObjects") is not None,
                    throttled_by_source=shares.get("source", 0.0),
                    throttled_by_target=shares.get("target", 0.0),
                    waiting_for=progress.get("waitingFor") or (),
                )
            )
            if progress["status"] in TERMINAL:
                return progress
            time.sleep(WATCH_SECONDS)


def _command(job_id: str, verb: str, server: str, account: str | None, token: str | None) -> None:
    console.out().print(_put(job_id, verb, None, server, account, token))


def _put(
    job_id: str, verb: str, body: JsonValue, server: str, account: str | None, token: str | None
) -> JsonValue:
    from slurper.cli.client import job_path

    with _connected(server, account, token) as client:
        return client.put(job_path(job_id, verb), body)


@contextmanager
def _connected(server: str, account: str | None, token: str | None) -> Iterator[Client]:
    from slurper.cli.client import connect

    with connect(server, account, token) as client:
        yield client


def _place(side: JsonValue) -> str:
    where = f" at {side['endpoint']}" if side.get("endpoint") else ""
    prefix = side.get("pathPrefix") or ""
    return f"{side['vendor']}://{side['bucket']}/{console.shown(prefix)}{where}"


def _description(job: JsonValue, progress: JsonValue) -> Iterator[tuple[str, str]]:
    yield "job", job["id"]
    yield "status", job["status"]
    yield "source", _place(job["source"])
    yield "target", _place(job["target"])
    keys = job["source"].get("keys")
    if job.get("retryOf"):
        yield "retries", f"what failed in job {job['retryOf']}"
    elif keys is not None:
        yield "keys", f"{len(keys):,} given"
    yield "overwrite", "yes" if job["overwrite"] else "no"
    yield "created", job["createdAt"]
    yield "finished", job.get("finishedAt") or "not yet"
    yield from _limits(job.get("options") or {})
    if (job.get("options") or {}).get("require"):
        yield "requires", ", ".join(job["options"]["require"])
    yield from _capabilities(job.get("capabilities") or {})
    yield "progress", _counters(progress)
    if progress["status"] == "running":
        yield from _pace(progress)


def _capabilities(found: JsonValue) -> Iterator[tuple[str, str]]:
    """What the server found the stores to do, where it tells that."""
    for side, known in found.items():
        said = ", ".join(_said_of(known))
        if said:
            yield f"{side} store", said


_UNUSUAL = (
    ("listVersion", 1, "knows ListObjects only"),
    ("keyOrder", "folders", "lists folder by folder"),
    ("conditionalReads", False, "refuses If-Match"),
    ("etagsAreMd5", False, "has ETags that are no MD5s"),
    ("md5Required", True, "wants Content-MD5"),
)


def _said_of(known: JsonValue) -> Iterator[str]:
    for name, value, text in _UNUSUAL:
        if known.get(name) == value:
            yield text
    ahead = known.get("clockAheadSeconds") or 0
    if abs(ahead) > 1:
        yield f"clock {abs(ahead):,} s {'ahead' if ahead > 0 else 'behind'}"
    if known.get("checksumVerified") is not None:
        verified = known["checksumVerified"] and known.get("checksum")
        yield f"verifies {verified.upper()}" if verified else "verifies no checksums"
    if known.get("conditionalWrites") is not None:
        yield "obeys If-None-Match" if known["conditionalWrites"] else "ignores If-None-Match"
    if known.get("conditionalWrites") and known.get("conditionalCompletions") is False:
        yield "ignores it when uploads are completed"
    if known.get("unkeptKeys"):
        yield f"does not keep every key ({', '.join(known['unkeptKeys'])})"
    if known.get("unkeptHeaders"):
        yield f"does not keep {', '.join(known['unkeptHeaders'])}"


def _limits(options: JsonValue) -> Iterator[tuple[str, str]]:
    from rich import filesize

    if options.get("bandwidthLimit"):
        yield "bandwidth", f"at most {filesize.decimal(options['bandwidthLimit'])}/s"
    if options.get("requestRateLimit"):
        yield "requests", f"at most {options['requestRateLimit']:,}/s"


def _pace(progress: JsonValue) -> Iterator[tuple[str, str]]:
    """How fast the job moves, where the server tells it."""
    from rich import filesize

    from slurper.cli.progress import duration, throttled

    if "objectsPerSecond" not in progress:
        return
    size = filesize.decimal(int(progress["bytesPerSecond"]))
    yield "pace", f"{progress['objectsPerSecond']:,.0f} objects/s, {size}/s"
    if progress["estimatedSecondsLeft"] is not None:
        total = f"{progress['totalObjects']:,} objects in all"
        yield "left", f"{duration(progress['estimatedSecondsLeft'])} ({total})"
    if progress["activeWorkers"] is not None:
        yield "workers", str(progress["activeWorkers"])
    shares = progress["throttledShare"].items()
    slowed = [text for side, share in shares if (text := throttled(side, share))]
    if slowed:
        yield "throttled", ", ".join(slowed)
    if progress.get("waitingFor"):
        yield "waiting for", ", ".join(progress["waitingFor"])


def _counters(progress: JsonValue) -> str:
    return (
        f"{progress['status']}: {progress['objects']:,} objects, "
        f"{progress['transferredObjects']:,} transferred, {progress['skippedObjects']:,} skipped, "
        f"{progress['failedObjects']:,} failed"
    )
