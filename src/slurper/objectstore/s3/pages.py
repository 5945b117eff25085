"""Reads ListObjectsV2 documents: a page of a thousand keys in a few milliseconds.

Two readers give the same answer. The general one is an XML parser. The fast one needs a page whose
rows all have the markup of the first row. It makes a regular expression from that row, and reads
all rows with it. If anything is unusual, the general one reads the page instead. A document that is
cut off, or is no listing, raises ListingError.
"""

from __future__ import annotations

import functools
import operator
import re
import unicodedata
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import compress, pairwise
from xml.etree import ElementTree as ET

from slurper.http.dates import iso_date
from slurper.objectstore import listing_xml, listings, urls
from slurper.objectstore.base import UNKNOWN_SIZE, ListingPage, ObjectMeta
from slurper.objectstore.dialects import KeyOrder
from slurper.objectstore.listing_xml import Summary, local_name
from slurper.objectstore.s3 import echoes
from slurper.objectstore.s3.echoes import Asked

_MOST_BYTES = (1 << 63) - 1
"""The largest size of an object: what fits into an integer of the database."""

_RESTORE = "RestoreStatus"

_FIELDS = ("Key", "Size", "ETag", "LastModified", "StorageClass")

Columns = dict[str, Sequence[str]]
"""For each of `_FIELDS`, its text in every row; empty if the row does not have it."""


def parse_page(
    document: bytes,
    asked: Asked = Asked(),  # noqa: B008 - a frozen value
    *,
    order: KeyOrder = KeyOrder.BYTES,
    served_at: datetime | None = None,
    normalised: bool = False,
    list_version: int | None = None,
    max_bytes: int = listings.MAX_DOCUMENT_BYTES,
) -> ListingPage:
    """Read one page of a listing.

    `normalised`: the store identifies keys by their NFC form, but lists them as they were last
    written. The page gives them in NFC, because only in that form are they unique and in order.
    `list_version` is that of the request. `max_bytes` is how long a compressed page may become.

    Raises:
        ListingError: not a complete ListBucketResult, or not the one that was asked for; keys not
            increasing in `order`, not after the key asked for or not under the prefix.
    """
    text = listing_xml.as_text(document, max_bytes=max_bytes)
    plain = len(document.translate(None, _CONTROLS)) == len(document)
    columns, summary = (_read_fast(text) if plain else None) or _read_with_parser(text)
    keys = columns["Key"]
    is_placed = echoes.begins_as_asked(summary, len(keys), asked)
    is_encoded = summary.get("EncodingType", "").lower() == "url"
    written: dict[str, str] = {}
    if is_encoded:
        keys, written = _decoded(keys, order)
    if normalised and not all(map(str.isascii, keys)):
        keys = [unicodedata.normalize("NFC", key) for key in keys]
    sizes = _sizes(columns["Size"])
    objects = _objects(keys, sizes, columns)
    if _has_repeats(keys, asked.start_after):
        objects = _without_repeats(objects, asked.start_after)
        keys = [meta.key for meta in objects]
    listings.check_keys(keys, asked.prefix, asked.start_after, order)
    return ListingPage(
        objects=objects,
        finished=listing_xml.is_finished(summary),
        order=order,
        served_at=served_at,
        list_version=list_version,
        is_placed=is_placed,
        token=_token(summary, is_encoded=is_encoded),
        lacks_sizes=UNKNOWN_SIZE in sizes,
        written=written,
    )


def _token(summary: Summary, *, is_encoded: bool) -> str:
    """The token of the next page: an opaque token, or a marker, which is encoded like a key."""
    marker = summary.get("NextMarker", "")
    return summary.get("NextContinuationToken") or (urls.unquoted(marker) if is_encoded else marker)


def _decoded(raw: Sequence[str], order: KeyOrder) -> tuple[Sequence[str], dict[str, str]]:
    """Decode keys; return also their other possible spellings."""
    keys = _url_decoded(raw)
    if keys is raw:
        return raw, {}
    if order not in listings.OWN_ORDERS and not _ascend(keys, raw, order):
        keys = _as_they_ascend(keys, raw, order)
    return keys, _other_spellings(keys, raw)


