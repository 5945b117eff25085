"""`slurper copy`: one job, from its arguments to its summary."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from slurper import errors
from slurper.cli import configuration, console, job_options, options, sides
from slurper.cli.sides import BucketAccess, GivenSides, Sides
from slurper.job.model import JobOptions, JobSpec
from slurper.secrets import JobSecrets

if TYPE_CHECKING:
    from slurper.cli.copy_result import CopyResult
    from slurper.engine.template import Template
    from slurper.settings import Settings

DEFAULTS = {**options.LOCAL_DEFAULTS, "task_seconds": 2.0}
"""Tasks are shorter than those of a server, because progress is counted when a task reports."""

EXIT_INCOMPLETE = 1
_SIGNALLED = 128

app = typer.Typer(add_completion=False)

_ON_OR_OFF = "On or off"
"""The help's panel for pairs of options. In the other panel, their names would be cut short."""

Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite/--no-overwrite",
        help="Replace objects that exist",
        rich_help_panel=_ON_OR_OFF,
    ),
]
KeysFrom = Annotated[
    Path | None,
    typer.Option(
        "--keys-from", help="Copy exactly the keys in this file, one a line; - is standard input"
    ),
]
FailedTo = Annotated[
    Path | None,
    typer.Option("--failed-to", help="Write the keys that failed to this file, for --keys-from"),
]
ServerSideCopy = Annotated[
    bool | None,
    typer.Option(
        "--server-side-copy/--no-server-side-copy",
        help="Let a store that holds both buckets copy by itself",
        rich_help_panel=_ON_OR_OFF,
        show_default="on",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", envvar="SLURPER_WORKERS", metavar="N", min=1, help="Worker processes"
    ),
]


@app.command()
@sides.given
@job_options.given
def copy(
    *,
    overwrite: Overwrite = True,
    keys_from: KeysFrom = None,
    failed_to: FailedTo = None,
    job_options: JobOptions,
    server_side_copy: ServerSideCopy = None,
    sides: GivenSides,
    allow_http: options.AllowHttp = None,
    allow_private: options.AllowPrivate = None,
    ca_file: options.CaFile = None,
    workers: Workers = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
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
    both = sides.resolve(settings)
    spec = JobSpec(
        source=both.source.location,
        target=both.target.location,
        prefix=both.source.prefix,
        keys=None if keys_from is None else _read_keys(keys_from),
        overwrite=overwrite,
        options=job_options,
    )
    with _writable(failed_to) as failed_keys:
        result = _run(
            spec, both, settings, template=template, failed_keys=failed_keys, verbose=verbose
        )
    if unwritten := result.left.unwritten_keys:
        text = f"{unwritten:,} failed keys hold a line break and are not in {failed_to}"
        console.err().print(text, soft_wrap=True)
    _report(result, spec.prefix, as_json=as_json)


def _report(result: CopyResult, prefix: str, *, as_json: bool) -> None:
    """Print how the copy ended, and exit with the code for it."""
    from slurper.cli import summary

    if as_json:
        console.print_json(summary.as_json(result))
    else:
        summary.print_text(result, prefix)
    if result.stopped_by is not None:
        console.err().print("stopped; run the same command again to go on", soft_wrap=True)
        raise typer.Exit(_SIGNALLED + result.stopped_by)
    if result.status != "completed" or result.counts.failed:
        raise typer.Exit(EXIT_INCOMPLETE)


def _template() -> Template | None:
    """Fork the process that workers are forked from, before any secret is read."""
    gc.disable()  # until everything is imported, because imports leave no garbage
    from slurper.engine.template import Template

    return Template.forked()


def _read_keys(path: Path) -> tuple[str, ...]:
    """Read keys byte for byte. A line ends with LF, and empty lines are ignored."""
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
    """Open the file before anything is copied, so that a wrong path is found at once."""
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
    spec: JobSpec,
    sides: Sides,
    settings: Settings,
    *,
    template: Template | None,
    failed_keys: BinaryIO | None,
    verbose: bool,
) -> CopyResult:
    from slurper import telemetry
    from slurper.cli import copying
    from slurper.cli.progress import Display

    gc.freeze()
    gc.enable()
    telemetry.configure_logging("info" if verbose else "error")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    source, target = sides.source, sides.target
    display = Display(sys.stderr, f"{_place(source)} -> {_place(target)}")
    request = copying.CopyRequest(
        account_id=sides.account_id,
        spec=spec,
        secrets=JobSecrets(source=source.credentials, target=target.credentials),
    )
    with display.shown():
        copy = copying.run(request, settings, display, template=template, failed_keys=failed_keys)
        return asyncio.run(copy)


def _place(side: BucketAccess) -> str:
    location = side.location
    return f"{location.vendor}://{location.bucket}/{console.shown(side.prefix)}"
