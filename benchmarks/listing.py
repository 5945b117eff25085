"""Lists the folders of an nginx endpoint as ListObjectsV2 does, prefix and delimiter included."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape

PAGE = 1000
_LAST = "\U0010ffff"


def _encoded(text: str) -> str:
    """A key for `encoding-type=url`: XML cannot hold every character."""
    return quote(text, safe="/", errors="surrogateescape")


class Listing:
    """The keys of a bucket, in order, with the XML of what is listed of each but the key."""

    def __init__(self, folder: Path) -> None:
        """Read the names below `folder`, which need not exist."""
        rows = sorted(_entries(folder))
        self._keys = [key for key, _ in rows]
        self._rows = [row for _, row in rows]

    def page(self, query: Mapping[str, str]) -> bytes:
        """Answer one request."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        is_encoded = query.get("encoding-type") == "url"
        written = _encoded if is_encoded else escape
        after = query.get("continuation-token") or query.get("start-after") or query.get("marker")
        limit = min(int(query.get("max-keys", PAGE)), PAGE)
        at = max(bisect_right(self._keys, after or ""), bisect_left(self._keys, prefix))
        end = bisect_left(self._keys, prefix + _LAST)
        found: list[str] = []
        last = ""
        while at < end and len(found) < limit:
            key = self._keys[at]
            folder, cut, _ = key[len(prefix) :].partition(delimiter or _LAST)
            if cut:
                common = prefix + folder + delimiter
                found.append(f"<CommonPrefixes><Prefix>{written(common)}</Prefix></CommonPrefixes>")
                last = common + _LAST
                at = bisect_left(self._keys, last, at)
            else:
                found.append(f"<Contents><Key>{written(key)}</Key>{self._rows[at]}")
                last = key
                at += 1
        encoding = "<EncodingType>url</EncodingType>" if is_encoded else ""
        beginning = f"{encoding}<Prefix>{written(prefix)}</Prefix>"
        return _document(found, beginning, last if at < end else "")


def _document(found: list[str], beginning: str, token: str) -> bytes:
    following = f"<NextContinuationToken>{escape(token)}</NextContinuationToken>" if token else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"{beginning}<KeyCount>{len(found)}</KeyCount>"
        f"<MaxKeys>{PAGE}</MaxKeys><IsTruncated>{str(bool(token)).lower()}</IsTruncated>"
        f"{following}{''.join(found)}</ListBucketResult>"
    ).encode()


def _entries(folder: Path) -> Iterator[tuple[str, str]]:
    for path, _, names in os.walk(folder):
        for name in names:
            file = Path(path, name)
            status = file.stat()
            size, modified = status.st_size, int(status.st_mtime)
            key = str(file.relative_to(folder))
            yield (
                key,
                (
                    "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                    f"<ETag>&quot;{modified:x}-{size:x}&quot;</ETag><Size>{size}</Size>"
                    "<StorageClass>STANDARD</StorageClass></Contents>"
                ),
            )