def _ascend(keys: Sequence[str], raw: Sequence[str], order: KeyOrder) -> bool:
    """Whether decoded keys are in order, and no two spellings have become one key."""
    ranks = keys if order is KeyOrder.BYTES else list(map(order.rank, keys))
    if all(map(operator.lt, ranks, ranks[1:])):
        return True
    pairs = zip(pairwise(ranks), pairwise(raw), strict=True)
    return all(one < other or one_text == text for (one, other), (one_text, text) in pairs)


def _as_they_ascend(decoded: Sequence[str], raw: Sequence[str], order: KeyOrder) -> Sequence[str]:
    """Decode only keys that are then in order, because some stores do not encode all of them."""
    keys: list[str] = []
    for key, text in zip(decoded, raw, strict=True):
        at = len(keys)
        keys.append(text if at and order.rank(keys[-1]) >= order.rank(key) else key)
        while at and order.rank(keys[at - 1]) >= order.rank(keys[at]):
            at -= 1
            if keys[at] == raw[at]:
                break
            keys[at] = raw[at]
    return next((found for found in (keys, raw) if _ascend(found, raw, order)), decoded)


def _other_spellings(keys: Sequence[str], raw: Sequence[str]) -> dict[str, str]:
    return {
        key: text if key != text else urls.unquoted(text)
        for key, text in zip(keys, raw, strict=True)
        if key != text or "%" in text or "+" in text
    }


def _has_repeats(keys: Sequence[str], start_after: str | None) -> bool:
    if not keys:
        return False
    return keys[0] == start_after or any(map(operator.eq, keys, keys[1:]))


def _without_repeats(objects: Sequence[ObjectMeta], start_after: str | None) -> list[ObjectMeta]:
    """Keep each object once: stores show some twice in a row, or again on the next page."""
    before = [start_after, *(meta.key for meta in objects)]
    return list(compress(objects, map(operator.ne, before, [meta.key for meta in objects])))


def is_of_first_version(document: bytes) -> bool:
    """Whether this is the answer to ListObjects, although ListObjectsV2 was asked for.

    A store that knows only ListObjects ignores the parameters it does not understand. So each of
    its pages begins from the first key again.
    """
    return b"<Marker" in document and b"<KeyCount>" not in document


# The general reader


def _read_with_parser(text: str) -> tuple[Columns, Summary]:
    rows: list[dict[str, str]] = []
    summary: Summary = {}
    for child in listing_xml.parse(text, "ListBucketResult"):
        name = local_name(child.tag)
        if name == "Contents":
            rows.append(_row(child))
        else:
            summary[name] = "".join(child.itertext())
    return {name: [row.get(name, "") for row in rows] for name in _FIELDS}, summary


def _row(contents: ET.Element) -> Summary:
    row = {local_name(leaf.tag): leaf.text or "" for leaf in contents}
    if _RESTORE in row and _is_restored(contents):
        row["StorageClass"] = ""  # it keeps its archive class, but can be read
    return row


def _is_restored(contents: ET.Element) -> bool:
    status = (leaf for leaf in contents if local_name(leaf.tag) == _RESTORE)
    told = {local_name(leaf.tag): leaf.text for one in status for leaf in one}
    return told.get("IsRestoreInProgress") == "false"


# The fast reader

_OPEN, _CLOSE = "<Contents>", "</Contents>"
_LEAF = re.compile(r"<(\w+)>[^<>]*</\1>")
_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n")
_MAX_ROW_CHARACTERS = 8192
_MAX_SHAPE_CHARACTERS = 1024
"""The markup of a row has 300 to 500. To compile a long expression costs more than it saves."""

_RowReader = Callable[[str], Columns]


