"""The options of one side of a copy, source or target."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, get_type_hints

import typer

from slurper.job.model import Jurisdiction


@dataclass(frozen=True, slots=True, kw_only=True)
class SideOptions:
    """What the options of one side say; None and "" mean not given."""

    endpoint: str | None = None
    region: str | None = None
    jurisdiction: Jurisdiction | None = None
    profile: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    credentials_file: Path | None = None


HELP = {
    "endpoint": "Address of an S3-compatible store, https://HOST:PORT",
    "region": "Region that requests are signed for",
    "jurisdiction": f"Jurisdiction of an R2 bucket: {', '.join(Jurisdiction)}",
    "profile": "AWS profile that holds credentials, region and endpoint",
    "access_key_id": "Access key id",
    "secret_access_key": "Secret access key",
    "session_token": "Session token of temporary credentials",
    "credentials_file": "JSON key file of a service account, for gs:// "
    "(or GOOGLE_APPLICATION_CREDENTIALS)",
}
"""For each field of `SideOptions`."""


def declared(side: str) -> Iterator[inspect.Parameter]:
    """Declare `--<side>-<name>`, which `SLURPER_<SIDE>_<NAME>` sets as well, for all names."""
    for name, kind in get_type_hints(SideOptions).items():
        last = name.rpartition("_")[2].upper()
        option = typer.Option(
            f"--{side}-{name}".replace("_", "-"),
            envvar=f"SLURPER_{side}_{name}".upper(),
            help=HELP[name],
            metavar=last if len(last) < 10 else "NAME",  # or the help has no room for the text
            show_default=False,
            show_envvar=False,
            rich_help_panel=f"The {side} "
            f"(or SLURPER_{side.upper()}_..., or as the AWS tools find it)",
        )
        yield inspect.Parameter(
            f"{side}_{name}",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[kind, option],
        )
