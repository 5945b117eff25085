"""What requests that made a job were answered, so that each gets the same answer when sent again.

A client whose answer was lost sends its request again, and each of them would make a job.
Cloudflare's SDKs say so in a header; other clients can give a request a key (`Delivery`). A row is
written in the transaction that makes the job, and looked for in the same one, so of requests that
come at the same time one makes it. The row outlives the job: a user who deleted the job does not
want it again.

Only keyed digests of a request are kept. A request holds secrets, and nobody shall be able to try
secrets out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, delete, insert, select

from slurper import errors
from slurper.database import clock
from slurper.database.schema import answers

RETRY_SECONDS = 600
"""How long a request is recognised by its body: longer than an SDK goes on trying."""

KEY_SECONDS = 86_400
"""How long it is recognised by its key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that makes a job, and what it is recognised by."""

    account_id: str
    digests: tuple[bytes, ...]
    """Of the whole request, one by each secret key of the server; the key in use comes first."""
    key: str | None
    retries: int
    """How often it had been sent before, as it says itself."""
    at: datetime
    """When it came, by the database's clock."""

    @property
    def name(self) -> bytes:
        """What its answer is kept under."""
        if self.key is None:
            return self.digests[0]
        return hashlib.sha256(self.key.encode()).digest()


def find(connection: Connection, asked: Asked) -> str | None:
    """Return the job that this request has made already, or None.

    Raises:
        KeyReused: its key came with another request.
    """
    names = asked.digests if asked.key is None else (asked.name,)
    found = connection.execute(
        select(answers)
        .where(answers.c.account_id == asked.account_id, answers.c.name.in_(names), _is_kept(asked))
        .order_by(answers.c.answered_at.desc())
        .limit(1)
    ).one_or_none()
    if found is None:
        return None
    job_id: str = found.job_id
    if asked.key is not None:
        if bytes(found.digest) not in asked.digests:
            raise errors.KeyReused("came before, with another request; give each request its own")
        return job_id
    # The client may have given up the first request while the stores were checked: it ends last.
    is_overtaken = found.retries > asked.retries and found.answered_at >= asked.at
    return job_id if asked.retries or is_overtaken else None


def once(connection: Connection, asked: Asked | None, make: Callable[[], str]) -> str:
    """Return the job that the request has made already; else make it, and note that.

    `asked` None stands for a request that nobody sends again. The caller holds the account's lock.

    Raises:
        KeyReused: as `find` says.
    """
    if asked is None:
        return make()
    job_id = find(connection, asked)
    if job_id is None:
        job_id = make()
        _keep(connection, asked, job_id)
    return job_id


def _keep(connection: Connection, asked: Asked, job_id: str) -> None:
    """Note which job the request has made, in place of what was noted for the same request."""
    at = clock.now(connection)
    seconds = RETRY_SECONDS if asked.key is None else KEY_SECONDS
    this = (answers.c.account_id == asked.account_id, answers.c.name == asked.name)
    connection.execute(delete(answers).where(*this))
    row = {
        "account_id": asked.account_id,
        "name": asked.name,
        "digest": asked.digests[0],
        "retries": asked.retries,
        "job_id": job_id,
        "answered_at": at,
        "kept_until": at + timedelta(seconds=seconds),
    }
    connection.execute(insert(answers), [row])


def forget(connection: Connection) -> int:
    """Delete the answers whose time is over; return how many."""
    due = delete(answers).where(answers.c.kept_until <= clock.now(connection))
    return connection.execute(due).rowcount


def _is_kept(asked: Asked) -> ColumnElement[bool]:
    """At the time when the request came, so that none expires while the stores are checked."""
    return answers.c.kept_until > asked.at
