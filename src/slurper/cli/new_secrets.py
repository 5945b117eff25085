"""New credentials for the sides of a job that a server has: options, and the body they make.

The access key id, or the file of a service account, decides whether a side gets new credentials at
all. It is not taken from the environment, where that of some other copy may stand; the secret may
be.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from slurper import errors
from slurper.cli import options
from slurper.cli.server import JsonValue


def _variable(side: str) -> str:
    return f"SLURPER_{side.upper()}_SECRET_ACCESS_KEY"


def _option(side: str, name: str, kind: str, text: str, variable: str | None = None) -> Any:  # noqa: ANN401 - Typer's own return type
    return typer.Option(
        f"--{side}-{name}",
        envvar=variable,
        help=text,
        metavar=kind,
        show_default=False,
        rich_help_panel=f"New credentials for the {side}",
    )


def _key_id(side: str) -> Any:  # noqa: ANN401
    return _option(side, "access-key-id", "ID", "Access key id")


def _secret(side: str) -> Any:  # noqa: ANN401
    text = "Secret access key; asked for when missing"
    return _option(side, "secret-access-key", "KEY", text, _variable(side))


def _file(side: str) -> Any:  # noqa: ANN401
    return _option(side, "credentials-file", "FILE", "JSON key file of a Google service account")


def body(
    *,
    source_access_key_id: Annotated[str | None, _key_id("source")] = None,
    source_secret_access_key: Annotated[str | None, _secret("source")] = None,
    source_credentials_file: Annotated[Path | None, _file("source")] = None,
    target_access_key_id: Annotated[str | None, _key_id("target")] = None,
    target_secret_access_key: Annotated[str | None, _secret("target")] = None,
    target_credentials_file: Annotated[Path | None, _file("target")] = None,
) -> JsonValue:
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


given = options.as_value("secrets", body)
"""Gives a command the parameter `secrets`."""


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
