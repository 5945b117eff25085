"""`slurper jobs`: look at and command the jobs of a server."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from slurper.cli import console, job_view, new_secrets, rates, server
from slurper.cli.console import JsonValue
from slurper.cli.options import AsJson
from slurper.cli.server import Server, job_path
from slurper.job.model import LimitChanges
from slurper.printable import printable

if TYPE_CHECKING:
    from slurper.cli.client import Client

WATCH_SECONDS = 0.5
TERMINAL = ("completed", "aborted")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Look at and command the jobs of a server.",
)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job")]


@app.command("list")
@server.given
def list_jobs(
    *,
    limit: Annotated[int, typer.Option(min=1, help="At most this many")] = 50,
    server: Server,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    with server.connected() as client:
        jobs = list(client.pages("jobs", limit=limit))
    if as_json:
        console.print_json(jobs)
        return
    table = console.table("job", "status", "created", "source", "target")
    for job in jobs:
        status = console.status_text(job["status"])
        source, target = job_view.place(job["source"]), job_view.place(job["target"])
        table.add_row(job["id"], status, job["createdAt"], source, target)
    if jobs:
        console.print_table(table)
    else:
        console.out().print("no jobs")


@app.command()
@server.given
def show(job_id: JobId, *, server: Server, as_json: AsJson = False) -> None:
    """Show one job and its counters."""
    with server.connected() as client:
        job = client.get(job_path(job_id))
        progress = client.get(job_path(job_id, "progress"))
    if as_json:
        console.print_json(job | {"progress": progress})
        return
    table = console.table("", "")
    table.show_header = False
    for name, value in job_view.description(job, progress):
        table.add_row(name, value)
    console.print_table(table)


@app.command()
@server.given
def logs(
    job_id: JobId,
    *,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many")] = None,
    offset: Annotated[int, typer.Option(min=0, help="Leave out this many, the oldest")] = 0,
    server: Server,
    as_json: AsJson = False,
) -> None:
    """Print a job's log, oldest first: its life, and every object that was not copied."""
    with server.connected() as client:
        entries = client.pages(job_path(job_id, "logs"), limit=limit, offset=offset)
        if as_json:
            console.print_json(list(entries))
            return
        for entry in entries:
            key, message = entry.get("objectKey"), entry.get("message")
            parts = [entry["createdAt"], entry["logType"]]
            parts += [console.shown(key)] if key is not None else []
            parts += [message] if message else []
            console.out().print(printable("  ".join(parts)), soft_wrap=True)


@app.command()
@server.given
def pause(job_id: JobId, *, server: Server) -> None:
    """Pause a running job: transfers under way finish, no new ones start."""
    _command(job_id, "pause", server)


@app.command()
@server.given
@new_secrets.given
def resume(job_id: JobId, *, secrets: JsonValue, server: Server) -> None:
    """Resume a paused job where it stopped, with new credentials if some are given."""
    console.out().print(_put(job_id, "resume", secrets, server))


@app.command("set")
@server.given
@rates.given
def set_limits(job_id: JobId, *, limits: LimitChanges, server: Server) -> None:
    """Change the limits of a job that has not ended; `none` lifts one."""
    if not limits:
        raise typer.BadParameter("give --bandwidth-limit, --request-rate-limit or both")
    members = {"bandwidth_limit": "bandwidthLimit", "request_rate_limit": "requestRateLimit"}
    body = {"options": {members[name]: value for name, value in limits.items()}}
    with server.connected() as client:
        job = client.patch(job_path(job_id), body)
    said = [f"{name} {value}" for name, value in job_view.limits(job["options"])]
    console.out().print(", ".join(said) or "no limits", soft_wrap=True)


@app.command("retry-failed")
@server.given
@new_secrets.given
def retry_failed(job_id: JobId, *, secrets: JsonValue, server: Server) -> None:
    """Start a job of exactly the objects that failed in one that has ended; print its id.

    Credentials must be given when those of the job have been erased, a day after its end by
    default.
    """
    made = _put(job_id, "retryFailed", secrets, server)
    console.out().print(made["id"], soft_wrap=True)


@app.command()
@server.given
def abort(
    job_id: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Id of the job")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every active job of the account")] = False,
    server: Server,
) -> None:
    """End a job for good; it cannot be resumed. Transfers under way finish."""
    if every == (job_id is not None):
        raise typer.BadParameter("name one job, or give --all")
    if job_id is not None:
        _command(job_id, "abort", server)
        return
    with server.connected() as client:
        console.out().print(client.put("jobs/abortAll"))


@app.command()
@server.given
def delete(job_id: JobId, *, server: Server) -> None:
    """Forget a job that has ended, its counters and its log."""
    with server.connected() as client:
        console.out().print(client.delete(job_path(job_id)))


@app.command()
@server.given
def watch(job_id: JobId, *, server: Server, as_json: AsJson = False) -> None:
    """Follow a job to its end. Exit code 0: completed and nothing failed; 1: anything else."""
    with server.connected() as client:
        progress = _follow(client, job_id)
    if as_json:
        console.print_json(progress)
    else:
        console.out().print(job_view.counters(progress), soft_wrap=True)
    if progress["status"] != "completed" or progress["failedObjects"]:
        raise typer.Exit(1)


def _follow(client: Client, job_id: str) -> JsonValue:
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


def _command(job_id: str, verb: str, server: Server) -> None:
    console.out().print(_put(job_id, verb, None, server))


def _put(job_id: str, verb: str, body: JsonValue, server: Server) -> JsonValue:
    with server.connected() as client:
        return client.put(job_path(job_id, verb), body)
