"""The rules for what a request may ask for, each with the text that explains it.

A rule takes a value and returns it, or raises `InvalidField`. A rule for a single value does not
know the value's place in the request. The caller gives the place with `below`. Each text follows
the field's name ("source.bucket: …") and names the fix. No text repeats the value, which may be a
secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

from slurper import secrets
from slurper.errors import FieldKind, InvalidField
from slurper.job.access import STATIC
from slurper.job.model import LimitChanges

MAX_KEYS = 10_000
MAX_KEY_BYTES = 1_024
_MAX_KEY_PAIR_CHARACTERS = 1_024
_MAX_SESSION_TOKEN_CHARACTERS = 16_384
_MAX_PRIVATE_KEY_CHARACTERS = 16_384
_MAX_URL_CHARACTERS = 2_048

MAX_NUMBER = 2**63 - 1
"""The largest size or limit that the database can store."""

REQUIRABLE = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    "metadata",
    "headers",
)
"""What a job may require its target to keep: a content header, `metadata` (of every kind), or
`headers` (all of them)."""

_R2_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_S3_BUCKET = re.compile(r"(?=.*[A-Za-z0-9])(?!.*\.\.)[A-Za-z0-9._-]{3,255}")
_GCS_BUCKET = re.compile(r"[a-z0-9][a-z0-9_.-]{1,220}[a-z0-9]")
_GCS_COMPONENT_CHARACTERS = 63
_REGION = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ACCESS_KEY_ID = re.compile(r"[!-~]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# An account id is a label in the host name of its R2 endpoint.
_ACCOUNT_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_MAX_TOKEN_NAME_CHARACTERS = 100
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_TYPE_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_CONTENT_TYPE = re.compile(rf"\*/\*|{_TYPE_NAME}/(?:\*|{_TYPE_NAME})")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HOST = re.compile(r"(?!-)[a-z0-9_-]+(?:\.[a-z0-9_-]+)*(?<![_-])\.?|\[[0-9a-f:.]+\]")


Keys = TypeVar("Keys", bound=Sequence[str])


def _wrong(message: str, kind: FieldKind = "value") -> InvalidField:
    return InvalidField("", message, kind)


@contextmanager
def below(pointer: str) -> Iterator[None]:
    """Put `pointer` before the pointer of an `InvalidField` that the block raises."""
    try:
        yield
    except InvalidField as error:
        raise InvalidField(pointer + error.pointer, error.message, error.kind) from error


def account_id(text: str) -> str:
    """Check the id of an account."""
    if _ACCOUNT_ID.fullmatch(text) is None:
        raise _wrong(
            "an account id has 1 to 63 letters, digits, hyphens and underscores, with a letter or "
            "digit at both ends"
        )
    return text


def token_name(text: str) -> str:
    """Check the name of a new token. It is shown in lists, in logs and with jobs."""
    fits = 0 < len(text) <= _MAX_TOKEN_NAME_CHARACTERS and text == text.strip()
    if not fits or not text.isprintable():
        raise _wrong(
            f"a token has a name of 1 to {_MAX_TOKEN_NAME_CHARACTERS} printable characters, "
            "without blanks at the ends"
        )
    if text == STATIC:
        raise _wrong(f"{STATIC!r} means the token in SLURPER_API_TOKEN; choose another name")
    return text


def r2_bucket(name: str) -> str:
    """Check the name of an R2 bucket."""
    if _R2_BUCKET.fullmatch(name) is None:
        raise _wrong(
            "R2 bucket names have 3 to 63 lower-case letters, digits and hyphens, with a letter or "
            f"digit at both ends{_bucket_hint(name)}",
            "bucket_name",
        )
    return name


def s3_bucket(name: str) -> str:
    """Check the name of a bucket of Amazon S3 or a compatible store, old names included."""
    if _S3_BUCKET.fullmatch(name) is None:
        raise _wrong(
            "S3 bucket names have 3 to 255 letters, digits, dots, hyphens and underscores, and no "
            f"two dots in a row{_bucket_hint(name)}",
            "bucket_name",
        )
    return name


def gcs_bucket(name: str) -> str:
    """Check the name of a Google Cloud Storage bucket."""
    components = name.split(".")
    fits = all(1 <= len(part) <= _GCS_COMPONENT_CHARACTERS for part in components)
    if _GCS_BUCKET.fullmatch(name) is None or not fits:
        raise _wrong(
            "GCS bucket names have 3 to 63 lower-case letters, digits, hyphens, underscores and "
            "dots (to 222 with dots, 63 between two dots), with a letter or digit at both ends"
            f"{_bucket_hint(name)}",
            "bucket_name",
        )
    return name


def _bucket_hint(name: str) -> str:
    if "/" in name:
        return "; give the name alone: no scheme and no path (a path goes into pathPrefix)"
    return ""


def object_key(key: str) -> str:
    """Check an object's key: 1 to 1,024 bytes of UTF-8 without NUL."""
    if not key:
        raise _wrong("is empty; a key has at least one character", "object_key")
    return _key_text(key, "a key")


