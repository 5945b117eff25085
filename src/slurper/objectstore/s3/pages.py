"""Reads ListObjectsV2 documents: a page of a thousand keys in a few milliseconds, or not at all.

Two readers give the same answer. The general one is an XML parser. The fast one recognises that
the rows of a page all have the markup of its first row, and reads them with one regular expression
made from that row; where anything is out of the ordinary it declines, and the general one decides.
Nothing is guessed: a document that is cut off, or is no listing, raises ListingError.

Listings of multipart uploads are short and rare, and are left to the parser.
"""

from __future__ import annotations

import asyncio
import functools
import math
import operator
import re
import unicodedata
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import compress, pairwise
from xml.etree import ElementTree as ET

from slurper import errors
from slurper.http.dates import iso_date
from slurper.objectstore import documents
from slurper.objectstore.base import UNKNOWN_SIZE, ListingPage, ObjectMeta, UploadMeta
from slurper.objectstore.dialects import KeyOrder
from slurper.objectstore.s3 import echoes
from slurper.objectstore.s3.echoes import Asked

MAX_DOCUMENT_BYTES = 16 << 20
"""Far above a thousand keys of 1,024 bytes, each byte written as %XX."""

ASKS = 3
"""How often a page is asked for, if it is bad, before its listing is given up."""

AGAIN_PAUSE_SECONDS = 0.2
"""Pause before the last question, so that the fault may pass."""

_MOST_BYTES = (1 << 63) - 1
"""No object is larger than what a database can count."""

_UNKNOWN = (KeyOrder.OWN, KeyOrder.NONE)
"""Orders in which two keys cannot be compared."""

_RESTORE = "RestoreStatus"

_FIELDS = ("Key", "Size", "ETag", "LastModified", "StorageClass")

Columns = dict[str, Sequence[str]]
"""For each of `_FIELDS`, its text in every row; empty where a row lacks it."""

Summary = dict[str, str]
"""Text of the elements beside the rows."""


async def asked_again(ask: Callable[[bool], Awaitable[ListingPage]]) -> ListingPage:
    """Return the first valid page; `ask` is told whether it has asked before.

    Raises:
        ListingError: no answer of `ASKS` was valid.
    """
    for asked in range(ASKS - 1):
        try:
            return await ask(asked > 0)
        except errors.ListingError:
            await asyncio.sleep(AGAIN_PAUSE_SECONDS * asked)
    return await ask(True)


def parse_page(
    document: bytes,
    asked: Asked = Asked(),  # noqa: B008 - a frozen value
    *,
    order: KeyOrder = KeyOrder.BYTES,
    served_at: datetime | None = None,
    normalised: bool = False,
    list_version: int | None = None,
) -> ListingPage:
    """Read one page of a listing.

    `normalised`: the store knows keys by their NFC, and shows how they were last written. They are
    given in NFC, the form in which they are unique and in order. `list_version` is that of the
    request.

    Raises:
        ListingError: not a complete ListBucketResult, or not the one that was asked for; keys not
            increasing in `order`, not after the key asked for or not under the prefix.
    """
    text = _as_text(document)
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
    check_keys(keys, asked.prefix, asked.start_after, order)
    return ListingPage(
        objects=objects,
        finished=_is_finished(summary),
        order=order,
        served_at=served_at,
        list_version=list_version,
        is_placed=is_placed,
        token=_token(summary, is_encoded=is_encoded),
        lacks_sizes=UNKNOWN_SIZE in sizes,
        written=written,
    )


def _token(summary: Summary, *, is_encoded: bool) -> str:
    """What goes on after this page: an opaque token, or a marker as keys are written."""
    marker = summary.get("NextMarker", "")
    return summary.get("NextContinuationToken") or (
        echoes.unquoted(marker) if is_encoded else marker
    )


def _decoded(raw: Sequence[str], order: KeyOrder) -> tuple[Sequence[str], dict[str, str]]:
    """Decode keys; return also their other possible spellings."""
    keys = _url_decoded(raw)
    if keys is raw:
        return raw, {}
    if order not in _UNKNOWN and not _ascend(keys, raw, order):
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
    """Decode only keys that are in their place then: some stores do not encode all of them."""
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
        key: text if key != text else echoes.unquoted(text)
        for key, text in zip(keys, raw, strict=True)
        if key != text or "%" in text or "+" in text
    }


