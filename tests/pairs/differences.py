"""Where a copy is known not to arrive as it was: which cases, between which stores, and why.

Each row must be true of each of its cases: one that is not any more fails its test.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import TypeVar

from tests.conformance.differences import SEAWEEDFS_KEYS
from tests.pairs.referee import HEADERS, Stored
from tests.pairs.stores import Kind

R2 = (Kind.R2, Kind.R2_ELSEWHERE)
GOOGLE = (Kind.GCS, Kind.FAKEGCS)
JUICEFS = (Kind.JUICEFS, Kind.JUICEFS_PLAIN)
S3 = (Kind.S3, Kind.SEAWEEDFS, *JUICEFS, Kind.RCLONE, Kind.CEPH, Kind.SWIFT)
TEXTUAL = (*S3, *R2)
"""Metadata are headers there."""
ANY = (*TEXTUAL, *GOOGLE)

_TOO_MUCH = ("metadata-more-than-r2-holds", "metadata-more-than-r2-holds-in-parts")
_REWRITTEN = ("key-empty-segment", "key-leading-slash", "key-marker")
_REFUSED = ("key-parent-segment", "key-own-segment", "key-parent", "key-own")
_NOT_AT_GOOGLE = ("key-newline", "key-parent", "key-own")
Described = Mapping[str, str]


SEEN_LATER = ("key-control", "key-newline", "key-tab")
"""At once they are listed at rclone as they were written."""
FOLDERS = (Kind.SEAWEEDFS, *JUICEFS, Kind.RCLONE)
"""They keep files in folders, and so not every key."""


@dataclass(frozen=True, slots=True)
class Unheld:
    """A store that cannot keep an object."""

    at: tuple[Kind, ...]
    cases: tuple[str, ...]
    why: str


def _none(_: Described) -> Described:
    return {}


def _dashed(metadata: Described) -> Described:
    return {name.replace("_", "-"): value for name, value in metadata.items()}


@dataclass(frozen=True, slots=True)
class Dropped:
    """What stores do not keep of any object, without a word: no reader sees it."""

    at: tuple[Kind, ...]
    headers: tuple[str, ...]
    why: str
    instead: Described = field(default_factory=dict)
    """Headers that a reader is told."""
    metadata: Callable[[Described], Described] = dict

    def of(self, stored: Stored) -> Stored:
        """What remains of an object."""
        headers = {n: v for n, v in stored.headers.items() if n not in self.headers}
        return Stored(stored.body, {**headers, **self.instead}, self.metadata(stored.metadata))


@dataclass(frozen=True, slots=True)
class Failing:
    """Objects that fail, each alone, with a message that says why."""

    source: tuple[Kind, ...]
    target: tuple[Kind, ...]
    cases: tuple[str, ...]
    says: str
    """A pattern."""
    why: str


@dataclass(frozen=True, slots=True)
class Changed:
    """Objects that arrive otherwise than they were."""

    source: tuple[Kind, ...]
    target: tuple[Kind, ...]
    cases: tuple[str, ...]
    why: str
    key: Callable[[str], str] = str
    headers: Callable[[Described], Described] = dict
    metadata: Callable[[Described], Described] = dict

    def into(self, stored: Stored) -> Stored:
        """What a reader of the target sees."""
        return Stored(stored.body, self.headers(stored.headers), self.metadata(stored.metadata))


def _word(text: str) -> str:
    return f"=?UTF-8?B?{base64.b64encode(text.encode()).decode()}?="


Row = TypeVar("Row")

UNHELD = (
    Unheld(
        TEXTUAL,
        (
            "metadata-line-break",
            "metadata-name-with-a-space",
            "metadata-names-that-differ-in-case",
            "metadata-blanks",
            "metadata-blanks-in-parts",
        ),
        "metadata are HTTP headers there, and no header can be that",
    ),
    Unheld(
        TEXTUAL,
        ("metadata-letters", "metadata-letters-in-parts"),
        "boto3, by which the bucket is filled, writes metadata in ASCII only",
    ),
    Unheld(
        (Kind.SEAWEEDFS,),
        tuple(f"key-{name}" for name in SEAWEEDFS_KEYS),
        "SeaweedFS keeps files in folders",
    ),
    Unheld(R2, ("key-nfd",), "to R2 it is the key of key-nfc"),
    Unheld(R2, _TOO_MUCH, "R2 holds 8,192 bytes of metadata"),
    Unheld(
        (*JUICEFS, Kind.RCLONE),
        (*_REWRITTEN, *_REFUSED),
        "they keep files in folders",
    ),
    Unheld((Kind.RCLONE,), ("key-longest",), "a name of a file takes 255 bytes"),
    Unheld((Kind.RCLONE,), SEEN_LATER, "rclone lists another character, when it looks again"),
    Unheld(
        (*JUICEFS, Kind.RCLONE, Kind.SWIFT),
        ("metadata-as-much-as-r2-holds", *_TOO_MUCH),
        "they hold less metadata than that",
    ),
    Unheld(GOOGLE, _NOT_AT_GOOGLE, "Google refuses to name an object so"),
    Unheld(GOOGLE, ("headers-expires",), "Google keeps no such header"),
)
DROPPED = (
    Dropped(
        (Kind.JUICEFS,),
        ("content-encoding", "content-language", "expires"),
        "the gateway keeps Content-Type, Content-Disposition, Cache-Control and metadata",
    ),
    Dropped(
        (Kind.JUICEFS_PLAIN,),
        tuple(HEADERS),
        "without --object-meta the gateway keeps bytes only",
        instead={"content-type": "application/octet-stream"},
        metadata=_none,
    ),
    Dropped((Kind.RCLONE,), ("expires",), "rclone keeps no such header"),
    Dropped((Kind.CEPH,), (), "Ceph writes names of metadata with dashes", metadata=_dashed),
)
FAILING = (
    Failing(ANY, GOOGLE, _NOT_AT_GOOGLE, "Invalid object name", "Google refuses the name"),
    Failing(
        (*S3, *GOOGLE),
        R2,
        ("key-nfd",),
        r"the target keeps 'u\\u0308' and '\\xfc' as one object",
        "R2 keeps keys in Unicode's form NFC: one of the two must not replace the other",
    ),
    Failing(
        (Kind.S3,),
        (Kind.SEAWEEDFS,),
        tuple(f"key-{name}" for name in SEAWEEDFS_KEYS),
        "the target does not keep keys|cannot keep both",
        "SeaweedFS would rewrite the key, drop the bytes, or refuse it",
    ),
    Failing(
        (Kind.S3, Kind.CEPH),
        JUICEFS,
        (*_REWRITTEN, *_REFUSED),
        "the target (does not keep|keeps objects as files in folders)",
        "they would rewrite the key, drop the bytes, or refuse it",
    ),
    Failing(
        (Kind.S3, Kind.CEPH),
        (*JUICEFS, Kind.SWIFT),
        ("metadata-as-much-as-r2-holds", *_TOO_MUCH),
        "answered HTTP 400( MetadataTooLarge|;)",
        "they hold less metadata",
    ),
    Failing(
        (*S3, *GOOGLE),
        R2,
        _TOO_MUCH,
        "8193 bytes; r2 holds at most 8192",
        "R2's limit",
    ),
    Failing(
        GOOGLE,
        TEXTUAL,
        ("metadata-name-with-a-space",),
        "'a b', which cannot be part of an HTTP header's name",
        "metadata are HTTP headers there, and no header can be named so",
    ),
    Failing(
        GOOGLE,
        TEXTUAL,
        ("metadata-names-that-differ-in-case",),
        "names of its metadata differ in upper and lower case only",
        "the case of a header's name does not count, so that one of them would be lost",
    ),
)
"""That fail alone."""

CHANGED = (
    Changed(
        R2,
        ANY,
        ("key-nfd-alone",),
        "R2 shows the spelling last written, but under its form NFC alone a key is unique",
        key=partial(unicodedata.normalize, "NFC"),
    ),
    Changed(
        GOOGLE,
        ANY,
        ("headers-none",),
        "a reader is told that type of an object without one",
        headers=lambda headers: {**headers, "content-type": "application/octet-stream"},
    ),
    Changed(
        TEXTUAL,
        GOOGLE,
        ("headers-expires",),
        "Google keeps no such header: it becomes metadata, and a header again at S3",
        headers=lambda headers: {n: v for n, v in headers.items() if n != "expires"},
        metadata=lambda _: {"http-expires": "Thu, 01 Jan 2099 00:00:00 GMT"},
    ),
    Changed(
        GOOGLE,
        TEXTUAL,
        ("metadata-upper-case", "metadata-upper-case-in-parts"),
        "the case of a header's name does not count",
        metadata=lambda metadata: {name.lower(): value for name, value in metadata.items()},
    ),
    Changed(
        GOOGLE,
        R2,
        ("metadata-letters", "metadata-letters-in-parts"),
        "R2 hands out text beyond ASCII as words",
        metadata=lambda _: {"text": "=?UTF-8?B?Z3LDvG4g8J+YgA==?="},
    ),
    Changed(
        GOOGLE,
        TEXTUAL,
        ("metadata-line-break",),
        "no header can hold it: words stand for it, which R2 reads as text and hands out as words",
        metadata=lambda _: {"n": "=?UTF-8?B?YQpi?="},
    ),
    Changed(
        GOOGLE,
        TEXTUAL,
        ("metadata-blanks", "metadata-blanks-in-parts"),
        "HTTP drops blanks around a value: words stand for it, as for a line break",
        metadata=lambda metadata: {n: _word(v) for n, v in metadata.items()},
    ),
    Changed(
        GOOGLE,
        S3,
        ("metadata-letters", "metadata-letters-in-parts"),
        "the text arrives in its own bytes, which boto3 reads as ISO 8859-1",
        metadata=lambda metadata: {n: v.encode().decode("latin-1") for n, v in metadata.items()},
    ),
)
"""That arrive otherwise."""


def unheld_at(kind: Kind) -> list[str]:
    """The cases that a store cannot keep."""
    return [case for row in UNHELD if kind in row.at for case in row.cases]


def kept_by(kind: Kind, stored: Stored) -> Stored:
    """What a store keeps of an object."""
    return reduce(lambda kept, row: row.of(kept), (r for r in DROPPED if kind in r.at), stored)


def unheld(kind: Kind, case: str) -> Unheld | None:
    """Whether a store cannot keep a case."""
    return _only([row for row in UNHELD if kind in row.at and case in row.cases])


def difference(source: Kind, target: Kind, case: str) -> Failing | Changed | None:
    """What is to become of a case that the source holds; None if it arrives as it is."""
    return _only(
        [
            row
            for row in (*FAILING, *CHANGED)
            if source in row.source and target in row.target and case in row.cases
        ]
    )


def _only(rows: list[Row]) -> Row | None:
    assert len(rows) <= 1, f"one case, several differences: {rows}"
    return rows[0] if rows else None