def path_prefix(prefix: str) -> str:
    """Check a prefix of keys; an empty one means the whole bucket."""
    return _key_text(prefix, "a prefix")


def _key_text(text: str, what: str) -> str:
    # This runs ten thousand times for a request, so it looks for surrogates only where it must.
    length = len(text) if text.isascii() else len(_whole_characters(text).encode())
    if length > MAX_KEY_BYTES:
        raise _wrong(
            f"is {length} bytes long in UTF-8; {what} has at most {MAX_KEY_BYTES} bytes",
            "object_key",
        )
    if "\0" in text:
        raise _wrong(f"contains a NUL character (U+0000); {what} cannot", "object_key")
    return text


def selected_keys(keys: Sequence[str], prefix: str) -> tuple[str, ...]:
    """Return explicit keys in UTF-8 byte order, each once.

    Raises:
        InvalidField: there is no key, or one lies outside the prefix; the pointer is relative to
            the list.
    """
    for index, key in enumerate(keys):
        if not key.startswith(prefix):
            raise InvalidField(
                f"/{index}",
                "does not start with pathPrefix; keys and pathPrefix both apply, "
                "so remove the key or the prefix",
            )
    # The command line also reads keys that are not UTF-8. It escapes their bytes.
    return not_empty(
        tuple(sorted(set(keys), key=lambda key: key.encode("utf-8", "surrogateescape")))
    )


def not_empty(keys: Keys) -> Keys:
    """Refuse an empty list of keys."""
    if not keys:
        raise _wrong("names no key; leave it out (or send null) to copy every object")
    return keys


def limit_changes(changes: LimitChanges) -> None:
    """Refuse a change that names no limit."""
    if not changes:
        raise InvalidField(
            "/options", "names nothing to change: bandwidthLimit, requestRateLimit or both"
        )


def region(name: str) -> str:
    """Check a region."""
    if _REGION.fullmatch(name) is None:
        raise _wrong(
            "a region has up to 64 letters, digits, hyphens and underscores, "
            "as in eu-central-1 or auto"
        )
    return name


def access_key_id(text: str) -> str:
    """Check the public half of a key pair."""
    if _ACCESS_KEY_ID.fullmatch(text) is None or "/" in text:
        raise _wrong(
            "an access key id has visible ASCII characters only, at least one and no slash; "
            "look for a space or line break that was copied along"
        )
    return _bounded(text, _MAX_KEY_PAIR_CHARACTERS)


def secret_access_key(text: str) -> str:
    """Check the secret half of a key pair."""
    if not text:
        raise _wrong("is empty; give the secret that belongs to the access key id")
    if text != text.strip() or _CONTROL.search(text):
        raise _wrong(
            "contains control characters or surrounding space; "
            "look for a space or line break that was copied along"
        )
    return _bounded(_whole_characters(text), _MAX_KEY_PAIR_CHARACTERS)


def session_token(text: str) -> str:
    """Check the token of temporary credentials, which goes into a header."""
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise _wrong(
            "a session token has visible ASCII characters only, at least one; "
            "look for a space or line break that was copied along"
        )
    return _bounded(text, _MAX_SESSION_TOKEN_CHARACTERS)


