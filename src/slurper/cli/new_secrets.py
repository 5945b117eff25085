"""Options for new credentials of a server's job, and the request body that they make.

A side gets new credentials if its access key id, or the file of a service account, is given. These
two are not taken from the environment, because it may hold those of another copy. Only the secret
may come from there.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from slurper import errors
from slurper.cli.console import JsonValue
from slurper.cli.options import as_value, keyword


def _variable(side: str) -> str:
    return f"SLURPER_{side.upper()}_SECRET_ACCESS_KEY"


def _declared(side: str) -> Iterator[inspect.Parameter]:
    for name, kind, metavar, variable, text in (
        ("access_key_id", str, "ID", None, "Access key id"),
        ("secret_access_key", str, "KEY", _variable(side),
         "Secret access key; asked for when missing"),
        ("credentials_file", Path, "FILE", None, "JSON key file of a Google service account"),
    ):  # fmt: skip
        option = typer.Option(
            f"--{side}-{name}".replace("_", "-"),
            envvar=variable,
            help=text,
            metavar=metavar,
            show_default=False,
            rich_help_panel=f"New credentials for the {side}",
        )
        yield keyword(f"{side}_{name}", kind | None, option)


def body(**options: Any) -> JsonValue:  # noqa: ANN401 - as `_declared` declares them
    """Return what to send; None when no side gets new credentials.

    Raises:
        ConfigurationError: a secret is missing, and there is no terminal to ask for it. Or a file
            is no key file. Or a side has both an access key id and a file.
    """
    made = {}
    for side in ("source", "target"):
        key_id, file = options[f"{side}_access_key_id"], options[f"{side}_credentials_file"]
        if key_id or file:
            secret = options[f"{side}_secret_access_key"]
            made[side] = {"secret": _new_secret(side, key_id, secret, file)}
    return made or None


given = as_value("secrets", body, (*_declared("source"), *_declared("target")))
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
