"""Checks that a page of a listing is the one that was asked for, by the parameters it repeats.

A cache, a proxy or a connection that is out of step can mix up two answers. A wrong page from later
in the listing looks right: its keys are in order and under the prefix. But all keys before them
would be missed. Most stores repeat the parameters of the request, and these must be what was asked.
A parameter that is left out or empty tells nothing. A store may repeat it in its own spelling
(decision 0021).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from slurper import errors
from slurper.objectstore import urls
from slurper.objectstore.texts import quoted


@dataclass(frozen=True, slots=True)
class Asked:
    """What a page of a listing was asked for."""

    prefix: str = ""
    start_after: str | None = None
    max_keys: int | None = None
    """The longest page that was asked for; None: the store's own longest."""
    token: str = ""
    """The token that the page before named; empty: none is sent."""
    bucket: str = ""
    """The name that the store uses for the bucket; empty: the name is not compared."""
    version: int = 2
    """The version of ListObjects."""


class OtherBucketError(errors.ListingError):
    """The page names another bucket. Some stores and proxies do that on every page."""

    def __init__(self, name: str, bucket: str) -> None:
        super().__init__(f"the listing of bucket {bucket!r} is one of bucket {quoted(name)}")
        self.name = name


def begins_as_asked(summary: Mapping[str, str], rows: int, asked: Asked) -> bool:
    """Check a page; return whether it repeats the key or the token with which it begins.

    `summary` holds the text of the page's elements. `rows` is how many objects the page shows.

    Raises:
        ListingError: it is another page, or only a part of one.
    """
    _compare_name(summary.get("Name", ""), asked.bucket)
    _compare("prefix", summary.get("Prefix", ""), asked.prefix)
    token = summary.get("ContinuationToken", "")
    if token not in ("", asked.token):
        raise errors.ListingError("the listing goes on with a token that was not sent")
    if summary.get("Delimiter") or summary.get("CommonPrefixes"):
        raise errors.ListingError("the listing is one of folders, which was not asked for")
    _compare_count(summary.get("KeyCount", ""), rows, asked.max_keys)
    # Version 2 of the request knows StartAfter, version 1 Marker.
    begin = summary.get("StartAfter", "") or summary.get("Marker", "")
    if not (begin and asked.token):  # with a token, the marker may be that token or an earlier key
        _compare("place", begin, asked.start_after or "")
    return bool(begin or token)


def _compare_name(name: str, bucket: str) -> None:
    if name and bucket and name != bucket:
        raise OtherBucketError(name, bucket)


def _compare(what: str, repeated: str, asked: str) -> None:
    if not repeated or repeated == asked:
        return
    decoded = urls.unquoted(repeated)
    if asked not in (repeated, decoded) and _letters(asked) not in map(
        _letters, (repeated, decoded)
    ):
        raise errors.ListingError(
            f"the listing is of another {what}: asked was {asked!r}, it says {quoted(decoded)}"
        )


def _compare_count(counted: str, rows: int, max_keys: int | None) -> None:
    """Refuse a page that shows fewer rows than it counts.

    A count above `max_keys` is ignored: some stores count all keys that are left.
    """
    if not (counted.isascii() and counted.isdecimal()) or len(counted) > 9:
        return
    if rows < int(counted) and (max_keys is None or int(counted) <= max_keys):
        raise errors.ListingError(f"the listing shows {rows} of the {counted} objects it counts")


def _letters(text: str) -> str:
    """Letters and digits only: stores encode, normalise or drop other characters in many ways."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFC", text)))