def client_email(text: str) -> str:
    """Check the address of a Google service account."""
    if _EMAIL.fullmatch(text) is None or _CONTROL.search(text):
        raise _wrong(
            "must be the service account's address, the client_email of its JSON key file, "
            "as in name@project.iam.gserviceaccount.com"
        )
    return _bounded(_whole_characters(text), _MAX_KEY_PAIR_CHARACTERS)


def private_key(text: str) -> str:
    """Check that a private key has the form of PEM, and correct its line breaks."""
    tidy = secrets.tidy_pem(_bounded(text, _MAX_PRIVATE_KEY_CHARACTERS))
    if tidy is None:
        raise _wrong(
            "must be the private_key of the service account's JSON key file, whole: PEM text from "
            "-----BEGIN PRIVATE KEY----- to -----END PRIVATE KEY-----"
        )
    return tidy


def _whole_characters(text: str) -> str:
    r"""Refuse characters that JSON can write (`"\ud800"`) but UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _wrong(
            "is not valid Unicode: it holds half of a surrogate pair (U+D800 to U+DFFF)"
        ) from error
    return text


def _bounded(text: str, most: int) -> str:
    if len(text) > most:
        raise _wrong(f"has {len(text)} characters; at most {most} are allowed")
    return text


def content_type(text: str) -> str:
    """Check a content type of a filter, and return it in lower case."""
    if _CONTENT_TYPE.fullmatch(text) is None:
        raise _wrong("must be type/subtype or type/*, without parameters, as in image/png")
    return text.lower()


def required_header(name: str) -> str:
    """Check the name of a header that a target must keep, and return it in lower case."""
    if name.lower() not in REQUIRABLE:
        raise _wrong(f"must be one of {', '.join(REQUIRABLE)}")
    return name.lower()


def endpoint(url: str, bucket: str | None = None, *, allow_http: bool = True) -> str:
    """Check the URL of an S3-compatible store, and return `scheme://host[:port]`.

    A path that only repeats the bucket is accepted, because providers show such URLs. The settings
    say whether plain http is allowed. So the service checks that, not the API.
    """
    parts = _split(url)
    if parts.scheme not in ("https", "http"):
        raise _wrong("must start with https://")
    if parts.scheme == "http" and not allow_http:
        raise _wrong(
            "must start with https://; plain http is allowed only where the operator of this "
            "server has set SLURPER_ALLOW_HTTP=true"
        )
    if parts.username is not None or parts.password is not None:
        raise _wrong("must not hold a user name or password; credentials go into secret")
    if "?" in url or "#" in url:
        raise _wrong("must not have a query or fragment; give scheme, host and port only")
    if parts.path.strip("/") not in ("", bucket):
        raise _wrong("must not have a path; give scheme, host and port only, the bucket in bucket")
    host = _host(parts)
    if _HOST.fullmatch(host) is None:
        raise _wrong("has no valid host name; write names in other scripts in their xn-- form")
    return f"{parts.scheme}://{host}{_port(parts)}"


def _split(url: str) -> SplitResult:
    if not url:
        raise _wrong("is empty; leave it out (or send null) for Amazon S3 itself")
    # urlsplit silently drops tabs and line breaks, so check for them first.
    if re.search(r"[\s\x00-\x1f\x7f\\]", url):
        raise _wrong("contains white space, a control character or a backslash")
    _bounded(url, _MAX_URL_CHARACTERS)
    if _SCHEME.match(url) is None:
        raise _wrong("has no scheme; write https:// in front of the host")
    try:
        return urlsplit(url)
    except ValueError as error:
        raise _wrong("is not a valid URL; as an example: https://s3.example.com:9000") from error


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    return f"[{host}]" if ":" in host else host


def _port(parts: SplitResult) -> str:
    try:
        port = parts.port
    except ValueError as error:
        raise _wrong("has an invalid port; ports are numbers from 1 to 65535") from error
    if port == 0:
        raise _wrong("has an invalid port; ports are numbers from 1 to 65535")
    return "" if port is None else f":{port}"
