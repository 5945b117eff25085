"""Keeps the answers to requests that made a job, so that a repeated request gets the same answer.

A client that got no answer sends its request again. Without this module, each of them would make a
job. Cloudflare's SDKs mark a repeated request in a header. Other clients can give a request a key
(`Delivery`). The transaction that makes the job first looks for a row, and writes it. So only one
of several requests at the same time makes a job. The row stays when the job is deleted: a user who
deleted the job does not want it again.

Only keyed digests of a request are kept, because a request holds secrets. A plain digest would let
somebody guess a secret and check the guess.
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
"""How long a request is recognised by its body. An SDK stops trying earlier."""

KEY_SECONDS = 86_400
"""How long a request is recognised by its key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that makes a job, and what it is recognised by."""

    account_id: str
    digests: tuple[bytes, ...]
    """Digests of the whole request: one for each secret key of the server, the newest first."""
    key: str | None
    retries: int
    """How often the request was sent before, as it says itself."""
    at: datetime
    """When it came, by the database's clock."""

    @property
    def name(self) -> bytes:
        """The name under which its answer is stored."""
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
    # The client may have given up this first request while its stores were checked, and sent it
    # again. Then the repeated request may be answered first.
    is_overtaken = found.retries > asked.retries and found.answered_at >= asked.at
    return job_id if asked.retries or is_overtaken else None


def once(connection: Connection, asked: Asked | None, make: Callable[[], str]) -> str:
    """Return the job that the request has made already; else make the job, and note it.

    `asked` None: the request will not be sent again. The caller holds the account's lock.

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
    """Note which job the request has made. This replaces an earlier note for the same request."""
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


def _is_kept(asked: Asked) -> ColumnElement[bool]:
    """Judge by the time when the request came: no answer expires while the stores are checked."""
    return answers.c.kept_until > asked.at
