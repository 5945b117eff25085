"""Finds out where a side of a copy is and what opens it, from the command line and environment.

A value may be given in several places. The first of these wins: the option (or its `SLURPER_*`
variable), the profile that an option names, the `AWS_*` environment, the default profile. R2 takes
its account from the options, and never a region or an endpoint from `AWS_*`. Google Cloud Storage
takes a service account from the file that an option names, or else from the file that
GOOGLE_APPLICATION_CREDENTIALS names.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from slurper import errors
from slurper.cli import aws, side_options
from slurper.cli.options import as_value
from slurper.cli.side_options import SideOptions
from slurper.job.model import Location, Vendor
from slurper.secrets import Credentials, GcsCredentials, S3Credentials, tidy_pem
from slurper.settings import Settings

LOCAL_ACCOUNT = "local"
"""The account of jobs that belong to no Cloudflare account."""

_SCHEMES = {"s3": Vendor.S3, "r2": Vendor.R2, "gs": Vendor.GCS, "gcs": Vendor.GCS}


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketAccess:
    """Where the bucket of one side is, and the credentials for it."""

    location: Location
    prefix: str
    """Everything after `scheme://bucket/`, byte for byte."""
    credentials: Credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Both sides of a copy, ready to be used."""

    source: BucketAccess
    target: BucketAccess
    account_id: str
    """The account of r2:// sides. The job is kept under it, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenSides:
    """What the command line says about both sides."""

    source_url: str
    target_url: str
    source: SideOptions
    target: SideOptions
    account_id: str | None

    def resolve(self, settings: Settings) -> Sides:
        """Find out everything about both sides.

        Raises:
            ConfigurationError: as `resolve`, `check_target_url` and `account` say.
        """
        source = resolve("source", self.source_url, self.source)
        target = resolve("target", self.target_url, self.target)
        check_target_url(target)
        account_id = account(source, target, self.account_id, settings)
        return Sides(source=source, target=target, account_id=account_id)


def _given_sides(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="s3://BUCKET/PREFIX, r2:// or gs://; the prefix may be missing"
        ),
    ],
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="r2://BUCKET, s3://BUCKET or gs://BUCKET")
    ],
    *,
    account_id: Annotated[
        str | None,
        typer.Option(
            "--account-id", envvar="CLOUDFLARE_ACCOUNT_ID", help="Cloudflare account of r2:// sides"
        ),
    ] = None,
    **options: Any,  # noqa: ANN401 - as `side_options` declares them
) -> GivenSides:
    return GivenSides(
        source_url=source,
        target_url=target,
        source=side_options.taken("source", options),
        target=side_options.taken("target", options),
        account_id=account_id,
    )


_DECLARED = (*side_options.declared("source"), *side_options.declared("target"))

given = as_value("sides", _given_sides, _DECLARED)
"""Gives a command the parameter `sides`."""


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


def resolve(name: str, url: str, options: SideOptions) -> BucketAccess:
    """Find out everything about the side called `name` ("source" or "target").

    Raises:
        ConfigurationError: the URL is wrong, or no credentials were found. The message says where
            to put them.
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
        location = aws.located(location, options)
    elif options.region:
        raise errors.ConfigurationError(f"--{name}-region: R2 has none; leave it out")
    credentials = (
        _given_credentials(name, options)
        or aws.environment_credentials(options)
        or aws.found_credentials(vendor, options)
    )
    if credentials is None:
        raise errors.ConfigurationError(_where_to_put_credentials(name, options))
    return BucketAccess(location=location, prefix=prefix, credentials=credentials)


def check_target_url(target: BucketAccess) -> None:
    """Refuse a prefix at the target. Raises ConfigurationError: there is one."""
    if target.prefix:
        raise errors.ConfigurationError(
            "TARGET names a prefix; objects keep their keys, so name the bucket alone "
            "(--strip-prefix removes the source's prefix)"
        )


def account(
    source: BucketAccess, target: BucketAccess, account_id: str | None, settings: Settings
) -> str:
    """Return the account of r2:// sides. The job is kept under it, too.

    Raises:
        ConfigurationError: a side is r2:// and no account is given.
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


def _gcs_side(name: str, bucket: str, prefix: str, options: SideOptions) -> BucketAccess:
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
    return BucketAccess(location=location, prefix=prefix, credentials=service_account(Path(file)))


def service_account(path: Path) -> GcsCredentials:
    """Read the JSON key file of a service account. Error texts hold nothing of its content."""
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


def _where_to_put_credentials(name: str, options: SideOptions) -> str:
    if options.profile:
        return f"the AWS profile {options.profile!r} gives no credentials for the {name}"
    upper = name.upper()
    return (
        f"no credentials for the {name}: set SLURPER_{upper}_ACCESS_KEY_ID and "
        f"SLURPER_{upper}_SECRET_ACCESS_KEY (or the options --{name}-...), AWS_ACCESS_KEY_ID and "
        f"AWS_SECRET_ACCESS_KEY, or name an AWS profile with --{name}-profile"
    )
