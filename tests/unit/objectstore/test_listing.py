"""Listing documents: what is read, that both readers agree, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from slurper import errors
from slurper.objectstore import listing
from slurper.objectstore.base import ListingPage, ObjectMeta
from slurper.objectstore.dialects import KeyOrder
from slurper.objectstore.listing import parse_page

NAMESPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def row(key: str, size: object = 1, *, more: str = "") -> str:
    return f"<Contents><Key>{key}</Key><Size>{size}</Size>{more}</Contents>"


def document(
    *rows: str,
    truncated: str = "false",
    encoding: str = "",
    namespace: str = NAMESPACE,
    before: str = "",
) -> bytes:
    encoded = f"<EncodingType>{encoding}</EncodingType>" if encoding else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult{namespace}>'
        f"<Name>b</Name><Prefix/>{encoded}<IsTruncated>{truncated}</IsTruncated>{before}"
        f"{''.join(rows)}</ListBucketResult>"
    ).encode()


def read(body: bytes, *, prefix: str = "", start_after: str | None = None) -> ListingPage:
    return parse_page(body, prefix=prefix, start_after=start_after)


def keys(body: bytes) -> list[str]:
    return [meta.key for meta in read(body).objects]


def test_a_page_of_amazon() -> None:
    detail = (
        "<LastModified>2026-11-23T22:05:01.500Z</LastModified>"
        "<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag>"
        "<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>"
        "<StorageClass>STANDARD_IA</StorageClass>"
    )
    page = read(document(row("a+b%2Bc", 17, more=detail), truncated="true", encoding="url"))
    moment = datetime(2026, 11, 23, 22, 5, 1, 500_000, UTC)
    etag = '"d41d8cd98f00b204e9800998ecf8427e"'
    assert page.objects == [ObjectMeta("a b+c", 17, etag, moment, "STANDARD_IA")]
    assert not page.finished


def test_what_a_store_leaves_out_is_empty() -> None:
    page = read(document(row("a")))
    assert page.objects == [ObjectMeta("a", 1, "", None, "")]
    assert page.finished


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-11-23T22:05:01Z", datetime(2026, 11, 23, 22, 5, 1, tzinfo=UTC)),
        ("2026-11-23T22:05:01.123456789Z", datetime(2026, 11, 23, 22, 5, 1, 123_456, UTC)),
        ("2026-11-23T22:05:01", datetime(2026, 11, 23, 22, 5, 1, tzinfo=UTC)),
        ("2026-11-24T00:05:01+02:00", datetime(2026, 11, 23, 22, 5, 1, tzinfo=UTC)),
        ("yesterday", None),
        ("", None),
    ],
)
def test_times(moment: str, expected: datetime | None) -> None:
    body = document(row("a", more=f"<LastModified>{moment}</LastModified>"))
    assert read(body).objects[0].last_modified == expected


HOSTILE = ("/lead", "\x01", "a//b", "a/../b", "line\nbreak", "x y+%25&=?#", "ü", "u\u0308", "😀")


def test_encoded_keys_are_decoded_once_and_to_the_byte() -> None:
    ordered = sorted(HOSTILE)
    rows = [row(quote_plus(key)) for key in ordered]
    assert keys(document(*rows, encoding="url")) == ordered


def test_bytes_that_are_no_utf8_are_kept() -> None:
    assert keys(document(row("a%FFb"), encoding="url")) == ["a\udcffb"]


def test_a_plus_sign_stays_where_nothing_is_encoded() -> None:
    assert keys(document(row("a+b%25"))) == ["a+b%25"]


def test_a_space_may_come_as_percent_20() -> None:
    assert keys(document(row("a%20b"), encoding="url")) == ["a b"]


@pytest.mark.parametrize(
    "body",
    [
        document(row("a"), row("b"), namespace=""),
        document(row("a"), row("b")),
        document(row("a"), "\n  ", row("b")),
        document(row("a", more="<X/>"), row("b")),
        document(row("<![CDATA[a]]>"), row("b")),
        document(row("&#97;"), row("b")),
        document("<!-- <Contents><Key>z</Key></Contents> -->", row("a"), row("b")),
        document(row("a", more="<Owner><ID>x</ID><Key>y</Key></Owner>"), row("b")),
        document(row("a"), "<CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>", row("b")),
        document("<Contents attribute='1'><Size>1</Size><Key>a</Key></Contents>", row("b")),
        document(
            "<s:Contents><s:Key>a</s:Key><s:Size>1</s:Size></s:Contents>",
            "<s:Contents><s:Key>b</s:Key><s:Size>1</s:Size></s:Contents>",
            namespace=f'{NAMESPACE} xmlns:s="http://s3.amazonaws.com/doc/2006-03-01/"',
        ),
    ],
)
def test_every_way_to_write_the_same_page(body: bytes) -> None:
    assert keys(body) == ["a", "b"]


def test_what_is_not_directly_in_the_listing_is_no_object() -> None:
    assert keys(document(f"<Deeper>{row('a')}</Deeper>")) == []
    assert keys(document(f"<!-- {row('a')} -->")) == []


# The fast reader declines or agrees.

texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
    | st.sampled_from("<>&\"'\n\t+%/")
)
fields = st.fixed_dictionaries(
    {"Key": texts, "Size": st.integers(0, 10**15).map(str)},
    optional=dict.fromkeys(("ETag", "LastModified", "StorageClass", "Owner", "Unknown"), texts),
)


@given(
    rows=st.lists(fields, max_size=4),
    alike=st.booleans(),
    order=st.permutations(["Key", "ETag", "Size", "LastModified", "StorageClass", "Unknown"]),
    gap=st.sampled_from(("", "\n  ")),
    numeric=st.booleans(),
)
def test_both_readers_agree(
    rows: list[dict[str, str]], alike: bool, order: Sequence[str], gap: str, numeric: bool
) -> None:
    if alike and rows:
        rows = [rows[0] | {"Key": row["Key"], "Size": row["Size"]} for row in rows]
    quotes = {'"': "&#34;" if numeric else "&quot;"}
    written = [
        "".join(f"<{n}>{escape(fields[n], quotes)}</{n}>" for n in order if n in fields)
        for fields in rows
    ]
    body = document(gap.join(f"<Contents>{text}</Contents>" for text in written)).decode()
    fast = listing._read_fast(body)
    assume(fast is not None)
    assert fast is not None
    general = listing._read_with_parser(body)
    assert {name: list(column) for name, column in fast[0].items()} == general[0]
    assert fast[1] == general[1]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True))
def test_any_keys_survive_url_encoding(names: list[str]) -> None:
    ordered = sorted(names)
    rows = [row(quote_plus(name), more="<ETag>&quot;x&quot;</ETag>") for name in ordered]
    assert keys(document(*rows, encoding="url")) == ordered


def test_pages_of_real_stores_take_the_fast_way() -> None:
    amazon = (
        "<LastModified>2026-11-23T22:05:01.000Z</LastModified><ETag>&quot;x&quot;</ETag>"
        "<Owner><ID>1</ID><DisplayName></DisplayName></Owner><StorageClass>STANDARD</StorageClass>"
    )
    go = "<ETag>&#34;x&#34;</ETag><StorageClass>STANDARD</StorageClass>"
    for more in (amazon, go, ""):
        body = document(*(row(f"k{n}", n, more=more) for n in range(3)))
        assert listing._read_fast(body.decode()) is not None


# Refusals


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not complete XML"),
        (document(row("a"))[:-5], "not complete XML"),
        (document(row("a"), row("b"))[:-40], "not complete XML"),
        (b"<html><body>Welcome</body></html>", "expected a ListBucketResult"),
        (b"<Error><Code>AccessDenied</Code></Error>", "expected a ListBucketResult"),
        (b"\xff\xfe<\0L\0", "not UTF-8"),
        (b'<!DOCTYPE x [<!ENTITY y "z">]><ListBucketResult/>', "document type"),
        (document(row("\x01")), "not complete XML"),
        (document(row("a", "12x")), "no number"),
        (document(row("a", "")), "no number"),
        (document(row("a", -1)), "negative"),
        (document("<Contents><Size>1</Size></Contents>"), "without a key"),
        (document(row("a"), truncated=""), "truncated"),
        (document(truncated="true"), "shows no key"),
        (document(row("b"), row("a")), "shows 'a' after 'b'"),
        (document(row("a"), row("a")), "shows 'a' after 'a'"),
        (document(row("😀"), row("ü")), "after '😀'"),
    ],
)
def test_a_listing_that_cannot_be_trusted(body: bytes, reason: str) -> None:
    with pytest.raises(errors.ListingError, match=reason):
        read(body)


def test_keys_must_come_after_the_one_asked_for() -> None:
    with pytest.raises(errors.ListingError, match="after 'b' begins with 'b'"):
        read(document(row("b"), row("c")), start_after="b")


def test_keys_must_be_under_the_prefix() -> None:
    with pytest.raises(errors.ListingError, match="'p/'"):
        read(document(row("p/a"), row("q")), prefix="p/")


def test_a_listing_cut_off_anywhere_is_refused() -> None:
    body = document(row("a"), row("b"), row("c"), truncated="true")
    for end in range(len(body)):
        with pytest.raises(errors.ListingError):
            read(body[:end])


@given(st.binary(max_size=200), st.integers(0, 400))
def test_damage_is_read_or_refused_and_nothing_else_happens(noise: bytes, at: int) -> None:
    body = document(row("a"), row("b"), row("c"))
    try:
        found = keys(body[:at] + noise + body[at:])
    except errors.ListingError:
        return
    assert found == sorted(set(found))


def test_folder_order_is_its_own_order() -> None:
    by_folder = document(row("a/b"), row("a-1"))
    page = parse_page(by_folder, prefix="", start_after="a/a", order=KeyOrder.FOLDERS)
    assert [meta.key for meta in page.objects] == ["a/b", "a-1"]
    assert page.order is KeyOrder.FOLDERS
    with pytest.raises(errors.ListingError, match="'a-1' after 'a/b'"):
        read(by_folder)
    with pytest.raises(errors.ListingError, match="'a/b' after 'a-1'"):
        parse_page(
            document(row("a-1"), row("a/b")), prefix="", start_after=None, order=KeyOrder.FOLDERS
        )


def archived(key: str, status: str = "") -> str:
    return row(key, more=f"<StorageClass>GLACIER</StorageClass>{status}")


ON_ITS_WAY = "<RestoreStatus><IsRestoreInProgress>true</IsRestoreInProgress></RestoreStatus>"
RESTORED = (
    "<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress>"
    "<RestoreExpiryDate>2026-12-21T00:00:00.000Z</RestoreExpiryDate></RestoreStatus>"
)


@pytest.mark.parametrize(
    "statuses",
    [
        ["", "", ""],
        [RESTORED] * 3,
        [ON_ITS_WAY] * 3,
        ["", RESTORED, ON_ITS_WAY],
        [RESTORED, "", ""],
    ],
)
def test_a_restored_object_is_listed_as_one_that_can_be_read(statuses: list[str]) -> None:
    rows = [archived(f"k{at}", status) for at, status in enumerate(statuses)]
    classes = [meta.storage_class for meta in read(document(*rows)).objects]
    assert classes == ["" if status == RESTORED else "GLACIER" for status in statuses]
