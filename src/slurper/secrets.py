"""Credentials that do not show their secrets, and their sealing for storage (design rule 11)."""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

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


class Sealer:
    """Seals job secrets with authenticated encryption (Fernet: AES-128-CBC + HMAC-SHA256).

    The first key seals; every key opens. So keys are rotated by putting a new one first.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        """Take url-safe base64 Fernet keys.

        Raises:
            ConfigurationError: there is no key, or one is not 32 bytes of url-safe base64.
        """
        if not keys:
            raise errors.ConfigurationError("SLURPER_SECRET_KEY holds no key")
        self._keys = keys
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
        except ValueError as error:
            raise errors.ConfigurationError(
                "SLURPER_SECRET_KEY must be one or more comma-separated Fernet keys "
                "(32 bytes, url-safe base64)"
            ) from error

    @classmethod
    def from_file(cls, path: Path) -> Sealer:
        """Read the key file at `path`. Make it with mode 0600 if it is missing.

        Raises:
            ConfigurationError: it cannot be read or made, or holds no usable key.
        """
        try:
            if not path.exists():
                _create_key_file(path)
            keys = tuple(path.read_text().split())
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise errors.ConfigurationError(
                f"cannot use the key file {path}: {reason}; check the space and permissions of its "
                "folder, or set SLURPER_SECRET_KEY"
            ) from error
        if not keys:
            raise errors.ConfigurationError(
                f"the key file {path} is empty; restore it, or remove it to begin with a new key "
                "(credentials sealed with the old one are then lost)"
            )
        return cls(keys)

    def seal(self, secrets: JobSecrets) -> bytes:
        """Return the sealed form of both sides' credentials."""
        plain = {"source": _to_json(secrets.source), "target": _to_json(secrets.target)}
        return self._fernet.encrypt(json.dumps(plain).encode())

    def digests(self, plain: Iterable[bytes]) -> tuple[bytes, ...]:
        """Return a digest of the pieces of `plain` by each key; the key in use comes first.

        Without the key, the secrets in `plain` cannot be found out by trying values.
        """
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
        try:
            plain = json.loads(self._fernet.decrypt(sealed))
        except InvalidToken as error:
            raise errors.ConfigurationError(
                "the stored credentials were sealed with another key; "
                "restore the key file or SLURPER_SECRET_KEY that was in use"
            ) from error
        return JobSecrets(source=_from_json(plain["source"]), target=_from_json(plain["target"]))


def _create_key_file(path: Path) -> None:
    """Make the file completely or not at all. If several processes try, one of them makes it."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-") as file:
        file.write(Fernet.generate_key().decode() + "\n")
        file.flush()
        os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first; its key counts
            os.link(file.name, path)


def _to_json(credentials: Credentials) -> dict[str, str | None]:
    kind = "s3" if isinstance(credentials, S3Credentials) else "gcs"
    fields = {name: getattr(credentials, name) for name in type(credentials).__slots__}
    return {"kind": kind, **fields}


def _from_json(plain: Mapping[str, str]) -> Credentials:
    fields = {name: value for name, value in plain.items() if name != "kind"}
    return _KINDS[plain["kind"]](**fields)
