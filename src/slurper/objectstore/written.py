"""Finds out whether a write took place when its answer does not tell."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from slurper.objectstore import entity_tags
from slurper.objectstore.base import Body, ByteRange, ObjectStore, StoredObject
from slurper.objectstore.checksums import Algorithm
from slurper.settings import MIB

COMPARED_BYTES = 4 * MIB
"""How much is read at once of an object that is compared byte by byte."""


async def find(store: ObjectStore, key: str, body: Body) -> StoredObject | None:
    """The object of this key, if it has exactly the bytes of `body`; else None.

    An ETag that is their MD5 is proof. Another ETag may be no MD5, so then the object is read.

    Raises:
        NotFound: there is no object.
    """
    stored = await store.head(key)
    if stored.meta.size != body.length:
        return None
    md5 = base64.b64decode(body.checksum(Algorithm.MD5)).hex()
    if entity_tags.opaque(stored.meta.etag).lower() == md5 or await _has_bytes(store, key, body):
        return stored
    return None


async def _has_bytes(store: ObjectStore, key: str, body: Body) -> bool:
    start = 0
    for expected in _pieces(body):
        found = await store.get(key, byte_range=ByteRange(start, start + len(expected)))
        if bytes(found.body) != expected:
            return False
        start += len(expected)
    return True


def _pieces(body: Body) -> Iterator[bytes]:
    """The bytes of a body, in pieces of `COMPARED_BYTES`."""
    piece = bytearray()
    for chunk in body.chunks:
        for at in range(0, len(chunk), COMPARED_BYTES):
            piece += memoryview(chunk)[at : at + COMPARED_BYTES]
            while len(piece) >= COMPARED_BYTES:
                yield bytes(piece[:COMPARED_BYTES])
                del piece[:COMPARED_BYTES]
    if piece:
        yield bytes(piece)
