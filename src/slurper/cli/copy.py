"""`slurper copy`: one job, from its arguments to its summary."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from slurper import errors
from slurper.cli import configuration, console, limits, options, sides
from slurper.cli.sides import Side, SideOptions
from slurper.job import rules
from slurper.job.model import JobOptions, JobSpec
from slurper.secrets import JobSecrets

if TYPE_CHECKING:
    from slurper.cli.copying import Outcome
    from slurper.engine.template import Template
    from slurper.settings import Settings

DEFAULTS = {**options.LOCAL_DEFAULTS, "task_seconds": 2.0}
"""Tasks are shorter than a server's, because progress is counted when a task reports."""

EXIT_INCOMPLETE = 1
_SIGNALLED = 128

app = typer.Typer(add_completion=False)


@app.command()
def copy(
    source: options.SourceUrl,
    target: options.TargetUrl,
    *,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite/--no-overwrite",
            help="Replace objects that exist",
            rich_help_panel=options.ON_OR_OFF,
        ),
    ] = True,
    keys_from: Annotated[
        Path | None,
        typer.Option(
            "--keys-from",
            help="Copy exactly the keys in this file, one a line; - is standard input",
        ),
    ] = None,
    failed_to: Annotated[
        Path | None,
        typer.Option(
            "--failed-to", help="Write the keys that failed to this file, for --keys-from"
        ),
    ] = None,
    strip_prefix: Annotated[
        bool, typer.Option("--strip-prefix", help="Remove the source's prefix from the new keys")
    ] = False,
    skip_empty: Annotated[
        bool, typer.Option("--skip-empty", help="Leave out objects without a byte")
    ] = False,
    include_type: Annotated[
        list[str] | None,
        typer.Option(
            "--include-type", metavar="TYPE", help="Only this content type, as image/png or image/*"
        ),
    ] = None,
    exclude_type: Annotated[
        list[str] | None,
        typer.Option("--exclude-type", metavar="TYPE", help="Never this content type"),
    ] = None,
    validate_media: Annotated[
        bool, typer.Option("--validate-media", help="Leave out media whose bytes belie their type")
    ] = False,
    max_object_bytes: Annotated[
        int | None,
        typer.Option("--max-object-bytes", metavar="BYTES", min=1, help="Leave out larger objects"),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require",
            metavar="HEADER",
            help="Fail objects that would lose this at the target: a content header, metadata, or "
            "headers for all",
        ),
    ] = None,
    bandwidth_limit: limits.BandwidthLimit = None,
    request_rate_limit: limits.RequestRateLimit = None,
    server_side_copy: Annotated[
        bool | None,
        typer.Option(
            "--server-side-copy/--no-server-side-copy",
            help="Let a store that holds both buckets copy by itself",
            rich_help_panel=options.ON_OR_OFF,
            show_default="on",
        ),
    ] = None,
    source_endpoint: options.SourceEndpoint = None,
    source_region: options.SourceRegion = None,
    source_jurisdiction: options.SourceJurisdiction = None,
    source_profile: options.SourceProfile = None,
    source_access_key_id: options.SourceKeyId = None,
    source_secret_access_key: options.SourceSecret = None,
    source_session_token: options.SourceToken = None,
    source_credentials_file: options.SourceFile = None,
    target_endpoint: options.TargetEndpoint = None,
    target_region: options.TargetRegion = None,
    target_jurisdiction: options.TargetJurisdiction = None,
    target_profile: options.TargetProfile = None,
    target_access_key_id: options.TargetKeyId = None,
    target_secret_access_key: options.TargetSecret = None,
    target_session_token: options.TargetToken = None,
    target_credentials_file: options.TargetFile = None,
    account_id: options.AccountId = None,
    allow_http: options.AllowHttp = None,
    allow_private: options.AllowPrivate = None,
    ca_file: options.CaFile = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", envvar="SLURPER_WORKERS", metavar="N", min=1, help="Worker processes"
        ),
    ] = None,
    data_dir: options.DataDir = None,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Copy a bucket, or what lies under a prefix; run it again to go on where it stopped.

    Exit code 0: everything was copied, or skipped for a reason. 1: something failed, or the copy
    could not go on. 2: it could not begin. 130: stopped by Ctrl-C.
    """
    template = _template()
    settings = configuration.load(
        DEFAULTS,
        allow_http=allow_http,
        allow_private_endpoints=allow_private,
        ca_file=ca_file,
        workers=workers,
        data_dir=data_dir,
        server_side_copy=server_side_copy,
    )
    source_side = sides.resolve(
        "source",
        source,
        SideOptions(
            endpoint=source_endpoint,
            region=source_region,
            jurisdiction=source_jurisdiction,
            profile=source_profile,
            access_key_id=source_access_key_id,
            secret_access_key=source_secret_access_key,
            session_token=source_session_token,
            credentials_file=source_credentials_file,
        ),
    )
    target_side = sides.resolve(
        "target",
        target,
        SideOptions(
            endpoint=target_endpoint,
            region=target_region,
            jurisdiction=target_jurisdiction,
            profile=target_profile,
            access_key_id=target_access_key_id,
            secret_access_key=target_secret_access_key,
            session_token=target_session_token,
            credentials_file=target_credentials_file,
        ),
    )
    sides.check_target_url(target_side)
    spec = JobSpec(
        source=source_side.location,
        target=target_side.location,
        prefix=source_side.prefix,
        keys=None if keys_from is None else _read_keys(keys_from),
        overwrite=overwrite,
        options=JobOptions(
            skip_empty=skip_empty,
            include_content_types=_content_types("--include-type", include_type),
            exclude_content_types=_content_types("--exclude-type", exclude_type),
            validate_media=validate_media,
            strip_prefix=strip_prefix,
            max_object_bytes=max_object_bytes,
            require=_required(require),
            **limits.changes(bandwidth_limit, request_rate_limit),
        ),
    )
    account = sides.account(source_side, target_side, account_id, settings)
    with _writable(failed_to) as failed_keys:
        outcome = _run(
            account,
            spec,
            source_side,
            target_side,
            settings,
            template=template,
            failed_keys=failed_keys,
            verbose=verbose,
        )
    if unwritten := outcome.left.unwritten_keys:
        text = f"{unwritten:,} failed keys hold a line break and are not in {failed_to}"
        console.err().print(text, soft_wrap=True)
    _report(outcome, source_side.prefix, as_json=as_json)


def _template() -> Template | None:
    """Fork what workers are forked from, while nothing has begun and no secret has been read."""
    gc.disable()  # until all is imported: nothing of that is garbage
    from slurper.engine.template import Template

    return Template.forked()


def _content_types(option: str, given: list[str] | None) -> tuple[str, ...]:
    return tuple(_checked(rules.content_type, option, each) for each in given or ())


def _required(given: list[str] | None) -> tuple[str, ...]:
    return tuple(
        sorted({_checked(rules.required_header, "--require", each) for each in given or ()})
    )


def _checked(rule: Callable[[str], str], option: str, text: str) -> str:
    try:
        return rule(text)
    except errors.InvalidField as error:
        raise errors.ConfigurationError(
            f"{option} {text!r}: {error.message}; give the option once for each type"
        ) from error


def _read_keys(path: Path) -> tuple[str, ...]:
    """Read keys byte for byte; a line ends with LF, and empty lines say nothing."""
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise errors.ConfigurationError(f"--keys-from {path}: {error.strerror}") from error
    keys = {line.decode("utf-8", "surrogateescape") for line in data.split(b"\n") if line}
    if not keys:
        raise errors.ConfigurationError(f"--keys-from {path}: holds no key")
    return tuple(sorted(keys))


@contextmanager
def _writable(path: Path | None) -> Iterator[BinaryIO | None]:
    """Open the file before anything is copied, so that it cannot be missing in the end."""
    if path is None:
        yield None
        return
    try:
        file = path.open("wb")
    except OSError as error:
        raise errors.ConfigurationError(f"--failed-to {path}: {error.strerror}") from error
    with file:
        yield file


def _run(
    account: str,
    spec: JobSpec,
    source: Side,
    target: Side,
    settings: Settings,
    *,
    template: Template | None,
    failed_keys: BinaryIO | None,
    verbose: bool,
) -> Outcome:
    from slurper import telemetry
    from slurper.cli import copying
    from slurper.cli.progress import Display

    gc.freeze()
    gc.enable()
    telemetry.configure_logging("info" if verbose else "error")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    display = Display(sys.stderr, f"{_place(source)} -> {_place(target)}")
    request = copying.CopyRequest(
        account_id=account,
        spec=spec,
        secrets=JobSecrets(source=source.credentials, target=target.credentials),
    )
    with display.shown():
        copy = copying.run(request, settings, display, template=template, failed_keys=failed_keys)
        return asyncio.run(copy)


def _place(side: Side) -> str:
    location = side.location
    return f"{location.vendor}://{location.bucket}/{console.shown(side.prefix)}"


def _report(outcome: Outcome, prefix: str, *, as_json: bool) -> None:
    """Print how it ended, and exit with the code that says so."""
    if as_json:
        console.print_json(_as_json(outcome))
    else:
        _print_summary(outcome, prefix)
    if outcome.stopped_by is not None:
        console.err().print("stopped; run the same command again to go on", soft_wrap=True)
        raise typer.Exit(_SIGNALLED + outcome.stopped_by)
    if outcome.status != "completed" or outcome.counts.failed:
        raise typer.Exit(EXIT_INCOMPLETE)


def _as_json(outcome: Outcome) -> dict[str, object]:
    counts = outcome.counts
    return {
        "job": outcome.job_id,
        "status": outcome.status,
        "resumed": outcome.resumed,
        "objects": counts.objects,
        "transferred": counts.transferred,
        "skipped": counts.skipped,
        "skipped_by": outcome.left.skipped,
        "failed": counts.failed,
        "bytes": counts.transferred_bytes,
        "seconds": round(outcome.seconds, 3),
        "halt": outcome.halt,
        "capabilities": asdict(outcome.capabilities),
        "failures": [
            {"key": entry.object_key, "message": entry.message} for entry in outcome.left.failures
        ],
    }


def _print_summary(outcome: Outcome, prefix: str) -> None:
    from rich import filesize

    from slurper.cli.outcome import SKIPPED

    counts, now, left = outcome.counts, outcome.copied_now, outcome.left
    seconds = max(outcome.seconds, 1e-3)
    table = console.table("", ":", "")
    table.show_header = False
    table.add_row(
        "transferred", f"{counts.transferred:,}", filesize.decimal(counts.transferred_bytes)
    )
    reasons = ", ".join(f"{SKIPPED[reason]} {count:,}" for reason, count in left.skipped.items())
    table.add_row("skipped", f"{counts.skipped:,}", reasons)
    table.add_row("failed", f"{counts.failed:,}", "")
    table.add_row(
        "rate",
        f"{now.objects / seconds:,.0f} objects/s",
        f"{now.transferred_bytes / seconds / 1e6:,.1f} MB/s",
    )
    out = console.out()
    again = " (went on with an earlier run)" if outcome.resumed else ""
    out.print(f"{outcome.status} in {outcome.seconds:.1f} s{again}", soft_wrap=True)
    console.print_table(table)
    if lost := outcome.capabilities.target.unkept_headers:
        out.print(f"the target does not keep {', '.join(lost)}: no copy has them", soft_wrap=True)
    if outcome.status == "completed" and not counts.objects:
        begun = f"begins with {console.shown(prefix)}" if prefix else "is in the source"
        out.print(f"no object {begun}", soft_wrap=True)
    for entry in left.failures:
        key = console.shown(entry.object_key or "")
        out.print(f"failed: {key}: {entry.message}", soft_wrap=True)
    if counts.failed > len(left.failures):
        out.print(f"... and {counts.failed - len(left.failures):,} more")
    if outcome.halt is not None:
        console.err().print(
            f"error: the copy could not go on: {outcome.halt}\n"
            "       put that right and run the same command again; it goes on where it stopped",
            soft_wrap=True,
        )
