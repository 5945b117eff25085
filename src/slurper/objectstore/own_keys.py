"""The keys of Slurper's own objects: what a check writes for a moment to see what a store does.

The bucket that is checked may be the source of another job. That job's listing may show such an
object, and it may be gone when it is read. It belongs to nobody's data, so listings of a source
leave it out. A key that only begins in the same way is a key like any other.

Some of these keys go on behind the name, or begin with a slash, to see what the store makes of
them. Whatever it makes, the result begins like one of ours.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from slurper.objectstore.base import ObjectMeta

PREFIX = ".slurper-precheck-"
"""The start of every key that a check writes; a slash may come before it."""

PREFIXES = (PREFIX, f"/{PREFIX}")
"""The prefixes by which all of them are listed."""

_OWN_KEY = re.compile(rf"/?{re.escape(PREFIX)}[0-9a-f]{{32}}(?:[-/\\].*)?", re.DOTALL)


def new_key() -> str:
    """A key that nobody else can have thought of."""
    return PREFIX + secrets.token_hex(16)


def is_own(key: str) -> bool:
    """Whether a key has the form that `new_key` makes, or goes on behind that form."""
    return key.startswith(PREFIXES) and _OWN_KEY.fullmatch(key) is not None


def without_own(objects: Sequence[ObjectMeta]) -> Sequence[ObjectMeta]:
    """The listed objects that are somebody's data."""
    return [meta for meta in objects if not is_own(meta.key)]
