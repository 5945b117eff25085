"""API tokens: shown once, kept as hashes.

A token is 256 random bits. So nobody can find it from its plain SHA-256. Slow password hashes are
needed only for secrets that people choose.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, exc, insert, or_, select, update

from slurper import errors
from slurper.database import clock, job_row
from slurper.database.connection import Store, reads, writes
from slurper.database.schema import jobs, tokens
from slurper.job import rules
from slurper.job.access import STATIC, Scope
from slurper.job.lifecycle import Command
from slurper.job.model import Job

USE_SECONDS = 60
"""The time of the last use is not written more often than this."""

_PREFIX = "slurper_"
"""It shows secret scanners, and people, what they have found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInfo:
    """What may be shown of a token: everything except the token itself."""

    name: str
    accounts: tuple[str, ...] | None
    """None: the token is good for every account."""
    scope: Scope
    created_at: datetime
    expires_at: datetime | None
    """None: it is good until it is revoked."""
    has_expired: bool
    """By the clock that all servers share, when this was read."""
    used_at: datetime | None
    """When it was last used, to within a minute. None: never, or not since this is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """What came of revoking a token."""

    aborted: int
    """How many jobs were aborted with it."""


class TokenStore(Store):
    """The tokens that the API accepts, in addition to the one in the settings."""

    @writes
    def create(
        self,
        connection: Connection,
        name: str,
        accounts: tuple[str, ...] | None = None,
        *,
        scope: Scope = Scope.WRITE,
        expires: timedelta | datetime | None = None,
    ) -> str:
        """Make a token for some accounts (None: for every account). It is returned only this once.

        Raises:
            InvalidField: the name, or the id of an account, cannot be one.
            ConfigurationError: the name is in use, or scope or expiry cannot be meant.
        """
        with rules.below("/name"):
            rules.token_name(name)
        with rules.below("/account"):
            listed = None if accounts is None else sorted(set(map(rules.account_id, accounts)))
        if scope is Scope.ADMIN and listed is not None:
            raise errors.ConfigurationError(
                "a token of scope admin is for every account; name none, or choose scope write"
            )
        now = clock.now(connection)
        expires_at = now + expires if isinstance(expires, timedelta) else expires
        if expires_at is not None and expires_at <= now:
            raise errors.ConfigurationError(
                f"the token would have expired already, on {expires_at:%Y-%m-%d}; choose a later "
                "date, or a time such as 30d"
            )
        token = _PREFIX + secrets.token_urlsafe(32)
        values = {
            "name": name,
            "sha256": sha256_of(token),
            "created_at": now,
            "accounts": listed,
            "scope": scope.value,
            "expires_at": expires_at,
        }
        try:
            connection.execute(insert(tokens), [values])
        except exc.IntegrityError as error:
            raise errors.ConfigurationError(
                f"a token named {name!r} exists; choose another name or revoke that one first"
            ) from error
        return token

    @reads
    def find(self, connection: Connection, token: str) -> TokenInfo | None:
        """Return what is known of a token; None: no such token exists.

        The caller decides whether its scope, accounts and expiry allow a request.
        """
        digest = sha256_of(token)
        row = connection.execute(select(tokens).where(tokens.c.sha256 == digest)).one_or_none()
        # The time of the index look-up may tell how much of a *hash* matched. That helps nobody to
        # make a token. The comparison itself takes the same time for every hash.
        if row is None or not hmac.compare_digest(bytes(row.sha256), digest):
            return None
        return _to_info(row, clock.now(connection) if row.expires_at else datetime.now(UTC))

    @reads
    def hashes(self, connection: Connection) -> frozenset[bytes]:
        """Return the hashes of all tokens, as `sha256_of` makes them."""
        return frozenset(map(bytes, connection.scalars(select(tokens.c.sha256))))

    @reads
    def list(self, connection: Connection) -> tuple[TokenInfo, ...]:
        """Return all tokens by name."""
        now = clock.now(connection)
        found = connection.execute(select(tokens).order_by(tokens.c.name))
        return tuple(_to_info(row, now) for row in found)

    @reads
    def exist(self, connection: Connection) -> bool:
        """Whether there is any token."""
        return connection.scalar(select(tokens.c.name).limit(1)) is not None

    @writes
    def note_use(self, connection: Connection, name: str) -> None:
        """Write down that a token is used now, unless that was done in the last minute."""
        now = clock.now(connection)
        is_old = or_(
            tokens.c.used_at.is_(None),
            tokens.c.used_at <= now - timedelta(seconds=USE_SECONDS),
        )
        connection.execute(update(tokens).where(tokens.c.name == name, is_old).values(used_at=now))

    @writes
    def revoke(
        self, connection: Connection, name: str, *, abort_jobs: bool = False
    ) -> Revoked | None:
        """Make a token void at once, and abort the active jobs that it has made, if so asked.

        Returns None when no token has this name.
        """
        gone = delete(tokens).where(tokens.c.name == name).returning(tokens.c.created_at)
        created_at = connection.execute(gone).scalar_one_or_none()
        if created_at is None:
            return None
        return Revoked(aborted=_abort_jobs(connection, name, created_at) if abort_jobs else 0)


def _abort_jobs(connection: Connection, name: str, since: datetime) -> int:
    """Abort the active jobs that a token made. Older ones are of another token of that name."""
    made = (jobs.c.created_by == name, jobs.c.created_at >= since)
    found = job_row.lock_active(connection, *made)
    at = datetime.now(UTC)
    for job in found:
        job.move(Command.ABORT, at)
        job.save()
    return len(found)


def check_creator(connection: Connection, job: Job) -> None:
    """Make sure that the token which makes a job was not revoked since the request came.

    The token's row stays locked until the job is stored. So `revoke` either finds the job, or comes
    first, and then the job is not made.

    Raises:
        TokenRevoked: it was revoked.
    """
    if job.created_by is None or job.created_by == STATIC:
        return
    own = (tokens.c.name == job.created_by, tokens.c.created_at <= job.created_at)
    lock = select(tokens.c.name).where(*own).with_for_update(read=True)
    if connection.scalar(lock) is None:
        raise errors.TokenRevoked("the token was revoked while the request was carried out")


def _to_info(row: Row[*tuple[Any, ...]], now: datetime) -> TokenInfo:
    return TokenInfo(
        name=row.name,
        accounts=None if row.accounts is None else tuple(row.accounts),
        scope=Scope(row.scope),
        created_at=row.created_at,
        expires_at=row.expires_at,
        has_expired=row.expires_at is not None and row.expires_at <= now,
        used_at=row.used_at,
    )


def sha256_of(token: str) -> bytes:
    """Return what is kept of a token, and compared."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
