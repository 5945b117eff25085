"""Listing documents: what is read, that both readers agree, and what is refused."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from slurper import errors
from slurper.objectstore import listing_xml, listings
from slurper.objectstore.base import UNKNOWN_SIZE, ListingPage, ObjectMeta
from slurper.objectstore.dialects import KeyOrder
from slurper.objectstore.s3 import pages
from slurper.objectstore.s3.echoes import Asked
from slurper.objectstore.s3.pages import parse_page

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
    return parse_page(body, Asked(prefix, start_after))


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
        document(row("a"), "<CommonPrefixes></CommonPrefixes>", row("b")),
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
    fast = pages._read_fast(body)
    assume(fast is not None)
    assert fast is not None
    general = pages._read_with_parser(body)
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
        assert pages._read_fast(body.decode()) is not None


# Listings as they come


@pytest.mark.parametrize(
    ("rows", "start_after"),
    [
        ([row("a"), row("a"), row("b")], None),
        ([row("a"), row("b"), row("b"), row("b")], None),
        ([row("a"), row("a", 2), row("b")], None),
        ([row("0"), row("a"), row("b")], "0"),
        ([row("0"), row("0"), row("a"), row("a"), row("b")], "0"),
    ],
)
@pytest.mark.parametrize("more", ["", "<X/>"])
def test_a_key_twice_in_a_row_counts_once(
    rows: list[str], start_after: str | None, more: str
) -> None:
    found = read(
        document(*(r.replace("</Size>", f"</Size>{more}") for r in rows)), start_after=start_after
    )
    assert [(meta.key, meta.size) for meta in found.objects] == [("a", 1), ("b", 1)]


SIZES = ["", " ", "many", "12x", "-1", "1e3", "9" * 30, "0x10"]


@pytest.mark.parametrize("size", SIZES)
def test_a_size_that_is_none_is_not_known(size: str) -> None:
    page = read(document(row("a", 7), row("b", size), row("c", 0)))
    assert [meta.size for meta in page.objects] == [7, UNKNOWN_SIZE, 0]
    assert page.lacks_sizes


@pytest.mark.parametrize(
    "absent", ["<Contents><Key>b</Key></Contents>", row("b").replace("<Size>1</Size>", "<Size/>")]
)
def test_a_row_without_a_size_is_a_row(absent: str) -> None:
    page = read(document(row("a"), absent, row("c")))
    assert [meta.size for meta in page.objects] == [1, UNKNOWN_SIZE, 1]


def test_ordinary_pages_lack_no_size() -> None:
    assert not read(document(row("a", 0))).lacks_sizes
    assert not read(document()).lacks_sizes


@pytest.mark.parametrize(
    "before", [b"\n", b"\r\n\r\n", b"  \n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n", b"\n\xef\xbb\xbf"]
)
def test_what_stands_before_the_document_is_passed_over(before: bytes) -> None:
    assert keys(before + document(row("a"), row("b"))) == ["a", "b"]


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_a_listing_that_is_compressed_though_nobody_asked_is_read(
    compress: Callable[[bytes], bytes],
) -> None:
    assert keys(compress(document(row("a")))) == ["a"]


@pytest.mark.parametrize("coding", ["deflate", "br"])
def test_a_listing_in_a_coding_that_cannot_be_undone_says_so(coding: str) -> None:
    bare = zlib.compressobj(wbits=-15)
    coded = bare.compress(document(row("a"))) + bare.flush()
    with pytest.raises(errors.NotAListing, match=f"is compressed .Content-Encoding {coding}"):
        listing_xml.refuse_coded(coded, coding)
    for plain in (document(row("a")), gzip.compress(document(row("a"))), b"\n<html>"):
        listing_xml.refuse_coded(plain, coding)
    listing_xml.refuse_coded(coded, "")


@pytest.mark.parametrize(
    "damaged",
    [
        gzip.compress(document(row("a")), mtime=0)[:-20],
        gzip.compress(b" " * (listings.MAX_DOCUMENT_BYTES + 1), mtime=0),
        b"\x1f\x8bno",
    ],
)
def test_a_compressed_listing_that_cannot_be_read_says_so(damaged: bytes) -> None:
    with pytest.raises(errors.NotAListing, match="compressed, though that was not asked for"):
        read(damaged)


@pytest.mark.parametrize(
    ("reference", "character"),
    [
        ("&#x1;", "\x01"),
        ("&#x01;", "\x01"),
        ("&#1;", "\x01"),
        ("&#x1F;", "\x1f"),
        ("&#31;", "\x1f"),
    ],
)
def test_control_characters_may_be_repeated_as_references(reference: str, character: str) -> None:
    """As Ceph and rclone repeat after which key a page begins."""
    body = document(row("%7F"), f"<StartAfter>{reference}&#x9;&amp;</StartAfter>", encoding="url")
    (meta,) = read(body, start_after=f"{character}\t&").objects
    assert meta.key == "\x7f"
    assert keys(document(row(f"a{reference}"), row("b"))) == [f"a{character}", "b"]


def test_a_reference_that_stands_for_another_character_is_refused() -> None:
    with pytest.raises(errors.ListingError, match="not complete XML"):
        read(document(row("a\U000f0001"), row("b&#x1;")))


def test_an_odd_date_or_no_etag_is_no_obstacle() -> None:
    odd = row("a", more="<LastModified>99999999999999</LastModified><ETag></ETag>")
    page = read(document(odd, row("b", more="<LastModified>0000-00-00</LastModified>")))
    assert page.objects == [ObjectMeta("a", 1, "", None, ""), ObjectMeta("b", 1, "", None, "")]


def test_a_page_without_keys_tells_how_to_go_on() -> None:
    tokens = {
        "<NextContinuationToken>t+%2F</NextContinuationToken>": "t+%2F",
        "<NextMarker>a+%2F</NextMarker>": "a /",
        "": "",
    }
    for element, token in tokens.items():
        page = read(document(truncated="true", encoding="url", before=element))
        assert (page.objects, page.finished, page.token) == ([], False, token)


def test_the_other_spelling_of_decoded_keys_is_kept() -> None:
    page = read(document(row("a+b"), row("c"), row("d%41"), encoding="url"))
    assert [meta.key for meta in page.objects] == ["a b", "c", "dA"]
    assert page.written == {"a b": "a+b", "dA": "d%41"}
    assert read(document(row("a"), row("b"), encoding="url")).written == {}


@pytest.mark.parametrize(
    ("body", "title"),
    [
        (b"<!DOCTYPE html><html><head><title>MinIO Console</title></head></html>", "MinIO Console"),
        (b"<!doctype html><title> Sign in &amp;\n go on </title>", "Sign in & go on"),
        (b"\n<HTML><BODY>Welcome</BODY></HTML>", "Welcome"),
        (b"<html lang='en'><body><h1>502 Bad Gateway</h1></body></html>", "502 Bad Gateway"),
        (b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "x"><html><title>T</title></html>', "T"),
        (b"<!-- proxy --><html><title>Portal</title></html>", "Portal"),
        (gzip.compress(b"<!DOCTYPE html><title>Zipped</title>", mtime=0), "Zipped"),
        (b"\xef\xbb\xbf<!DOCTYPE html><title>\xff\xe9</title>", "\ufffd\ufffd"),
    ],
)
def test_a_web_page_is_told_without_its_words_and_points_to_ports(body: bytes, title: str) -> None:
    with pytest.raises(errors.NotAListing, match="not a store's but a web page") as caught:
        read(body)
    assert title not in str(caught.value)
    assert "check the endpoint and its port" in caught.value.advice


# Refusals


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not complete XML"),
        (document(row("a"))[:-5], "not complete XML"),
        (document(row("a"), row("b"))[:-40], "not complete XML"),
        (b"<Error><Code>AccessDenied</Code></Error>", "expected a ListBucketResult"),
        (b"\xff\xfe<\0L\0", "not UTF-8: .*"),
        (b'{"items": []}', "speaks JSON, not S3"),
        (document(row("a"), "<CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>"), "folders"),
        (b'<!DOCTYPE x [<!ENTITY y "z">]><ListBucketResult/>', "document type"),
        (document(row("\x01")), "not complete XML"),
        (document("<Contents><Size>1</Size></Contents>"), "without a key"),
        (document(row("a"), truncated=""), "truncated"),
        (document(row("b"), row("a")), "shows 'a' after 'b'"),
        (document(row("a"), row("b" * 8193)), "a key of 8,193 bytes"),
        (document(row("y" * 200), row("x" * 200)), "shows 'x{127}…' after 'y{127}…'"),
        (b"not a store: 220 ready", "the answer is text of 22 bytes, and no listing"),
        (b"<secret/>", "got another document"),
        (document(row("😀"), row("ü")), "after '😀'"),
    ],
)
def test_a_listing_that_cannot_be_trusted(body: bytes, reason: str) -> None:
    with pytest.raises(errors.ListingError, match=reason):
        read(body)


def test_keys_must_come_after_the_one_asked_for() -> None:
    with pytest.raises(errors.ListingError, match="after 'c' begins with 'b'"):
        read(document(row("b"), row("d")), start_after="c")


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
    page = parse_page(by_folder, Asked("", "a/a"), order=KeyOrder.FOLDERS)
    assert [meta.key for meta in page.objects] == ["a/b", "a-1"]
    assert page.order is KeyOrder.FOLDERS
    with pytest.raises(errors.ListingError, match="'a-1' after 'a/b'"):
        read(by_folder)
    with pytest.raises(errors.ListingError, match="'a/b' after 'a-1'"):
        parse_page(document(row("a-1"), row("a/b")), order=KeyOrder.FOLDERS)


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


# What no listing holds


def in_root(inside: str) -> bytes:
    end = "<IsTruncated>false</IsTruncated>"
    return f"<ListBucketResult>{inside}{end}</ListBucketResult>".encode()


@pytest.mark.parametrize(
    ("inside", "says"),
    [
        ("<a>" * 20 + "</a>" * 20, "nested too deeply"),
        ("<Contents><Key>" + "<a>" * 50_000 + "</a>" * 50_000 + "</Key></Contents>", "nested too"),
        ("<a/>" * 250_001, "more than 250000 tags"),
        (f"<a {'b' * 40_000}=''/>", "of more than 16384 bytes"),
        (f"<a>{'b' * 40_000}</a>", "of more than 16384 bytes"),
    ],
    ids=["nested", "nested in a row", "tags", "a long tag", "a long text"],
)
def test_what_would_cost_more_than_a_listing_is_refused(inside: str, says: str) -> None:
    with pytest.raises(errors.ListingError, match=says):
        read(in_root(inside))


def test_the_longest_keys_are_read() -> None:
    """Even if each byte is written in the longest way."""
    key = "&#37;41" * 1024
    (meta,) = read(document(row(key), encoding="url")).objects
    assert meta.key == "A" * 1024


def test_rows_of_more_markup_than_any_store_sends_take_the_general_way() -> None:
    more = "".join(f"<f{number}>1</f{number}>" for number in range(200))
    body = document(row("a", more=more), row("b", more=more))
    assert pages._read_fast(body.decode()) is None
    assert keys(body) == ["a", "b"]


async def test_a_long_page_is_read_in_a_thread_where_the_loop_answers_others() -> None:
    async def read_in(size: int, *, answers_others: bool) -> bool:
        """Whether another thread reads it."""
        reader = await listings.read(threading.current_thread, size, answers_others=answers_others)
        return reader is not threading.current_thread()

    assert await read_in(100_000, answers_others=True)
    assert not await read_in(100_000, answers_others=False)
    assert not await read_in(1_000, answers_others=True)
