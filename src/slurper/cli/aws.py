"""Finds the endpoint, region and credentials of a side where the AWS tools keep them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from slurper import errors
from slurper.cli.side_options import SideOptions
from slurper.job.model import Location, Vendor
from slurper.secrets import S3Credentials

if TYPE_CHECKING:
    from awscrt.auth import AwsCredentialsProvider

_CREDENTIALS_SECONDS = 20.0


def located(location: Location, options: SideOptions) -> Location:
    """Return the location of an s3:// side, with its endpoint and region.

    Raises:
        ConfigurationError: a jurisdiction is given, or a configuration file cannot be read.
    """
    if options.jurisdiction is not None:
        raise errors.ConfigurationError("a jurisdiction is for r2:// only")
    environ, profile = os.environ, _Profiles(os.environ)
    places = (
        profile.read(options.profile) if options.profile else {},
        {
            "endpoint": environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or "",
            "region": environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "",
        },
        profile.read(environ.get("AWS_PROFILE") or "default") if not options.profile else {},
    )

    def first(name: str, given: str | None) -> str | None:
        return given or next((place[name] for place in places if place.get(name)), None)

    return Location(
        vendor=location.vendor,
        bucket=location.bucket,
        endpoint=first("endpoint", location.endpoint),
        region=first("region", location.region),
    )


class _Profiles:
    """The endpoints and regions in the profiles of the AWS configuration file."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        home = Path(environ.get("HOME") or Path.home())
        path = Path(environ.get("AWS_CONFIG_FILE") or home / ".aws" / "config").expanduser()
        self._sections = _sections(path)

    def read(self, name: str) -> dict[str, str]:
        section = self._section(name if name == "default" else f"profile {name}")
        services = self._section(f"services {section['services']}") if "services" in section else {}
        endpoint = _nested(services.get("s3", "")).get("endpoint_url") or section.get(
            "endpoint_url", ""
        )
        return {"endpoint": endpoint, "region": section.get("region", "")}

    def _section(self, name: str) -> dict[str, str]:
        return self._sections.get(name, {})


def _sections(path: Path) -> dict[str, dict[str, str]]:
    """Read a configuration file. One that is missing, or that we may not read, counts as empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return {}
    import configparser  # imported late, because many users have no such file

    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text, source=str(path))
    except configparser.Error as error:
        raise errors.ConfigurationError(f"{path} cannot be read: {error}") from error
    return {name: dict(parser[name]) for name in parser.sections()}


def _nested(block: str) -> dict[str, str]:
    """Read the indented `name = value` lines below a setting of an AWS configuration file."""
    pairs = (line.partition("=") for line in block.splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def environment_credentials(options: SideOptions) -> S3Credentials | None:
    """Return the key pair of the `AWS_*` variables, unless an option names a profile."""
    key_id = os.environ.get("AWS_ACCESS_KEY_ID")
    secret = os.environ.get("AWS_SECRET_ACCESS_KEY")
    if options.profile or not key_id or not secret:
        return None
    return S3Credentials(
        access_key_id=key_id,
        secret_access_key=secret,
        session_token=os.environ.get("AWS_SESSION_TOKEN") or None,
    )


def found_credentials(vendor: Vendor, options: SideOptions) -> S3Credentials | None:
    """Return a key pair from the rest of the AWS credential chain: profile, process or role."""
    from awscrt.exceptions import AwsCrtError

    for provider in _providers(vendor, options):
        try:
            found = provider().get_credentials().result(_CREDENTIALS_SECONDS)
        except (AwsCrtError, RuntimeError, TimeoutError):
            continue  # this provider has no credentials
        return S3Credentials(
            access_key_id=found.access_key_id,
            secret_access_key=found.secret_access_key,
            session_token=found.session_token or None,
        )
    return None


def _providers(
    vendor: Vendor, options: SideOptions
) -> Iterator[Callable[[], AwsCredentialsProvider]]:
    from awscrt.auth import AwsCredentialsProvider

    profile = options.profile or os.environ.get("AWS_PROFILE") or None
    yield partial(AwsCredentialsProvider.new_profile, profile_name=profile)
    yield partial(AwsCredentialsProvider.new_process, profile_to_use=profile)
    if not options.profile and vendor is Vendor.S3:
        yield AwsCredentialsProvider.new_default_chain  # it includes the role of this machine
