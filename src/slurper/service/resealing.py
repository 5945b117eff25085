"""Seals the credentials of all jobs with the newest key. Services may use the database meanwhile.

Each piece is a transaction. So what was done stays done after a crash, and to begin again does no
harm: rows that the newest key has sealed are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from slurper import errors
from slurper.database.connection import Database
from slurper.database.sealing import SealedRow, SealedStore
from slurper.secrets import Sealer


@dataclass(frozen=True, slots=True, kw_only=True)
class Resealed:
    """What was found in the database."""

    changed: int
    """How many jobs have their credentials sealed with the newest key now, and had not before."""
    unopened: int
    """How many jobs have credentials that no key opens. They cannot be used anyway."""


async def reseal(database: Database, sealer: Sealer) -> Resealed:
    """Seal everything with the newest key. After that, no other key is needed.

    The newest key must be the first one for every process that uses the database.

    Raises:
        DatabaseUnavailable: what was done so far stays done.
    """
    store = SealedStore(database)
    await store.outlive_older()
    changed = unopened = last = 0
    while piece := await store.after(last):
        last = piece[-1].number
        pairs = []
        for row in piece:
            if sealer.is_newest(row.sealed):
                continue
            sealed = _resealed(sealer, row)
            if sealed is None:
                unopened += 1
            else:
                pairs.append((row, sealed))
        changed += await store.replace(pairs) if pairs else 0
    return Resealed(changed=changed, unopened=unopened)


def _resealed(sealer: Sealer, row: SealedRow) -> bytes | None:
    try:
        return sealer.resealed(row.sealed)
    except errors.ConfigurationError:
        return None
