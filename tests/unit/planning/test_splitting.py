from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from slurper.planning.splitting import QUESTIONS_PER_CUT, BoundarySearch

PAGE = 1000

plain_keys = st.text(st.sampled_from("abz019/-._~ éü写\U0001f600"), max_size=6)
odd_keys = st.text(
    st.sampled_from("\0\n\x7f ab\ud7ff\ue000\uffff\U0010ffff\udc80\udcff"), max_size=5
)
numbered = st.integers(0, 3000).map("{:06}".format)
key_sets = st.one_of(
    st.sets(plain_keys, min_size=1, max_size=60),
    st.sets(odd_keys, min_size=1, max_size=40),
    st.sets(numbered, min_size=1, max_size=60),
)


class Store:
    """Answers questions, and sees that they can be asked of any store."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.keys = sorted(keys)
        self.asked: list[str] = []

    def first_after(self, key: str) -> str | None:
        key.encode()  # UTF-8
        assert len(key.encode()) <= 1024
        self.asked.append(key)
        place = bisect_right(self.keys, key)
        return self.keys[place] if place < len(self.keys) else None

    def answer(self, search: BoundarySearch) -> list[str]:
        questions = search.questions()
        answer: str | None = None
        try:
            while True:
                answer = self.first_after(questions.send(answer))
        except StopIteration:
            return sorted(search.found)

    def pieces(self, cuts: list[str]) -> list[int]:
        places = [bisect_right(self.keys, cut) for cut in cuts]
        return [end - start for start, end in pairwise([0, *places, len(self.keys)])]


@given(
    key_sets,
    st.sampled_from(["", "p/", "some/longer/prefix/", "\U0010ffff"]),
    st.integers(1, 8),
    st.integers(1, 10),
    st.data(),
)
def test_no_piece_is_empty_and_questions_are_few(
    tails: set[str], prefix: str, wanted: int, listed: int, data: st.DataObject
) -> None:
    assume(prefix or tails != {""})  # no key is empty
    store = Store(key for tail in tails if (key := prefix + tail))
    end_at = data.draw(st.none() | st.sampled_from(store.keys))
    inside = [key for key in store.keys if end_at is None or key <= end_at]
    search = BoundarySearch(inside[:listed], prefix=prefix, end_at=end_at, pieces=wanted)
    cuts = store.answer(search)
    assert len(set(cuts)) == len(cuts) < wanted
    assert len(store.asked) <= QUESTIONS_PER_CUT * (wanted - 1)
    begin = inside[:listed][-1]
    assert all(key.startswith(prefix) or key > begin for key in cuts)
    assert all(begin <= asked for asked in store.asked)
    if end_at is not None:
        assert all(asked < end_at for asked in store.asked)
    store.keys = inside
    assert all(store.pieces(cuts))


DAYS = range(12 * 31)
HASHES = [f"{number * 2654435761 % 2**32:08x}" for number in range(20_000)]


@pytest.mark.parametrize(
    ("keys", "most_questions"),
    [
        ([f"object-{number:08}" for number in range(75_000)], 20),
        (HASHES, 20),
        ([f"images/{name}.jpg" for name in HASHES], 20),
        (
            [f"2024/{day // 31 + 1:02}/{day % 31 + 1:02}/{n}" for day in DAYS for n in HASHES[:60]],
            40,
        ),
    ],
    ids=["numbers", "hashes", "files", "dates"],
)
def test_what_keys_really_look_like_is_cut_about_evenly(
    keys: list[str], most_questions: int
) -> None:
    store = Store(keys)
    cuts = store.answer(BoundarySearch(store.keys[:PAGE], prefix="", end_at=None, pieces=4))
    assert len(cuts) == 3
    assert max(store.pieces(cuts)) < len(keys) / 2
    assert len(store.asked) <= most_questions


def test_one_heavy_folder_among_light_ones_is_cut_as_well() -> None:
    store = Store([f"a/{n:06}" for n in range(20_000)] + [f"{c}/1" for c in "bcdefghijklmnopq"])
    cuts = store.answer(BoundarySearch(store.keys[:PAGE], prefix="", end_at=None, pieces=4))
    assert max(store.pieces(cuts)) < 15_000


def test_characters_that_were_not_seen_before_are_found() -> None:
    store = Store(f"{chr(code)}{number}" for code in range(0x4E00, 0x9FFF, 7) for number in "12")
    cuts = store.answer(BoundarySearch(store.keys[:100], prefix="", end_at=None, pieces=2))
    (cut,) = cuts
    assert all(store.pieces([cut]))


def test_a_slice_that_was_seen_whole_takes_one_question() -> None:
    store = Store("abc")
    search = BoundarySearch("abc", prefix="", end_at=None, pieces=4)
    assert store.answer(search) == []
    assert search.nothing_behind
    assert store.asked == ["c"]
