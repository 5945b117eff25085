"""Turns what a user wrote about a bucket into an address, and an address into an open store.

Modules that only Google's buckets need are loaded with the first such bucket.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from slurper import errors
from slurper.http.client import TransportOptions
from slurper.http.places import Owner
from slurper.job import rules
from slurper.job.model import Capabilities, Jurisdiction, Location, Vendor
from slurper.objectstore import dialects, key_shapes
from slurper.objectstore.base import ProbedStore, StoreAddress
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import Dialect, KeyOrder
from slurper.objectstore.key_shapes import KeyShape
from slurper.objectstore.s3.store import S3ObjectStore
from slurper.secrets import Credentials, GcsCredentials, S3Credentials
from slurper.settings import Settings

if TYPE_CHECKING:
    from slurper.objectstore.gcs.tokens import Accounts

_ACCOUNT_ID = re.compile(r"[A-Za-z0-9]{1,63}")
_GCS_HOST = "storage.googleapis.com"
_DEFAULT_PORTS = {"http": 80, "https": 443}

_FOUND_IN_EVERY_DIALECT = (
    "obeys_if_match",
    "etags_are_md5s",
    "etags_of_parts_are_md5s",
    "wants_md5",
)
_FOUND_WHILE_OPEN = ("list_version", *_FOUND_IN_EVERY_DIALECT)
"""Names of members that `Capabilities` and `Dialect` share."""


def resolve(
    location: Location,
    credentials: Credentials,
    *,
    account_id: str,
    token: str | None = None,
    settings: Settings,
    found: Capabilities | None = None,
) -> StoreAddress:
    """Find out where a bucket is and how to speak to it. Nothing is sent.

    Args:
        location: The bucket as the user described it.
        credentials: What signs the requests.
        account_id: The account of the request; part of R2's host names.
        token: The name of the token that the account acts by.
        settings: Overrides of provider addresses, and what endpoints users may name.
        found: What the store was found to do. It replaces what an `assumed` dialect says. What only
            the store's answers show counts in every dialect.

    Raises:
        InvalidField: a field of the location cannot work; the pointer is relative to the location.
        ConfigurationError: the operator's own endpoint or the account id cannot work.
    """
    owner = Owner(account_id, token)
    if location.vendor is Vendor.GCS:
        return replace(_gcs_address(location, credentials, settings), owner=owner)
    if not isinstance(credentials, S3Credentials):
        raise errors.InvalidField("/secret", "this vendor needs an access key id and a secret")
    if location.region is not None:
        with rules.below("/region"):
            rules.region(location.region)
    origin, dialect, trusted = _origin(location, account_id, settings)
    return StoreAddress(
        origin=origin,
        bucket=location.bucket,
        region=location.region or _region_of(origin) or dialect.default_region,
        dialect=_adapted(dialect, found or Capabilities()),
        credentials=credentials,
        requester_pays=settings.requester_pays and dialect.requester_pays,
        trusted=trusted,
        owner=owner,
    )


def found_since(known: Dialect, now: Dialect) -> Capabilities:
    """What a store was found to do while it was open: where `now` differs from `known`."""
    differing = {
        name: getattr(now, name)
        for name in _FOUND_WHILE_OPEN
        if getattr(now, name) != getattr(known, name)
    }
    return Capabilities(**differing)


def _adapted(dialect: Dialect, found: Capabilities) -> Dialect:
    names = (*_FOUND_IN_EVERY_DIALECT, "trailing_checksum")
    dialect = _with_known(dialect, {name: getattr(found, name) for name in names})
    order = None if found.key_order is None else KeyOrder(found.key_order)
    if order in (KeyOrder.OWN, KeyOrder.NONE):
        dialect = replace(dialect, own_order=True, no_order=order is KeyOrder.NONE)
    if not dialect.assumed:
        return dialect
    given: dict[str, Any] = {
        "list_version": found.list_version,
        "checksum": None if found.checksum is None else Algorithm(found.checksum),
        "verifies_md5": found.verifies_md5,
        "conditional_put": found.conditional_put,
        # Jobs of earlier versions hold one answer for both.
        "conditional_completion": found.conditional_put
        if found.conditional_completion is None
        else found.conditional_completion,
        "unkept_keys": _unkept_keys(found),
    }
    dialect = _with_known(dialect, given)
    return replace(dialect, checksum=None) if found.verifies_checksum is False else dialect


def _with_known(dialect: Dialect, given: dict[str, Any]) -> Dialect:
    known = {name: value for name, value in given.items() if value is not None}
    return replace(dialect, **known) if known else dialect


def _unkept_keys(found: Capabilities) -> tuple[KeyShape, ...] | None:
    """The shapes found by writing, or else those known of stores that list folder by folder."""
    if found.unkept_keys is not None:
        return tuple(map(KeyShape, found.unkept_keys))
    if found.key_order is None:
        return None
    in_folders = KeyOrder(found.key_order) is KeyOrder.FOLDERS
    return key_shapes.KEPT_IN_FOLDERS if in_folders else ()


class StoreOpener:
    """Opens the stores of a process, so that those of one Google account share its token."""

    def __init__(self) -> None:
        self._accounts: Accounts | None = None

    def __call__(self, address: StoreAddress, options: TransportOptions) -> ProbedStore:
        """Open the bucket at an address; connections are made when they are needed."""
        if isinstance(address.credentials, GcsCredentials):
            from slurper.objectstore.gcs.store import GcsObjectStore
            from slurper.objectstore.gcs.tokens import Accounts

            self._accounts = self._accounts or Accounts()
            return GcsObjectStore(address, options, accounts=self._accounts)
        return S3ObjectStore(address, options)


def open_store(address: StoreAddress, options: TransportOptions) -> ProbedStore:
    """Open one bucket alone."""
    return StoreOpener()(address, options)


def _gcs_address(location: Location, credentials: Credentials, settings: Settings) -> StoreAddress:
    from slurper.objectstore.gcs.tokens import TOKEN_URI

    if not isinstance(credentials, GcsCredentials):
        raise errors.InvalidField("/secret", "Google Cloud Storage needs a service account")
    _check_private_key(credentials.private_key)
    chosen = settings.gcs_endpoint
    origin = _operators_origin("SLURPER_GCS_ENDPOINT", chosen) if chosen is not None else None
    token_uri = settings.gcs_token_uri
    if token_uri is not None:
        # Its path may be any; the rest must be an endpoint as in the other settings.
        parts = urlsplit(token_uri)
        _operators_origin("SLURPER_GCS_TOKEN_URI", f"{parts.scheme}://{parts.netloc}")
    return StoreAddress(
        origin=origin or f"https://{_GCS_HOST}",
        bucket=location.bucket,
        region=dialects.GCS.default_region,
        dialect=dialects.GCS,
        credentials=credentials,
        token_uri=token_uri or TOKEN_URI,
        trusted=origin is not None,
    )


def _check_private_key(text: str) -> None:
    """Refuse a key that cannot sign. No error text holds any of it. Raises InvalidField."""
    from slurper.objectstore.gcs import keys

    try:
        keys.load(text)
    except ValueError:
        raise errors.InvalidField(
            "/secret/privateKey",
            "is not an RSA private key in PEM (PKCS#8 or PKCS#1, without a passphrase, of at most "
            "4,096 bits); copy private_key from the service account's JSON key file, whole",
        ) from None


def _origin(location: Location, account_id: str, settings: Settings) -> tuple[str, Dialect, bool]:
    """Origin, dialect, and whether the operator chose the address."""
    if location.endpoint is not None:
        origin, dialect = _user_origin(location.endpoint, location.bucket, settings)
        return origin, dialects.R2 if location.vendor is Vendor.R2 else dialect, False
    if location.vendor is Vendor.R2:
        return _r2_origin(location.jurisdiction, account_id, settings)
    region = (location.region or dialects.AWS.default_region).lower()
    dialect = dialects.AWS_CHINA if region.startswith("cn-") else dialects.AWS
    return f"https://{dialect.regional_host.format(region=region)}", dialect, False


def _r2_origin(
    jurisdiction: Jurisdiction | None, account_id: str, settings: Settings
) -> tuple[str, Dialect, bool]:
    if settings.r2_endpoint is not None:
        origin = _operators_origin("SLURPER_R2_ENDPOINT", settings.r2_endpoint)
        return origin, dialects.R2, True
    if not _ACCOUNT_ID.fullmatch(account_id):
        raise errors.ConfigurationError(
            f"account id {account_id!r} cannot be part of a host name; set SLURPER_R2_ENDPOINT"
        )
    elsewhere = jurisdiction not in (None, Jurisdiction.DEFAULT)
    infix = f".{jurisdiction}" if elsewhere else ""
    return f"https://{account_id}{infix}.{dialects.R2.hosts[0]}", dialects.R2, False


def _operators_origin(setting: str, endpoint: str) -> str:
    try:
        return _normal(urlsplit(rules.endpoint(endpoint)))
    except errors.InvalidField as error:
        raise errors.ConfigurationError(f"{setting} {error.message}") from error


def _user_origin(endpoint: str, bucket: str, settings: Settings) -> tuple[str, Dialect]:
    with rules.below("/endpoint"):
        parts = urlsplit(rules.endpoint(endpoint, bucket, allow_http=settings.allow_http))
    dialect = dialects.of_host(parts.hostname or "")
    # Providers' consoles show a bucket's address with the bucket's name before the host.
    without = parts._replace(netloc=parts.netloc.removeprefix(f"{bucket}."))
    if dialect is not dialects.GENERIC and without.hostname not in dialect.hosts:
        parts = without
    return _normal(parts), dialect


def _normal(parts: SplitResult) -> str:
    """Scheme, lower-case host, and the port if it is not the scheme's own."""
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    own_port = parts.port in (None, _DEFAULT_PORTS[parts.scheme])
    return f"{parts.scheme}://{host}" + ("" if own_port else f":{parts.port}")


def _region_of(origin: str) -> str | None:
    """The region that a provider's host names."""
    host = urlsplit(origin).hostname or ""
    pattern = dialects.of_host(host).region_in_host
    found = re.search(pattern, host) if pattern else None
    return found[1] if found else None