def _has_repeats(keys: Sequence[str], start_after: str | None) -> bool:
    if not keys:
        return False
    return keys[0] == start_after or any(map(operator.eq, keys, keys[1:]))


def _without_repeats(objects: Sequence[ObjectMeta], start_after: str | None) -> list[ObjectMeta]:
    """Each object once: stores show some twice in a row, or once more on the next page."""
    before = [start_after, *(meta.key for meta in objects)]
    return list(compress(objects, map(operator.ne, before, [meta.key for meta in objects])))


def is_of_first_version(document: bytes) -> bool:
    """Whether a ListObjects answered what was a ListObjectsV2: a store that knows no other one.

    It has left out what it did not understand, and so begins from the first key again and again.
    """
    return b"<Marker" in document and b"<KeyCount>" not in document


@dataclass(frozen=True, slots=True)
class UploadsPage:
    """One ListMultipartUploads response."""

    uploads: list[UploadMeta]
    following: tuple[str, str] | None
    """Key marker and upload id marker of the next page; None: there is none."""


async def every_upload(
    read: Callable[[Sequence[tuple[str, str]]], Awaitable[UploadsPage]], prefix: str
) -> list[UploadMeta]:
    """Every multipart upload for keys of `prefix`, page by page; `read` sends these parameters."""
    found: dict[str, UploadMeta] = {}
    following: tuple[str, str] | None = ("", "")
    while following is not None:
        key_marker, id_marker = following
        # Without encoding-type: there are stores that repeat it here and encode nothing.
        wanted = {"prefix": prefix, "key-marker": key_marker, "upload-id-marker": id_marker}
        page = await read([("uploads", ""), *((k, v) for k, v in wanted.items() if v)])
        new = [upload for upload in page.uploads if upload.upload_id not in found]
        found |= {upload.upload_id: upload for upload in new}
        following = page.following if new else None  # some stores page in circles
    return [upload for upload in found.values() if upload.key.startswith(prefix)]


def parse_uploads(document: bytes, *, now: datetime) -> UploadsPage:
    """Read one page of a listing of uploads; `now` is the store's time.

    Raises:
        ListingError: not a complete ListMultipartUploadsResult.
    """
    rows: list[Summary] = []
    summary: Summary = {}
    for child in _parse(_as_text(document), "ListMultipartUploadsResult"):
        if _local(child.tag) == "Upload":
            rows.append({_local(leaf.tag): leaf.text or "" for leaf in child})
        else:
            summary[_local(child.tag)] = child.text or ""
    encoded = summary.get("EncodingType", "").lower() == "url"
    read_key = echoes.unquoted if encoded else str
    uploads = [
        UploadMeta(read_key(row.get("Key", "")), upload_id, _age_seconds(row, now))
        for row in rows
        if (upload_id := row.get("UploadId", "")) and row.get("Key")
    ]
    if _is_finished(summary) or not uploads:
        return UploadsPage(uploads, None)
    last = uploads[-1]
    key_marker = read_key(summary.get("NextKeyMarker", "")) or last.key
    return UploadsPage(uploads, (key_marker, summary.get("NextUploadIdMarker") or last.upload_id))


def _age_seconds(row: Summary, now: datetime) -> float:
    """An upload whose beginning is not told counts as infinitely old: nobody's to abort."""
    begun_at = iso_date(row.get("Initiated", ""))
    return math.inf if begun_at is None else (now - begun_at).total_seconds()


def refuse_coded(document: bytes, coding: str) -> None:
    """Explain a document that a proxy before the store may have compressed.

    Raises:
        NotAListing: it came with a coding that cannot be undone.
    """
    begins = document[:_SHOWN_BYTES].lstrip(_BEFORE_XML)
    is_told = coding.lower() not in ("", "identity")
    if is_told and begins and not begins.startswith((b"<", b"{", *_ZIPPED)):
        raise errors.NotAListing(
            f"the listing is compressed (Content-Encoding {coding}), though that was not asked for"
        )


