"""New credentials for the sides of a job that a server has: options, and the body they make.

The access key id, or the file of a service account, decides whether a side gets new credentials at
all. It is not taken from the environment, where that of some other copy may stand; the secret may
be.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slurper import errors

if TYPE_CHECKING:
    from slurper.cli.client import Json


def _variable(side: str) -> str:
    return f"SLURPER_{side.upper()}_SECRET_ACCESS_KEY"


def _panel(side: str) -> str:
    return f"New credentials for the {side}"


def _key_id(side: str) -> Any:  # noqa: ANN401 - Typer's own return type
    return typer.Option(
        f"--{side}-access-key-id",
        help="Access key id",
        metavar="ID",
        show_default=False,
        rich_help_panel=_panel(side),
    )


def _secret(side: str) -> Any:  # noqa: ANN401 - Typer's own return type
    return typer.Option(
        f"--{side}-secret-access-key",
        envvar=_variable(side),
        help="Secret access key; asked for when missing",
        metavar="KEY",
        show_default=False,
        rich_help_panel=_panel(side),
    )


def _file(side: str) -> Any:  # noqa: ANN401 - Typer's own return type
    return typer.Option(
        f"--{side}-credentials-file",
        help="JSON key file of a Google service account",
        metavar="FILE",
        show_default=False,
        rich_help_panel=_panel(side),
    )


SourceKeyId = Annotated[str | None, _key_id("source")]
SourceSecret = Annotated[str | None, _secret("source")]
SourceFile = Annotated[Path | None, _file("source")]
TargetKeyId = Annotated[str | None, _key_id("target")]
TargetSecret = Annotated[str | None, _secret("target")]
TargetFile = Annotated[Path | None, _file("target")]


def body(
    *,
    source_access_key_id: str | None,
    source_secret_access_key: str | None,
    source_credentials_file: Path | None,
    target_access_key_id: str | None,
    target_secret_access_key: str | None,
    target_credentials_file: Path | None,
) -> Json:
    """Return what to send; None when no side gets new credentials.

    Raises:
        ConfigurationError: a secret is missing, and there is nobody to ask; a file is no key file;
            a side has both.
    """
    given = {
        "source": (source_access_key_id, source_secret_access_key, source_credentials_file),
        "target": (target_access_key_id, target_secret_access_key, target_credentials_file),
    }
    made = {
        side: {"secret": _new_secret(side, key_id, secret, file)}
        for side, (key_id, secret, file) in given.items()
        if key_id or file
    }
    return made or None


def _new_secret(
    side: str, key_id: str | None, secret: str | None, file: Path | None
) -> dict[str, str]:
    if file is None:
        return {"accessKeyId": key_id or "", "secretAccessKey": secret or _ask(side)}
    if key_id:
        raise errors.ConfigurationError(
            f"--{side}-access-key-id and --{side}-credentials-file: give one of the two"
        )
    from slurper.cli import sides

    account = sides.service_account(file)
    return {"clientEmail": account.client_email, "privateKey": account.private_key}


def _ask(side: str) -> str:
    option = f"--{side}-secret-access-key"
    if not sys.stdin.isatty():
        raise errors.ConfigurationError(f"{option} is missing; {_variable(side)} sets it too")
    answer: str = typer.prompt(f"Secret access key of the {side}", hide_input=True, err=True)
    return answer
