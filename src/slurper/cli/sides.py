"""One side of a copy, from what a command line and its environment say about it.

Where several places name the same thing, the first of these wins: the option (or its `SLURPER_*`
variable), the profile an option names, the `AWS_*` environment, the default profile. R2 takes its
account from the options, never a region or an endpoint from `AWS_*`. Google Cloud Storage takes a
service account from the file that an option names, else from GOOGLE_APPLICATION_CREDENTIALS.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from slurper import errors
from slurper.job.model import Jurisdiction, Location, Vendor
from slurper.secrets import Credentials, GcsCredentials, S3Credentials, tidy_pem
from slurper.settings import Settings

if TYPE_CHECKING:
    from awscrt.auth import AwsCredentialsProvider

LOCAL_ACCOUNT = "local"
"""Where jobs are kept that belong to no Cloudflare account."""

_SCHEMES = {"s3": Vendor.S3, "r2": Vendor.R2, "gs": Vendor.GCS, "gcs": Vendor.GCS}
_CREDENTIALS_SECONDS = 20.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Where one side is, and what opens it."""

    location: Location
    prefix: str
    """Everything after `scheme://bucket/`, byte for byte."""
    credentials: Credentials


def parse_url(url: str) -> tuple[Vendor, str, str]:
    """Split `s3://bucket/prefix`, or r2:// or gs://, into vendor, bucket and prefix.

    Raises:
        ConfigurationError: another scheme, or no bucket.
    """
    scheme, separator, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    if not separator or scheme not in _SCHEMES:
        raise errors.ConfigurationError(
            f"{url}: write s3://BUCKET[/PREFIX], r2://BUCKET[/PREFIX] or gs://BUCKET[/PREFIX]"
        )
    if not bucket:
        raise errors.ConfigurationError(f"{url}: names no bucket")
    return _SCHEMES[scheme], bucket, prefix


def resolve(name: str, url: str, options: SideOptions) -> Side:
    """Find out everything about the side called `name` ("source" or "target").

    Raises:
        ConfigurationError: the URL is wrong, or no credentials were found; the message says where
            they may be put.
    """
    vendor, bucket, prefix = parse_url(url)
    if vendor is Vendor.GCS:
        return _gcs_side(name, bucket, prefix, options)
    if options.credentials_file is not None:
        raise errors.ConfigurationError(f"--{name}-credentials-file is for gs:// only")
    location = Location(
        vendor=vendor,
        bucket=bucket,
        endpoint=options.endpoint or None,
        region=options.region or None,
        jurisdiction=options.jurisdiction,
    )
    if vendor is Vendor.S3:
        location = _s3_location(location, options)
    elif options.region:
        raise errors.ConfigurationError(f"--{name}-region: R2 has none; leave it out")
    credentials = (
        _given_credentials(name, options)
        or _environment_credentials(options)
        or _found_credentials(name, vendor, options)
    )
    return Side(location=location, prefix=prefix, credentials=credentials)


def check_target_url(target: Side) -> None:
    """Refuse a prefix at the target.

    Raises:
        ConfigurationError: there is one.
    """
    if target.prefix:
        raise errors.ConfigurationError(
            "TARGET names a prefix; objects keep their keys, so name the bucket alone "
            "(--strip-prefix removes the source's prefix)"
        )


def account(source: Side, target: Side, account_id: str | None, settings: Settings) -> str:
    """The account that r2:// sides belong to, and under which the job is kept.

    Raises:
        ConfigurationError: a side is r2:// and nothing says whose.
    """
    locations = (source.location, target.location)
    if all(each.vendor is not Vendor.R2 or each.endpoint for each in locations):
        return LOCAL_ACCOUNT
    if not account_id and settings.r2_endpoint is None:
        raise errors.ConfigurationError(
            "r2:// needs an account: --account-id or CLOUDFLARE_ACCOUNT_ID"
        )
    return account_id or LOCAL_ACCOUNT


_NOT_FOR_GCS = (
    "endpoint",
    "region",
    "jurisdiction",
    "profile",
    "access_key_id",
    "secret_access_key",
    "session_token",
)


