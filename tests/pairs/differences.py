"""Where a copy is known not to arrive as it was: which cases, between which stores, and why.

Each row must be true of each of its cases: one that is not any more fails its test.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from tests.conformance.differences import SEAWEEDFS_KEYS
from tests.pairs.referee import Stored
from tests.pairs.stores import Kind

R2 = (Kind.R2, Kind.R2_ELSEWHERE)
GOOGLE = (Kind.GCS, Kind.FAKEGCS)
S3 = (Kind.S3, Kind.SEAWEEDFS)
TEXTUAL = (*S3, *R2)
"""Metadata are headers there."""
ANY = (*TEXTUAL, *GOOGLE)

_TOO_MUCH = ("metadata-more-than-r2-holds", "metadata-more-than-r2-holds-in-parts")
_NOT_AT_GOOGLE = ("key-newline", "key-parent", "key-own")
Described = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Unheld:
    """A store that cannot keep an object."""

    at: tuple[Kind, ...]
    cases: tuple[str, ...]
    why: str


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
    Unheld(GOOGLE, _NOT_AT_GOOGLE, "Google refuses to name an object so"),
    Unheld(GOOGLE, ("headers-expires",), "Google keeps no such header"),
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
