"""API tokens: shown once, kept as hashes.

A token is 256 random bits. So nobody can find it from its plain SHA-256. Slow password hashes are
needed only for secrets that people choose.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, exc, insert, select

from slurper import errors
from slurper.database.connection import Store, reads, writes
from slurper.database.schema import tokens

_PREFIX = "slurper_"
"""It shows secret scanners, and people, what they have found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInfo:
    """What may be shown of a token: everything except the token itself."""

    name: str
    account_id: str | None
    """None: the token is good for every account."""
    created_at: datetime


class TokenStore(Store):
    """The tokens that the API accepts, in addition to the one in the settings."""

    @writes
    def create(self, connection: Connection, name: str, account_id: str | None = None) -> str:
        """Make a token for one account (None: for every account). It is returned only this once.

        Raises:
            ConfigurationError: the name is empty or in use.
        """
        if not name:
            raise errors.ConfigurationError("a token needs a name to be listed and revoked by")
        token = _PREFIX + secrets.token_urlsafe(32)
        values = {
            "name": name,
            "account_id": account_id,
            "sha256": _hash(token),
            "created_at": datetime.now(UTC),
        }
        try:
            connection.execute(insert(tokens), [values])
        except exc.IntegrityError as error:
            raise errors.ConfigurationError(
                f"a token named {name!r} exists; choose another name or revoke that one first"
            ) from error
        return token

    @reads
    def verify(self, connection: Connection, token: str, account_id: str) -> bool:
        """Whether `token` may act for the account."""
        digest = _hash(token)
        query = select(tokens.c.sha256, tokens.c.account_id).where(tokens.c.sha256 == digest)
        row = connection.execute(query).one_or_none()
        # The time of the index look-up may tell how much of a *hash* matched. That helps nobody to
        # make a token. The comparison itself takes the same time for every hash.
        if row is None or not hmac.compare_digest(bytes(row.sha256), digest):
            return False
        return row.account_id is None or row.account_id == account_id

    @reads
    def list(self, connection: Connection) -> tuple[TokenInfo, ...]:
        """Return all tokens by name."""
        query = select(tokens).order_by(tokens.c.name)
        found = connection.execute(query)
        return tuple(
            TokenInfo(name=row.name, account_id=row.account_id, created_at=row.created_at)
            for row in found
        )

    @writes
    def revoke(self, connection: Connection, name: str) -> bool:
        """Make a token void at once; False when no token has this name."""
        gone = connection.execute(delete(tokens).where(tokens.c.name == name))
        return gone.rowcount == 1


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
