"""What a page repeats of the question: a page of another place is told, odd spellings are not."""

from __future__ import annotations

from urllib.parse import quote, quote_plus

import pytest

from slurper import errors
from slurper.objectstore.s3.echoes import Asked, OtherBucketError, begins_as_asked

ASKED = Asked("p/", "p/b", 1000, bucket="bucket")


@pytest.mark.parametrize(
    ("told", "is_told"),
    [
        ({}, False),
        ({"Name": "bucket", "Prefix": "p/", "StartAfter": "p/b", "KeyCount": "2"}, True),
        ({"Name": "", "Prefix": "", "StartAfter": "", "KeyCount": "", "Delimiter": ""}, False),
        ({"Prefix": "p%2F", "StartAfter": "p%2Fb"}, True),
        ({"Marker": "p/b"}, True),
        ({"KeyCount": "0"}, False),  # fewer than there are lose nothing
        ({"KeyCount": "50493"}, False),  # more than were asked for: it counts all there are
        ({"KeyCount": "many"}, False),
        ({"ContinuationToken": "", "CommonPrefixes": ""}, False),
    ],
)
def test_what_a_store_leaves_out_tells_nothing(told: dict[str, str], is_told: bool) -> None:
    assert begins_as_asked(told, 2, ASKED) is is_told


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"Name": "other"}, "is one of bucket 'other'"),
        ({"Prefix": "p/q"}, "another prefix"),
        ({"Prefix": "q/"}, "another prefix"),
        ({"StartAfter": "p/c"}, "another place: asked was 'p/b', it says 'p/c'"),
        ({"Marker": "p/c"}, "another place"),
        ({"KeyCount": "3"}, "shows 2 of the 3 objects"),
        ({"ContinuationToken": "x"}, "token that was not sent"),
        ({"Delimiter": "/"}, "one of folders"),
        ({"CommonPrefixes": "p/q/"}, "one of folders"),
    ],
)
def test_a_page_of_another_question_is_refused(told: dict[str, str], says: str) -> None:
    with pytest.raises(errors.ListingError, match=says):
        begins_as_asked(told, 2, ASKED)


def test_a_page_that_was_to_begin_at_the_beginning_and_does_not_is_refused() -> None:
    with pytest.raises(errors.ListingError, match="asked was '', it says 'k01999'"):
        begins_as_asked({"StartAfter": "k01999"}, 500, Asked())


@pytest.mark.parametrize(
    "key",
    ["a b+c%41", "\x01\x1f", "a//b", "/lead", "ü", "u\u0308", "%", "+", "\udcff", "a\r\nb", "a b "],
)
@pytest.mark.parametrize(
    "spelled",
    [
        str,
        lambda key: quote(key.encode("utf-8", "surrogateescape")),
        lambda key: quote_plus(key.encode("utf-8", "surrogateescape")),
        lambda key: key.replace("//", "/").strip("/"),
        lambda key: key.replace("\r\n", "\n"),
        lambda key: "".join(filter(str.isprintable, key)),
        lambda key: key.encode("utf-8", "replace").decode(),
    ],
)
def test_a_key_is_recognised_however_it_is_spelled(key: str, spelled: object) -> None:
    assert callable(spelled)
    repeated = {"Prefix": spelled(key), "StartAfter": spelled(key)}
    begins_as_asked(repeated, 0, Asked(prefix=key, start_after=key))


def test_a_bucket_of_another_name_is_told_by_that_name() -> None:
    with pytest.raises(OtherBucketError) as caught:
        begins_as_asked({"Name": "alias"}, 0, Asked(bucket="bucket"))
    assert caught.value.name == "alias"
    begins_as_asked({"Name": "alias"}, 0, Asked())


def test_of_a_page_that_a_token_asked_for_the_token_is_repeated() -> None:
    asked = Asked(start_after="a", token="t")
    assert begins_as_asked({"ContinuationToken": "t"}, 0, asked)
    assert begins_as_asked({"ContinuationToken": "t", "StartAfter": "a"}, 0, asked)
    assert begins_as_asked({"Marker": "t"}, 0, asked)
    with pytest.raises(errors.ListingError, match="not sent"):
        begins_as_asked({"ContinuationToken": "u"}, 0, asked)
