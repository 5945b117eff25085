"""Rules for single fields of a request: each takes the value and returns it, or says what is wrong.

The texts complete the field's name ("source.bucket: …") and name the fix. None of them repeats the
value, which may be a secret. The kind of a `PydanticCustomError` decides the error code.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from pydantic_core import PydanticCustomError

from slurper import secrets
from slurper.objectstore import storable

MAX_KEYS = 10_000
MAX_KEY_BYTES = 1_024
_MAX_KEY_PAIR_CHARACTERS = 1_024
_MAX_SESSION_TOKEN_CHARACTERS = 16_384
_MAX_PRIVATE_KEY_CHARACTERS = 16_384
_MAX_URL_CHARACTERS = 2_048

BUCKET_NAME = "bucket_name"
OBJECT_KEY = "object_key"
VALUE = "value"

_R2_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_S3_BUCKET = re.compile(r"(?=.*[A-Za-z0-9])(?!.*\.\.)[A-Za-z0-9._-]{3,255}")
_GCS_BUCKET = re.compile(r"[a-z0-9][a-z0-9_.-]{1,220}[a-z0-9]")
_GCS_COMPONENT_CHARACTERS = 63
_REGION = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ACCESS_KEY_ID = re.compile(r"[!-~]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_TYPE_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_CONTENT_TYPE = re.compile(rf"\*/\*|{_TYPE_NAME}/(?:\*|{_TYPE_NAME})")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\]")


def _wrong(message: str, kind: str = VALUE) -> PydanticCustomError:
    # Pydantic fills `{name}` in templates; our texts are final.
    return PydanticCustomError(kind, "{text}", {"text": message})


def r2_bucket(name: str) -> str:
    """Check the name of an R2 bucket."""
    if _R2_BUCKET.fullmatch(name) is None:
        raise _wrong(
            "R2 bucket names have 3 to 63 lower-case letters, digits and hyphens, with a letter or "
            f"digit at both ends{_bucket_hint(name)}",
            BUCKET_NAME,
        )
    return name


def s3_bucket(name: str) -> str:
    """Check the name of a bucket of Amazon S3 or a compatible store, old names included."""
    if _S3_BUCKET.fullmatch(name) is None:
        raise _wrong(
            "S3 bucket names have 3 to 255 letters, digits, dots, hyphens and underscores, and no "
            f"two dots in a row{_bucket_hint(name)}",
            BUCKET_NAME,
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
            BUCKET_NAME,
        )
    return name


def _bucket_hint(name: str) -> str:
    if "/" in name:
        return "; give the name alone: no scheme and no path (a path goes into pathPrefix)"
    return ""


def object_key(key: str) -> str:
    """Check an object's key: 1 to 1,024 bytes of UTF-8 without NUL."""
    if not key:
        raise _wrong("is empty; a key has at least one character", OBJECT_KEY)
    return _key_text(key, "a key")


def path_prefix(prefix: str) -> str:
    """Check a prefix of keys; an empty one means the whole bucket."""
    return _key_text(prefix, "a prefix")


def _key_text(text: str, what: str) -> str:
    length = len(_whole_characters(text).encode())
    if length > MAX_KEY_BYTES:
        raise _wrong(
            f"is {length} bytes long in UTF-8; {what} has at most {MAX_KEY_BYTES} bytes", OBJECT_KEY
        )
    if "\0" in text:
        raise _wrong(f"contains a NUL character (U+0000); {what} cannot", OBJECT_KEY)
    return text


def not_empty(keys: list[str]) -> list[str]:
    """Refuse a list of keys that names nothing."""
    if not keys:
        raise _wrong("names no key; leave it out (or send null) to copy every object")
    return keys


def region(name: str) -> str:
    """Check a region; an empty one counts as not given."""
    if name and _REGION.fullmatch(name) is None:
        raise _wrong(
            "a region has up to 64 letters, digits, dots, hyphens and underscores, "
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
    """Check that a private key has the shape of PEM, and tidy it up."""
    tidy = secrets.tidy_pem(_bounded(text, _MAX_PRIVATE_KEY_CHARACTERS))
    if tidy is None:
        raise _wrong(
            "must be the private_key of the service account's JSON key file, whole: PEM text from "
            "-----BEGIN PRIVATE KEY----- to -----END PRIVATE KEY-----"
        )
    return tidy


def _whole_characters(text: str) -> str:
    r"""Refuse what JSON can spell (`"\ud800"`) but UTF-8 cannot."""
    if _SURROGATE.search(text):
        raise _wrong("is not valid Unicode: it holds half of a surrogate pair (U+D800 to U+DFFF)")
    return text


def _bounded(text: str, most: int) -> str:
    if len(text) > most:
        raise _wrong(f"has {len(text)} characters; at most {most} are allowed")
    return text


def content_type(text: str) -> str:
    """Check a content type of a filter and return it in lower case."""
    if _CONTENT_TYPE.fullmatch(text) is None:
        raise _wrong("must be type/subtype or type/*, without parameters, as in image/png")
    return text.lower()


def required_header(name: str) -> str:
    """Check what a target is required to keep and return it in lower case."""
    if name.lower() not in storable.REQUIRABLE:
        raise _wrong(f"must be one of {', '.join(storable.REQUIRABLE)}")
    return name.lower()


def endpoint(url: str, bucket: str | None) -> str:
    """Check the URL of an S3-compatible store and return `scheme://host[:port]`.

    A path that only repeats the bucket is tolerated, since providers show such URLs. Whether plain
    http is allowed is for the settings to say, not for this rule.
    """
    parts = _split(url)
    if parts.scheme not in ("https", "http"):
        raise _wrong("must start with https://")
    if parts.username is not None or parts.password is not None:
        raise _wrong("must not hold a user name or password; credentials go into secret")
    if "?" in url or "#" in url:
        raise _wrong("must not have a query or fragment; give scheme, host and port only")
    if parts.path.strip("/") not in ("", bucket):
        raise _wrong("must not have a path; give scheme, host and port only, the bucket in bucket")
    if parts.hostname is None or _HOST.fullmatch(_host(parts)) is None:
        raise _wrong("has no valid host name; write names in other scripts in their xn-- form")
    return f"{parts.scheme}://{_host(parts).lower()}{_port(parts)}"


def _split(url: str) -> SplitResult:
    if not url:
        raise _wrong("is empty; leave it out (or send null) for Amazon S3 itself")
    # urlsplit drops tabs and line breaks in silence, so look before it does.
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
