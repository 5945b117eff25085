"""AWS Signature Version 4 in the steps that AWS describes; the package's `Signer` joins them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from slurper.objectstore.s3.signing import ALGORITHM, trimmed


def canonical_request(
    method: str, path: str, query: str, headers: Mapping[str, str], payload_hash: str
) -> bytes:
    """Build what is hashed into the signature.

    Args:
        method: HTTP method.
        path: Encoded path, exactly as on the wire.
        query: Result of `urls.canonical_query`.
        headers: All headers to sign: lower-case names, values with one character per byte.
        payload_hash: Hex SHA-256 of the body, or `UNSIGNED_PAYLOAD`.
    """
    names = sorted(headers)
    block = "".join(f"{name}:{trimmed(headers[name])}\n" for name in names)
    text = f"{method}\n{path}\n{query}\n{block}\n{';'.join(names)}\n{payload_hash}"
    return text.encode("latin-1")


def string_to_sign(amz_date: str, scope: str, canonical: bytes) -> str:
    """Combine the time (`20130524T000000Z`), the scope and the canonical request's hash."""
    return f"{ALGORITHM}\n{amz_date}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}"


def signature(key: bytes, text: str) -> str:
    """Sign the string to sign; hexadecimal."""
    return hmac.digest(key, text.encode(), "sha256").hex()