def _read_fast(text: str) -> tuple[Columns, Summary] | None:
    """Read a page whose rows all have the markup of the first row; None: use the parser."""
    begin, end = text.find(_OPEN), text.rfind(_CLOSE) + len(_CLOSE)
    if not 0 <= begin < end:
        return None
    body = text[begin:end].replace("&quot;", '"').replace("&#34;", '"')
    if f"<{_RESTORE}>" in body:  # rows may differ in the elements below it
        return None
    if "&" in body or "\ufffe" in body or "\uffff" in body:
        return None
    columns = _read_rows(body)
    if columns is None:
        return None
    # The rows must be children of the root, and not inside a comment or another element.
    around, summary = _read_with_parser(f"{text[:begin]}{_OPEN}{_CLOSE}{text[end:]}")
    return (columns, summary) if len(around["Key"]) == 1 else None


def _read_rows(body: str) -> Columns | None:
    first_end = body.find(_CLOSE, 0, _MAX_ROW_CHARACTERS) + len(_CLOSE)
    shape = _LEAF.sub(r"<\1></\1>", body[:first_end])
    reader = _row_reader(shape) if len(shape) <= _MAX_SHAPE_CHARACTERS else None
    if reader is None:
        return None
    columns = reader(body)
    count = len(columns["Key"])
    second = body.find(_OPEN, first_end)
    gap = body[first_end:second] if second >= 0 else ""
    seamless = (
        body.count(_OPEN) == body.count(_CLOSE) == count
        and body.count(f"{_CLOSE}{gap}{_OPEN}") == count - 1
        and not gap.strip()
    )
    return columns if seamless else None


@functools.lru_cache(maxsize=64)
def _row_reader(shape: str) -> _RowReader | None:
    """Make a reader for rows with this markup. A provider has one or two such markups."""
    try:
        children = [child.tag for child in ET.fromstring(shape)]  # noqa: S314 - see listing_xml.as_text
    except ET.ParseError:
        return None
    found = [name for name in children if name in _FIELDS]
    usable = {"Key", "Size"} <= set(found) and all(shape.count(f"<{n}>") == 1 for n in found)
    if not usable or any(f"<{name}></{name}>" not in shape for name in found):
        return None
    pattern = re.escape(shape)
    for name in set(re.findall(r"<(\w+)></\1>", shape)):
        hole = "([^<]*)" if name in found else "[^<]*"
        pattern = pattern.replace(f"<{name}></{name}>", f"<{name}>{hole}</{name}>")
    return functools.partial(_match_rows, re.compile(pattern), tuple(found))


def _match_rows(pattern: re.Pattern[str], names: tuple[str, ...], body: str) -> Columns:
    rows = pattern.findall(body)
    absent = [""] * len(rows)
    found = dict(zip(names, zip(*rows, strict=True), strict=False))
    return {name: found.get(name, absent) for name in _FIELDS}


# What the rows mean


def _url_decoded(keys: Sequence[str]) -> Sequence[str]:
    """The same as `urls.unquoted`, for many keys."""
    joined = "\n".join(keys)
    if "%" not in joined and "+" not in joined:
        return keys
    # Decoding all keys at once is twice as fast. No key may hold a line break then.
    if "%0A" in joined or "%0a" in joined or joined.count("\n") != len(keys) - 1:
        return [urls.unquoted(key) for key in keys]
    return urls.unquoted(joined).split("\n")


def _objects(keys: Sequence[str], sizes: Sequence[int], columns: Columns) -> list[ObjectMeta]:
    rows = zip(
        keys,
        sizes,
        columns["ETag"],
        map(iso_date, columns["LastModified"]),
        columns["StorageClass"],
        strict=True,
    )
    return list(map(ObjectMeta._make, rows))


def _sizes(texts: Sequence[str]) -> list[int]:
    try:
        sizes = list(map(int, texts))
    except ValueError:
        return [_size(text) for text in texts]
    if sizes and not 0 <= min(sizes) <= max(sizes) <= _MOST_BYTES:
        return [_size(text) for text in texts]
    return sizes


def _size(text: str) -> int:
    """A size, or `UNKNOWN_SIZE` when the text is no size. Then HEAD is asked for the size."""
    try:
        size = int(text)
    except ValueError:
        return UNKNOWN_SIZE
    return size if 0 <= size <= _MOST_BYTES else UNKNOWN_SIZE
