"""Credentials that do not show their secrets, and their sealing for storage (design rule 11)."""

from __future__ import annotations

import contextlib
import hmac
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from slurper import errors


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Credentials:
    """Key pair of an S3-compatible store; `session_token` for temporary credentials."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GcsCredentials:
    """Service account of Google Cloud Storage; `private_key` is PEM."""

    client_email: str
    private_key: str = field(repr=False)


_PEM = re.compile(
    r"-----BEGIN (?P<kind>(?:RSA )?PRIVATE KEY)-----"
    r"(?P<base64>\s*[A-Za-z0-9+/][A-Za-z0-9+/=\s]*)"
    r"-----END (?P=kind)-----"
)
_PEM_LINE = re.compile(r".{1,64}")  # RFC 7468, section 2


def tidy_pem(text: str) -> str | None:
    r"""Return a private key (PKCS#8 or PKCS#1) as correct PEM text; None if it cannot be that.

    Files, variables and forms often damage keys, and this repairs them. Line breaks may be escaped
    (`\n`, with any number of backslashes), be those of Windows, or have become spaces. There may be
    blanks, quotes or a comma around the key. The key itself is not checked.
    """
    text = re.sub(r"\\+n", "\n", re.sub(r"\\+r", "", text))  # PEM itself holds no backslash
    found = _PEM.fullmatch(text.strip(" \t\r\n\"'\\,"))
    if found is None:
        return None
    lines = _PEM_LINE.findall("".join(found["base64"].split()))
    kind = found["kind"]
    return "\n".join((f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""))


Credentials = S3Credentials | GcsCredentials

_KINDS: dict[str, type[S3Credentials | GcsCredentials]] = {
    "s3": S3Credentials,
    "gcs": GcsCredentials,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSecrets:
    """What a job needs to sign for both of its sides."""

    source: Credentials
    target: Credentials


Keys = tuple[str, ...]
"""Url-safe base64 Fernet keys, the newest first."""


def new_key() -> str:
    """Return a key that nobody has used before."""
    return Fernet.generate_key().decode()


def _no_newer() -> Keys | None:
    return None


class Sealer:
    """Seals job secrets with authenticated encryption (Fernet: AES-128-CBC + HMAC-SHA256).

    The first key seals; every key opens. So keys are rotated by putting a new one first. `newer`
    returns the keys if they have changed since it was asked before. What keys this process has had
    still open, because it may have read something just before it was sealed again.
    """

    def __init__(self, keys: Keys, *, newer: Callable[[], Keys | None] = _no_newer) -> None:
        """Take the keys.

        Raises:
            ConfigurationError: there is no key, or one is not 32 bytes of url-safe base64.
        """
        self._newer = newer
        self._changing = threading.Lock()
        self._use(keys)

    def _use(self, keys: Keys) -> None:
        if not keys:
            raise errors.ConfigurationError("SLURPER_SECRET_KEY holds no key")
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
        except ValueError as error:
            raise errors.ConfigurationError(
                "SLURPER_SECRET_KEY must be one or more comma-separated Fernet keys "
                "(32 bytes, url-safe base64)"
            ) from error
        self._keys = keys

    def _refresh(self) -> None:
        """Take newer keys, if there are some. Transactions call this from several threads."""
        with self._changing:
            newer = self._newer()
            if newer is not None:
                kept = tuple(key for key in self._keys if key not in newer)
                with contextlib.suppress(errors.ConfigurationError):  # damaged: we have good ones
                    self._use(newer + kept)

    def seal(self, secrets: JobSecrets) -> bytes:
        """Return the sealed form of both sides' credentials."""
        self._refresh()
        plain = {"source": _to_json(secrets.source), "target": _to_json(secrets.target)}
        return self._fernet.encrypt(json.dumps(plain).encode())

    def digests(self, plain: Iterable[bytes]) -> tuple[bytes, ...]:
        """Return a digest of the pieces of `plain` by each key; the key in use comes first.

        Without the key, the secrets in `plain` cannot be found out by trying values.
        """
        self._refresh()
        macs = [hmac.new(key.encode(), b"slurper digest\0", "sha256") for key in self._keys]
        for piece in plain:
            for mac in macs:
                mac.update(piece)
        return tuple(mac.digest() for mac in macs)

    def open(self, sealed: bytes) -> JobSecrets:
        """Return the secrets that were sealed.

        Raises:
            ConfigurationError: none of the keys sealed this value.
        """
        plain = json.loads(self._decrypted(sealed))
        return JobSecrets(source=_from_json(plain["source"]), target=_from_json(plain["target"]))

    def is_newest(self, sealed: bytes) -> bool:
        """Whether the key in use has sealed this value."""
        try:
            Fernet(self._keys[0]).decrypt(sealed)
        except InvalidToken:
            return False
        return True

    def resealed(self, sealed: bytes) -> bytes:
        """Return the same secrets, sealed with the key in use.

        Raises:
            ConfigurationError: none of the keys sealed this value.
        """
        return self._fernet.encrypt(self._decrypted(sealed))

    def _decrypted(self, sealed: bytes) -> bytes:
        with contextlib.suppress(InvalidToken):
            return self._fernet.decrypt(sealed)
        self._refresh()
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken as error:
            raise errors.ConfigurationError(
                "the stored credentials were sealed with another key; "
                "restore the key file or SLURPER_SECRET_KEY that was in use"
            ) from error


def _to_json(credentials: Credentials) -> dict[str, str | None]:
    kind = "s3" if isinstance(credentials, S3Credentials) else "gcs"
    fields = {name: getattr(credentials, name) for name in type(credentials).__slots__}
    return {"kind": kind, **fields}


def _from_json(plain: Mapping[str, str]) -> Credentials:
    fields = {name: value for name, value in plain.items() if name != "kind"}
    return _KINDS[plain["kind"]](**fields)
