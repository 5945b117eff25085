"""Options of `slurper copy` that become options of the job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from slurper import errors
from slurper.cli import options, rates
from slurper.job import rules
from slurper.job.model import JobOptions, LimitChanges


@rates.given
def job_options(
    *,
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
        bool,
        typer.Option(
            "--validate-media", help="Leave out media whose first bytes contradict their type"
        ),
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
    limits: LimitChanges,
) -> JobOptions:
    """Return the options of the job.

    Raises:
        ConfigurationError: a content type, a header or a limit cannot be used.
    """
    return JobOptions(
        skip_empty=skip_empty,
        include_content_types=_checked("--include-type", include_type, rules.content_type),
        exclude_content_types=_checked("--exclude-type", exclude_type, rules.content_type),
        validate_media=validate_media,
        strip_prefix=strip_prefix,
        max_object_bytes=max_object_bytes,
        require=tuple(sorted(set(_checked("--require", require, rules.required_header)))),
        **limits,
    )


given = options.as_value("job_options", job_options)
"""Gives a command the parameter `job_options`."""


def _checked(option: str, values: list[str] | None, rule: Callable[[str], str]) -> tuple[str, ...]:
    checked = []
    for value in values or ():
        try:
            checked.append(rule(value))
        except errors.InvalidField as error:
            raise errors.ConfigurationError(
                f"{option} {value!r}: {error.message}; give the option once for each type"
            ) from error
    return tuple(checked)