def _as_text(document: bytes) -> str:
    document = _unzipped(document).lstrip(_BEFORE_XML)
    if (page := documents.web_page(document)) is not None:
        raise errors.NotAListing(f"the answer is not a store's but a web page: {page!r}")
    if document.startswith((b"{", b"[")):
        seen = documents.words(document[:_SHOWN_BYTES].decode("utf-8", "replace"))
        raise errors.NotAListing(f"the server speaks JSON, not S3: {seen!r}")
    if b"<!DOCTYPE" in document or b"<!ENTITY" in document:
        raise errors.ListingError("the listing holds a document type declaration")
    try:
        return document.decode("utf-8")
    except UnicodeDecodeError as error:
        seen = ascii(document[:_SHOWN_BYTES])[1:]
        raise errors.NotAListing(f"the listing is not UTF-8: {error}; it begins {seen}") from error


_BEFORE_XML = b"\xef\xbb\xbf \t\r\n"
"""A byte order mark, and the blanks of programs that print a line too many."""

_SHOWN_BYTES = 40
_ZIPPED = (b"\x1f\x8b", b"x\x01", b"x\x5e", b"x\x9c", b"x\xda")
"""How gzip begins, and what HTTP calls deflate."""


def _unzipped(document: bytes) -> bytes:
    """Undo compression. Nobody asked for it, but no document can be mistaken for it."""
    if not document.startswith(_ZIPPED):
        return document
    try:
        unzip = zlib.decompressobj(wbits=47)
        text = unzip.decompress(document, MAX_DOCUMENT_BYTES)
    except zlib.error as error:
        raise errors.NotAListing(
            f"the listing is compressed, though that was not asked for, and damaged: {error}"
        ) from error
    if not unzip.eof:
        raise errors.NotAListing(
            "the listing is compressed, though that was not asked for, and cut off or too large"
        )
    return text


# The general reader


def _read_with_parser(text: str) -> tuple[Columns, Summary]:
    rows: list[dict[str, str]] = []
    summary: Summary = {}
    for child in _parse(text, "ListBucketResult"):
        name = _local(child.tag)
        if name == "Contents":
            rows.append(_row(child))
        else:
            summary[name] = "".join(child.itertext())
    return {name: [row.get(name, "") for row in rows] for name in _FIELDS}, summary


def _row(contents: ET.Element) -> Summary:
    row = {_local(leaf.tag): leaf.text or "" for leaf in contents}
    if _RESTORE in row and _is_restored(contents):
        row["StorageClass"] = ""  # it keeps its class, and can be read
    return row


def _is_restored(contents: ET.Element) -> bool:
    status = (leaf for leaf in contents if _local(leaf.tag) == _RESTORE)
    told = {_local(leaf.tag): leaf.text for one in status for leaf in one}
    return told.get("IsRestoreInProgress") == "false"


def _parse(text: str, expected: str) -> ET.Element:
    try:
        root = _parse_xml(text)
    except ET.ParseError as error:
        raise errors.ListingError(f"the listing is not complete XML: {error}") from error
    if _local(root.tag) != expected:
        raise errors.NotAListing(f"expected a {expected}, got {_local(root.tag)[:80]!r}")
    return root


def _parse_xml(text: str) -> ET.Element:
    try:
        return ET.fromstring(text)  # noqa: S314 - without a DTD, see _as_text
    except ET.ParseError:
        escaped = _CONTROL_REFERENCE.sub(_stand_in, text)
        if escaped == text or _STAND_IN.search(text):
            raise
    root = ET.fromstring(escaped)  # noqa: S314
    for element in root.iter():
        element.text = (element.text or "").translate(_STOOD_FOR)
    return root


_CONTROL_REFERENCE = re.compile(r"&#(?:x0*(1?[0-9a-fA-F])|0*([12]?[0-9]|3[01]));")
"""XML allows no control characters, not even as references. Ceph and rclone encode keys, but not
the key after which a page begins: they repeat it in this form."""
_STAND_IN = re.compile("[\U000f0000-\U000f001f]")
_STOOD_FOR = {0xF0000 + code: code for code in range(32)}


def _stand_in(found: re.Match[str]) -> str:
    return chr(0xF0000 + (int(found[1], 16) if found[1] else int(found[2])))


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


# The fast reader

_OPEN, _CLOSE = "<Contents>", "</Contents>"
_LEAF = re.compile(r"<(\w+)>[^<>]*</\1>")
_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n")
_MAX_ROW_CHARACTERS = 8192

_RowReader = Callable[[str], Columns]


