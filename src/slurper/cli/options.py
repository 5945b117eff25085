"""The options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from slurper.job.model import Jurisdiction

LOCAL_DEFAULTS = {"allow_http": True, "allow_private_endpoints": True}
"""Settings of the commands that reach stores for whoever runs them, not for users of a service."""

ON_OR_OFF = "On or off"
"""The panel of a command's own pairs of options; among the others the names would be cut short."""


def _of(side: str, name: str, text: str) -> Any:  # noqa: ANN401 - Typer's own return type
    """Declare `--<side>-<name>`, which `SLURPER_<SIDE>_<NAME>` sets as well."""
    kind = name.rpartition("-")[2].upper()
    return typer.Option(
        f"--{side}-{name}",
        envvar=f"SLURPER_{side}_{name}".replace("-", "_").upper(),
        help=text,
        metavar=kind if len(kind) < 10 else "NAME",  # or the help has no room for what it is
        show_default=False,
        show_envvar=False,
        rich_help_panel=f"The {side} (or SLURPER_{side.upper()}_..., or as the AWS tools find it)",
    )


_ENDPOINT = "Address of an S3-compatible store, https://HOST:PORT"
_REGION = "Region that requests are signed for"
_JURISDICTION = f"Jurisdiction of an R2 bucket: {', '.join(Jurisdiction)}"
_PROFILE = "AWS profile that holds credentials, region and endpoint"
_FILE = "JSON key file of a service account, for gs:// (or GOOGLE_APPLICATION_CREDENTIALS)"
_TOKEN = "Session token of temporary credentials"  # noqa: S105 - a help text

SourceEndpoint = Annotated[str | None, _of("source", "endpoint", _ENDPOINT)]
SourceRegion = Annotated[str | None, _of("source", "region", _REGION)]
SourceJurisdiction = Annotated[Jurisdiction | None, _of("source", "jurisdiction", _JURISDICTION)]
SourceProfile = Annotated[str | None, _of("source", "profile", _PROFILE)]
SourceKeyId = Annotated[str | None, _of("source", "access-key-id", "Access key id")]
SourceSecret = Annotated[str | None, _of("source", "secret-access-key", "Secret access key")]
SourceToken = Annotated[str | None, _of("source", "session-token", _TOKEN)]
SourceFile = Annotated[Path | None, _of("source", "credentials-file", _FILE)]

TargetEndpoint = Annotated[str | None, _of("target", "endpoint", _ENDPOINT)]
TargetRegion = Annotated[str | None, _of("target", "region", _REGION)]
TargetJurisdiction = Annotated[Jurisdiction | None, _of("target", "jurisdiction", _JURISDICTION)]
TargetProfile = Annotated[str | None, _of("target", "profile", _PROFILE)]
TargetKeyId = Annotated[str | None, _of("target", "access-key-id", "Access key id")]
TargetSecret = Annotated[str | None, _of("target", "secret-access-key", "Secret access key")]
TargetToken = Annotated[str | None, _of("target", "session-token", _TOKEN)]
TargetFile = Annotated[Path | None, _of("target", "credentials-file", _FILE)]

SourceUrl = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="s3://BUCKET/PREFIX, r2:// or gs://; the prefix may be missing"
    ),
]
TargetUrl = Annotated[
    str, typer.Argument(metavar="TARGET", help="r2://BUCKET, s3://BUCKET or gs://BUCKET")
]

AccountId = Annotated[
    str | None,
    typer.Option(
        "--account-id", envvar="CLOUDFLARE_ACCOUNT_ID", help="Cloudflare account of r2:// sides"
    ),
]


def _allow(name: str, variable: str, text: str) -> Any:  # noqa: ANN401 - Typer's own return type
    return typer.Option(
        f"--allow-{name}/--no-allow-{name}",
        envvar=variable,
        help=text,
        metavar="",
        show_default="on",
        rich_help_panel="Addresses that may be used",
    )


_HTTP = "Endpoints with http://"
_PRIVATE = "Endpoints on loopback and private addresses"

AllowHttp = Annotated[bool | None, _allow("http", "SLURPER_ALLOW_HTTP", _HTTP)]
AllowPrivate = Annotated[
    bool | None, _allow("private", "SLURPER_ALLOW_PRIVATE_ENDPOINTS", _PRIVATE)
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        envvar="SLURPER_CA_FILE",
        help="PEM certificates to trust beside the system's",
        exists=True,
        dir_okay=False,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="SLURPER_DATA_DIR",
        help="Where jobs are kept, ~/.local/share/slurper if not given",
        file_okay=False,
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, to stderr")]
