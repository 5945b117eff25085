"""Rules for the pages of listings.

How long may a page be, when is it asked for again, and which keys may it hold?
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from slurper import errors, offload
from slurper.objectstore.base import ListingPage, UploadMeta
from slurper.objectstore.dialects import KeyOrder
from slurper.objectstore.texts import quoted

MAX_DOCUMENT_BYTES = 16 << 20
"""Far more than a page of a thousand keys of 1,024 bytes needs, each byte written as %XX."""

MAX_SHARED_BYTES = 4 << 20
"""As much as such a page needs. Longer ones are refused where the event loop answers others too."""

FEW_KEYS = 20
MAX_BYTES_OF_FEW = 256 << 10
"""Far more than a page of `FEW_KEYS` needs. A longer answer is none to the question."""

_READ_AT_ONCE_BYTES = 32 << 10
"""Reading so much takes a few milliseconds, whatever it holds."""
MAX_KEY_BYTES = 2_500
"""More than any store allows; most allow 1,024. The database's indexes hold keys up to this length.
"""

ASKS = 3
"""After so many bad answers for one page, the listing is given up."""

AGAIN_PAUSE_SECONDS = 0.2
"""Pause before the last try, so that the fault may pass."""


OWN_ORDERS = (KeyOrder.OWN, KeyOrder.NONE)
"""Orders in which two keys cannot be compared."""


Read = TypeVar("Read")


def most_bytes(max_keys: int | None, *, answers_others: bool) -> int:
    """How long the answer to a request for `max_keys` keys may be; None: for a whole page."""
    if max_keys is not None and max_keys <= FEW_KEYS:
        return MAX_BYTES_OF_FEW
    return MAX_SHARED_BYTES if answers_others else MAX_DOCUMENT_BYTES


def too_large(max_keys: int | None, error: errors.IntegrityError) -> errors.ListingError:
    """The error for an answer that is longer than `most_bytes`."""
    most = "" if max_keys is None else f" of at most {max_keys} key{'s' * (max_keys != 1)}"
    return errors.ListingError(f"the listing{most} is too large to be one: {error}")


async def read(reader: Callable[[], Read], size: int, *, answers_others: bool) -> Read:
    """Return what `reader` makes of a document of `size` bytes.

    A long document is read in a thread, if the event loop answers others too. The readers never
    hold the interpreter for long, because they take a document piece by piece.
    """
    return await offload.run(reader, is_long=answers_others and size > _READ_AT_ONCE_BYTES)


async def asked_again(
    ask: Callable[[bool], Awaitable[ListingPage]], *, may_wait: bool
) -> ListingPage:
    """Return the first valid page; `ask` is told whether it has asked before.

    `may_wait`: there is a pause before the last try. A store that is opened without retries has
    none, because some errors are expected of it.

    Raises:
        ListingError: no answer of `ASKS` was valid.
    """
    for asked in range(ASKS - 1):
        try:
            return await ask(asked > 0)
        except errors.ListingError:
            if may_wait:
                await asyncio.sleep(AGAIN_PAUSE_SECONDS * asked)
    return await ask(True)


def check_keys(
    keys: Sequence[str], prefix: str, start_after: str | None, order: KeyOrder = KeyOrder.BYTES
) -> None:
    """Refuse keys that a listing of `prefix` after `start_after` cannot hold.

    Raises:
        ListingError: a key is empty, far too long, or not under `prefix`. OutOfOrder: the keys are
            not strictly increasing in `order`, or not after `start_after`. NoOrder: in
            `KeyOrder.OWN`, a key comes again.
    """
    if not keys:
        return
    if not all(keys):
        raise errors.ListingError("the listing holds an object without a key")
    if max(map(len, keys)) * 4 > MAX_KEY_BYTES:
        _check_lengths(keys)
    if order in OWN_ORDERS:
        _check_prefix(keys, prefix)
        if order is KeyOrder.OWN:
            _check_own_order(keys, start_after)
        return
    ranks = keys if order is KeyOrder.BYTES else list(map(order.rank, keys))
    if start_after is not None and ranks[0] <= order.rank(start_after):
        text = f"the listing after {quoted(start_after)} begins with {quoted(keys[0])}"
        raise errors.OutOfOrder(text, start_after, keys[0])
    if not all(map(operator.lt, ranks, ranks[1:])):
        at = next(i for i, pair in enumerate(pairwise(ranks)) if not pair[0] < pair[1])
        text = f"the listing shows {quoted(keys[at + 1])} after {quoted(keys[at])}"
        raise errors.OutOfOrder(text, keys[at], keys[at + 1])
    # The keys are sorted: a prefix of both the first and the last is a prefix of all.
    if not (keys[0].startswith(prefix) and keys[-1].startswith(prefix)):
        raise errors.ListingError(
            f"the listing of {prefix!r} reaches from {quoted(keys[0])} to {quoted(keys[-1])}"
        )


def _check_lengths(keys: Sequence[str]) -> None:
    for key in keys:
        size = len(key.encode("utf-8", "surrogateescape"))
        if size > MAX_KEY_BYTES:
            raise errors.ListingError(
                f"the listing shows a key of {size:,} bytes, which begins {key[:64]!r}; no store "
                f"holds keys of more than {MAX_KEY_BYTES:,}"
            )


def _check_prefix(keys: Sequence[str], prefix: str) -> None:
    strange = next((key for key in keys if not key.startswith(prefix)), None)
    if strange is not None:
        raise errors.ListingError(f"the listing of {prefix!r} shows {quoted(strange)}")


def _check_own_order(keys: Sequence[str], start_after: str | None) -> None:
    """Refuse a key that comes twice."""
    seen = {start_after}
    for key in keys:
        if key in seen:
            raise errors.NoOrder(f"the listing after {start_after!r} shows {quoted(key)} again")
        seen.add(key)


@dataclass(frozen=True, slots=True)
class UploadsPage:
    """One ListMultipartUploads response."""

    uploads: list[UploadMeta]
    following: tuple[str, str] | None
    """Key marker and upload id marker of the next page; None: there is none."""


async def every_upload(
    read: Callable[[Sequence[tuple[str, str]]], Awaitable[UploadsPage]], prefix: str
) -> list[UploadMeta]:
    """Read every page; return the multipart uploads for keys of `prefix`.

    `read` asks for one page.
    """
    found: dict[str, UploadMeta] = {}
    following: tuple[str, str] | None = ("", "")
    while following is not None:
        key_marker, id_marker = following
        # encoding-type is not sent: some stores repeat it in this answer, but encode nothing.
        wanted = {"prefix": prefix, "key-marker": key_marker, "upload-id-marker": id_marker}
        page = await read([("uploads", ""), *((k, v) for k, v in wanted.items() if v)])
        new = [upload for upload in page.uploads if upload.upload_id not in found]
        found |= {upload.upload_id: upload for upload in new}
        following = page.following if new else None  # some stores send the same pages forever
    return [upload for upload in found.values() if upload.key.startswith(prefix)]