def _read_fast(text: str) -> tuple[Columns, Summary] | None:
    """Read a page whose rows all have the markup of its first; None leaves it to the parser."""
    begin, end = text.find(_OPEN), text.rfind(_CLOSE) + len(_CLOSE)
    if not 0 <= begin < end:
        return None
    body = text[begin:end].replace("&quot;", '"').replace("&#34;", '"')
    if f"<{_RESTORE}>" in body:  # of rows that differ in what is below it
        return None
    if "&" in body or "\ufffe" in body or "\uffff" in body:
        return None
    columns = _read_rows(body)
    if columns is None:
        return None
    # What is around the rows must hold them as children of its root: not in a comment, or deeper.
    around, summary = _read_with_parser(f"{text[:begin]}{_OPEN}{_CLOSE}{text[end:]}")
    return (columns, summary) if len(around["Key"]) == 1 else None


def _read_rows(body: str) -> Columns | None:
    first_end = body.find(_CLOSE, 0, _MAX_ROW_CHARACTERS) + len(_CLOSE)
    reader = _row_reader(_LEAF.sub(r"<\1></\1>", body[:first_end]))
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
    """Make a reader for rows with this markup; a provider has one or two of them."""
    try:
        children = [child.tag for child in ET.fromstring(shape)]  # noqa: S314 - see _as_text
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
    """Undo encoding-type=url, in which `+` is a space, exactly once. Odd bytes are kept."""
    joined = "\n".join(keys)
    if "%" not in joined and "+" not in joined:
        return keys
    # All at once is twice as fast, as long as every line break is one between two keys.
    if "%0A" in joined or "%0a" in joined or joined.count("\n") != len(keys) - 1:
        return [echoes.unquoted(key) for key in keys]
    return echoes.unquoted(joined).split("\n")


def check_keys(
    keys: Sequence[str], prefix: str, start_after: str | None, order: KeyOrder = KeyOrder.BYTES
) -> None:
    """Refuse keys that a listing of `prefix` after `start_after` cannot hold.

    Raises:
        ListingError: they are not under `prefix`. OutOfOrder: they are not strictly increasing in
            `order`, or not after `start_after`. NoOrder: in a store's own order, one comes again.
    """
    if not keys:
        return
    if not all(keys):
        raise errors.ListingError("the listing holds an object without a key")
    if order in _UNKNOWN:
        _check_prefix(keys, prefix)
        if order is KeyOrder.OWN:
            _check_own_order(keys, start_after)
        return
    ranks = keys if order is KeyOrder.BYTES else list(map(order.rank, keys))
    if start_after is not None and ranks[0] <= order.rank(start_after):
        text = f"the listing after {start_after!r} begins with {keys[0]!r}"
        raise errors.OutOfOrder(text, start_after, keys[0])
    if not all(map(operator.lt, ranks, ranks[1:])):
        at = next(i for i, pair in enumerate(pairwise(ranks)) if not pair[0] < pair[1])
        text = f"the listing shows {keys[at + 1]!r} after {keys[at]!r}"
        raise errors.OutOfOrder(text, keys[at], keys[at + 1])
    # In sorted keys, what begins both the first and the last begins all of them.
    if not (keys[0].startswith(prefix) and keys[-1].startswith(prefix)):
        raise errors.ListingError(
            f"the listing of {prefix!r} reaches from {keys[0]!r} to {keys[-1]!r}"
        )


def _check_prefix(keys: Sequence[str], prefix: str) -> None:
    strange = next((key for key in keys if not key.startswith(prefix)), None)
    if strange is not None:
        raise errors.ListingError(f"the listing of {prefix!r} shows {strange!r}")


def _check_own_order(keys: Sequence[str], start_after: str | None) -> None:
    """Refuse what no order explains."""
    if start_after in keys or len(set(keys)) < len(keys):
        twice = start_after if start_after in keys else next(k for k in keys if keys.count(k) > 1)
        raise errors.NoOrder(f"the listing after {start_after!r} shows {twice!r} again")


def _is_finished(summary: Summary) -> bool:
    truncated = summary.get("IsTruncated", "").strip().lower()
    if truncated not in ("true", "false"):
        raise errors.ListingError("the listing does not say whether it is truncated")
    return truncated == "false"


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
    """A size, or `UNKNOWN_SIZE` when none is told: then HEAD is asked for it."""
    try:
        size = int(text)
    except ValueError:
        return UNKNOWN_SIZE
    return size if 0 <= size <= _MOST_BYTES else UNKNOWN_SIZE
