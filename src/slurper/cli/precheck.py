"""`slurper precheck`: can both sides be used with what was given?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from slurper import errors
from slurper.cli import configuration, console, options, sides
from slurper.cli.sides import Side, SideOptions

if TYPE_CHECKING:
    from slurper.settings import Settings

app = typer.Typer(add_completion=False)


@app.command()
def precheck(
    source: options.SourceUrl,
    target: options.TargetUrl,
    *,
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
) -> None:
    """Check that the source can be read and the target be written to; copy nothing.

    Exit code 0: both can; 2: one cannot, and why.
    """
    settings = configuration.load(
        options.LOCAL_DEFAULTS,
        allow_http=allow_http,
        allow_private_endpoints=allow_private,
        ca_file=ca_file,
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
    account = sides.account(source_side, target_side, account_id, settings)
    asyncio.run(_check(account, source_side, target_side, settings))
    console.out().print("source and target can be used")


async def _check(account: str, source: Side, target: Side, settings: Settings) -> None:
    from slurper.service import precheck

    check = precheck.Precheck(settings)
    addresses = {
        name: check.resolve(name, account, side.location, side.credentials)
        for name, side in ((precheck.Side.SOURCE, source), (precheck.Side.TARGET, target))
    }
    readable, writable = await asyncio.gather(
        check.source(source.location, addresses[precheck.Side.SOURCE], prefix=source.prefix),
        check.target(target.location, addresses[precheck.Side.TARGET]),
    )
    found = readable.problems + writable.problems
    for note in found:
        if not note.blocks:
            console.err().print(f"{note.pointer.split('/')[1]}: {note.message}")
    if any(problem.blocks for problem in found):
        raise errors.PrecheckFailed(tuple(problem for problem in found if problem.blocks))
