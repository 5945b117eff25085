"""The objects that every pair copies: each is a case, by its name."""

from __future__ import annotations

import gzip
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.conformance.test_object_store import KEYS

MIB = 1 << 20
THRESHOLD, PART = 6 * MIB, 5 * MIB
IN_PARTS = {
    "SLURPER_MULTIPART_THRESHOLD_BYTES": str(THRESHOLD),
    "SLURPER_PART_BYTES": str(PART),
    "SLURPER_WORKERS": "2",
}
"""How the program is to copy them."""


@dataclass(frozen=True, slots=True)
class Thing:
    """An object to be."""

    key: str
    body: bytes = field(default=b"x", repr=False)
    headers: Mapping[str, str] = field(default_factory=lambda: {"ContentType": "text/x-own"})
    """By boto3's names."""
    metadata: Mapping[str, str] = field(default_factory=dict)


def _bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # noqa: S311 - repeatable bytes


def _zipped(size: int) -> bytes:
    return gzip.compress(_bytes(size), compresslevel=0, mtime=0)


FULL = {
    "CacheControl": "max-age=60, public",
    "ContentDisposition": 'attachment; filename="a  b.txt"',
    "ContentEncoding": "x-own",
    "ContentLanguage": "de, en",
    "ContentType": "text/x-odd; charset=utf-8",
}
"""Content headers by boto3's names."""
GZIP = {"ContentEncoding": "gzip", "ContentType": "text/plain"}

_KEYS = {
    **KEYS,  # `nfc` and `nfd` among them are the same text
    "beside-marker": "marker",
    "nfd-alone": "alone-u\u0308",
}

_HEADERS = {
    "full": FULL,
    "none": {},
    "expires": {"Expires": "Thu, 01 Jan 2099 00:00:00 GMT", "ContentType": "a/b"},
}

_METADATA = {
    "plain": {"plain": "value", "under_score": "a=b;c:d,%41", "spaces": "a   b"},
    "words": {"words": "=?UTF-8?B?Z3LDvG4g8J+YgA==?="},
    "upper-case": {"CaSe": "1"},
    "letters": {"text": "gr\u00fcn \U0001f600"},
    "names-that-differ-in-case": {"N": "1", "n": "2"},
    "line-break": {"n": "a\nb"},
    "name-with-a-space": {"a b": "1"},
    "blanks": {"around": " value  ", "only": "  ", "tab": "\tvalue"},
    "as-much-as-r2-holds": {"m": "x" * 8191},
    "more-than-r2-holds": {"m": "x" * 8192},
}

_SIZES = {
    "none": 0,
    "one": 1,
    "a-part": PART,
    "below-the-threshold": THRESHOLD - 1,
    "the-threshold": THRESHOLD,
    "two-parts": 2 * PART,
    "two-parts-and-a-byte": 2 * PART + 1,
}

CASES: dict[str, Thing] = {
    **{f"key-{name}": Thing(key, key.encode()) for name, key in _KEYS.items()},
    **{f"headers-{name}": Thing(f"h/{name}", headers=kept) for name, kept in _HEADERS.items()},
    "headers-full-in-parts": Thing("h/full-in-parts", _bytes(THRESHOLD), FULL, _METADATA["plain"]),
    **{f"metadata-{name}": Thing(f"m/{name}", metadata=kept) for name, kept in _METADATA.items()},
    "metadata-upper-case-in-parts": Thing(
        "m/upper-case-in-parts", _bytes(THRESHOLD + 2), metadata=_METADATA["upper-case"]
    ),
    "metadata-letters-in-parts": Thing(
        "m/letters-in-parts", _bytes(THRESHOLD + 3), metadata=_METADATA["letters"]
    ),
    "metadata-blanks-in-parts": Thing(
        "m/blanks-in-parts", _bytes(THRESHOLD + 5), metadata=_METADATA["blanks"]
    ),
    "metadata-more-than-r2-holds-in-parts": Thing(
        "m/more-than-r2-holds-in-parts",
        _bytes(THRESHOLD + 4),
        metadata=_METADATA["more-than-r2-holds"],
    ),
    "gzip-small": Thing("z/small", _zipped(100), GZIP),
    "gzip-in-parts": Thing("z/in-parts", _zipped(THRESHOLD), GZIP),
    "gzip-x": Thing("z/x", _zipped(101), {**GZIP, "ContentEncoding": "x-gzip"}),
    "gzip-twice": Thing("z/twice", _zipped(102), {**GZIP, "ContentEncoding": "gzip,gzip"}),
    "gzip-upper-case-in-parts": Thing(
        "z/upper-case-in-parts", _zipped(THRESHOLD), {**GZIP, "ContentEncoding": "GZIP"}
    ),
    "gzip-not-at-all": Thing("z/not-at-all", b"plain text", GZIP),
    **{f"size-{name}": Thing(f"s/{name}", _bytes(size)) for name, size in _SIZES.items()},
    "found-in-parts": Thing("found/in-parts", _bytes(THRESHOLD + 1)),
}

FOUND = ("found-in-parts", *(name for name in CASES if name.startswith("key-")))
"""At the target there is something else under these keys, where it can be."""
