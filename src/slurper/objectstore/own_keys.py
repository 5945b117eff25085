"""The keys of Slurper's own objects. A check writes them for a moment to see what a store does.

The bucket that is checked may be the source of another job. That job's listing may show such an
object, and the object may be gone when the job reads it. It is not the user's data, so listings of
a source leave it out. A key that only begins in the same way is an ordinary key.

Some of these keys have more text after the name, or begin with a slash, to see how the store
changes them. A changed key still begins like one of ours.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from slurper.objectstore.base import ObjectMeta

PREFIX = ".slurper-precheck-"
"""The start of every key that a check writes; a slash may come before it."""

PREFIXES = (PREFIX, f"/{PREFIX}")
"""Listing these prefixes finds all of these keys."""

_OWN_KEY = re.compile(rf"/?{re.escape(PREFIX)}[0-9a-f]{{32}}(?:[-/\\].*)?", re.DOTALL)


def new_key() -> str:
    """A random key that no other object has."""
    return PREFIX + secrets.token_hex(16)


def is_own(key: str) -> bool:
    """Whether a key has the form that `new_key` makes, or that form with more text after it."""
    return key.startswith(PREFIXES) and _OWN_KEY.fullmatch(key) is not None


def without_own(objects: Sequence[ObjectMeta]) -> Sequence[ObjectMeta]:
    """The listed objects without Slurper's own."""
    return [meta for meta in objects if not is_own(meta.key)]
