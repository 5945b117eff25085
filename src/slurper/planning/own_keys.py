"""The keys of Slurper's own objects: what a check writes for a moment to see what a store does.

The bucket that is checked may be the source of another job, whose listing then shows such an
object, or has it gone by the time it is read. It belongs to nobody's data, so whoever lists a
source passes over it. A key that only begins like one is a key like any other.

Some go on behind such a key, or begin with a slash, to see what becomes of them. Whatever a store
makes of those, it begins like one of ours.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from slurper.objectstore.base import ObjectMeta

PREFIX = ".slurper-precheck-"
"""Begins the keys of whatever a check writes, but for a slash before it."""

PREFIXES = (PREFIX, f"/{PREFIX}")
"""By which all of them are listed."""

_OWN_KEY = re.compile(rf"/?{re.escape(PREFIX)}[0-9a-f]{{32}}(?:[-/\\].*)?", re.DOTALL)


def new_key() -> str:
    """A key that nobody else can have thought of."""
    return PREFIX + secrets.token_hex(16)


def is_own(key: str) -> bool:
    """Whether a key is of the form that `new_key` makes, or goes on behind such a one."""
    return key.startswith(PREFIXES) and _OWN_KEY.fullmatch(key) is not None


def without_own(objects: Sequence[ObjectMeta]) -> Sequence[ObjectMeta]:
    """The listed objects that are somebody's data."""
    return [meta for meta in objects if not is_own(meta.key)]
