"""Compares entity tags by their meaning: stores and proxies write the same tag in many ways.

RFC 9110 section 8.8.3 writes `"opaque"`, or `W/"opaque"` for a weak one. Some stores leave out the
quotes, in listings or everywhere. Some escape the quotes twice, so that `&quot;` remains. A proxy
that changes an answer makes its tag weak. Only the opaque part identifies a version.
"""

from __future__ import annotations

import html

_SHORTEST = 3
"""Characters of the shortest tag, with its quotes. A store without a tag writes `""`."""


def opaque(etag: str) -> str:
    """The opaque part, the same in every spelling; empty when there is no tag."""
    if "&" in etag:
        etag = html.unescape(etag)
    return etag.strip().removeprefix("W/").removeprefix("w/").strip('"')


def same(one: str, other: str) -> bool:
    """Whether two tags name one version."""
    return one == other or opaque(one) == opaque(other)


def strong(etag: str) -> str:
    """The tag for a list of parts: as the store has written it, but never weak."""
    return condition(etag) if etag[:2] in ("W/", "w/") else etag


def condition(etag: str) -> str:
    """The tag for a condition: strong and in quotes; empty when there is none.

    If-Match never holds for a weak tag (RFC 9110 section 13.1.1). So the strong form is sent;
    stores compare it by the opaque part.
    """
    if etag.startswith('"') and len(etag) >= _SHORTEST:  # as nearly every store writes it
        return etag
    tag = opaque(etag)
    return f'"{tag}"' if tag else ""
