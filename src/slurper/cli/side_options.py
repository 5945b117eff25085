"""The options of one side of a copy, source or target."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from slurper.cli.options import keyword
from slurper.job.model import Jurisdiction


@dataclass(frozen=True, slots=True, kw_only=True)
class SideOptions:
    """The options of one side, with their help texts. None and "" mean that one is not given."""

    endpoint: Annotated[str | None, "Address of an S3-compatible store, https://HOST:PORT"] = None
    region: Annotated[str | None, "Region that requests are signed for"] = None
    jurisdiction: Annotated[
        Jurisdiction | None, f"Jurisdiction of an R2 bucket: {', '.join(Jurisdiction)}"
    ] = None
    profile: Annotated[str | None, "AWS profile that holds credentials, region and endpoint"] = None
    access_key_id: Annotated[str | None, "Access key id"] = None
    secret_access_key: Annotated[str | None, "Secret access key"] = field(default=None, repr=False)
    session_token: Annotated[str | None, "Session token of temporary credentials"] = field(
        default=None, repr=False
    )
    credentials_file: Annotated[
        Path | None,
        "JSON key file of a service account, for gs:// (or GOOGLE_APPLICATION_CREDENTIALS)",
    ] = None


def declared(side: str) -> Iterator[inspect.Parameter]:
    """Declare an option `--<side>-<name>` for each field. `SLURPER_<SIDE>_<NAME>` sets it too."""
    for name, kind in get_type_hints(SideOptions, include_extras=True).items():
        last = name.rpartition("_")[2].upper()
        option = typer.Option(
            f"--{side}-{name}".replace("_", "-"),
            envvar=f"SLURPER_{side}_{name}".upper(),
            help=kind.__metadata__[0],
            metavar=last if len(last) < 10 else "NAME",  # a long one leaves no room for the help
            show_default=False,
            show_envvar=False,
            rich_help_panel=f"The {side} "
            f"(or SLURPER_{side.upper()}_..., or as the AWS tools find it)",
        )
        yield keyword(f"{side}_{name}", kind.__origin__, option)


def taken(side: str, options: Mapping[str, Any]) -> SideOptions:
    """Return the values of the options of `side`."""
    return SideOptions(
        **{each.name: options[f"{side}_{each.name}"] for each in fields(SideOptions)}
    )