def _gcs_side(name: str, bucket: str, prefix: str, options: SideOptions) -> Side:
    for option in _NOT_FOR_GCS:
        if getattr(options, option):
            shown = option.replace("_", "-")
            raise errors.ConfigurationError(f"--{name}-{shown}: not for gs://; leave it out")
    file = options.credentials_file or os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if not file:
        raise errors.ConfigurationError(
            f"no credentials for the {name}: name the JSON key file of a service account with "
            f"--{name}-credentials-file, SLURPER_{name.upper()}_CREDENTIALS_FILE or "
            "GOOGLE_APPLICATION_CREDENTIALS"
        )
    location = Location(vendor=Vendor.GCS, bucket=bucket)
    return Side(location=location, prefix=prefix, credentials=service_account(Path(file)))


def service_account(path: Path) -> GcsCredentials:
    """Read the JSON key file of a service account. No error text holds any of it."""
    try:
        account = json.loads(path.expanduser().read_text(encoding="utf-8-sig"))
        email, key = account["client_email"], account["private_key"]
    except OSError as error:
        raise errors.ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, LookupError):
        email = key = None
    if not (isinstance(email, str) and isinstance(key, str)):
        raise errors.ConfigurationError(
            f"{path} is not the JSON key file of a service account: it needs client_email and "
            "private_key"
        )
    tidy = tidy_pem(key)
    if tidy is None:
        raise errors.ConfigurationError(
            f"{path}: its private_key is not PEM text from -----BEGIN PRIVATE KEY----- to "
            "-----END PRIVATE KEY-----; download the key file again, or make a new key"
        )
    return GcsCredentials(client_email=email.strip(), private_key=tidy)


def _s3_location(location: Location, options: SideOptions) -> Location:
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
    """The profiles of the AWS configuration file, as far as they say where a store is."""

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
    """Read a configuration file; one that is not there, or that we may not read, is empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return {}
    import configparser  # who names stores by options or variables has no such file

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


def _given_credentials(name: str, options: SideOptions) -> S3Credentials | None:
    if not options.access_key_id and not options.secret_access_key:
        return None
    if not options.access_key_id or not options.secret_access_key:
        raise errors.ConfigurationError(
            f"--{name}-access-key-id and --{name}-secret-access-key belong together"
        )
    return S3Credentials(
        access_key_id=options.access_key_id,
        secret_access_key=options.secret_access_key,
        session_token=options.session_token or None,
    )


def _environment_credentials(options: SideOptions) -> S3Credentials | None:
    key_id = os.environ.get("AWS_ACCESS_KEY_ID")
    secret = os.environ.get("AWS_SECRET_ACCESS_KEY")
    if options.profile or not key_id or not secret:
        return None
    return S3Credentials(
        access_key_id=key_id,
        secret_access_key=secret,
        session_token=os.environ.get("AWS_SESSION_TOKEN") or None,
    )


def _found_credentials(name: str, vendor: Vendor, options: SideOptions) -> S3Credentials:
    """Ask the rest of the AWS credential chain: profiles, processes, the machine's role."""
    from awscrt.exceptions import AwsCrtError

    for provider in _providers(vendor, options):
        try:
            found = provider().get_credentials().result(_CREDENTIALS_SECONDS)
        except (AwsCrtError, RuntimeError, TimeoutError):
            continue  # it has none: no such file, variable, profile or machine role
        return S3Credentials(
            access_key_id=found.access_key_id,
            secret_access_key=found.secret_access_key,
            session_token=found.session_token or None,
        )
    raise errors.ConfigurationError(_where_to_put_credentials(name, options))


def _providers(
    vendor: Vendor, options: SideOptions
) -> Iterator[Callable[[], AwsCredentialsProvider]]:
    from awscrt.auth import AwsCredentialsProvider

    profile = options.profile or os.environ.get("AWS_PROFILE") or None
    yield partial(AwsCredentialsProvider.new_profile, profile_name=profile)
    yield partial(AwsCredentialsProvider.new_process, profile_to_use=profile)
    if not options.profile and vendor is Vendor.S3:
        yield AwsCredentialsProvider.new_default_chain  # the role of the machine this runs on


def _where_to_put_credentials(name: str, options: SideOptions) -> str:
    if options.profile:
        return f"the AWS profile {options.profile!r} gives no credentials for the {name}"
    upper = name.upper()
    return (
        f"no credentials for the {name}: set SLURPER_{upper}_ACCESS_KEY_ID and "
        f"SLURPER_{upper}_SECRET_ACCESS_KEY (or the options --{name}-...), AWS_ACCESS_KEY_ID and "
        f"AWS_SECRET_ACCESS_KEY, or name an AWS profile with --{name}-profile"
    )
