"""Where to cut a slice when only its beginning is known, by asking for few keys.

A store tells which key comes first after any text, even if that text is no key (LIST with
`start-after` and `max-keys=1`). It does not tell how many keys there are, or which is the last.
The search yields such questions and is sent the answers. So it needs no store:

1. The end. By bisection it finds how many characters all keys share at their beginning. At the
   next place the keys differ. There it looks for the largest character, and again at the place
   after that. After some ten or fifteen questions it knows a key that is close to the last.
2. Cuts. It cuts half way between the first key and that last one, so that each side has a key.
   One question tells where the keys after the cut begin. Then it cuts both halves again.

"Half way" is measured in characters that keys really use, learnt from the keys that were seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass

from slurper.planning.keyspace import between, following, is_text, shared_length

QUESTIONS_PER_CUT = 40
"""No more questions than this are asked for one cut."""

_QUESTIONS_PER_PLACE = 12

_PLACES = 2
"""At so many places in a row the largest character is looked for."""

Question = str
Answer = str | None
Search = Generator[Question, Answer, None]


@dataclass(slots=True)
class _Piece:
    """A piece that holds `first` and nothing before it."""

    first: str
    end_at: str | None
    last: str | None = None
    """A key of the piece, and nearly its last; None: not looked for yet."""


class BoundarySearch:
    """Looks for keys that cut what lies after a known key into pieces. No piece is empty.

    `questions` is a generator: it yields a key and is sent the first key after it, or None. At any
    time `found` holds the cuts that are certain so far.
    """

    def __init__(
        self, seen: Iterable[str], *, prefix: str, end_at: str | None, pieces: int
    ) -> None:
        """Take keys of the slice, in order. Cuts are looked for after the last of them.

        All keys of the slice begin with `prefix`, and none comes after `end_at`.
        """
        self.found: list[str] = []
        """Cuts, in the order in which they were found. Each ends one piece and begins another."""
        self.nothing_behind = False
        """There is no key after those that were seen."""
        self._seen = list(seen)
        self._shared = len(prefix)
        self._end_at = end_at
        self._cuts = pieces - 1
        self._questions_left = QUESTIONS_PER_CUT * self._cuts
        self._alphabet: list[str] = []

    def questions(self) -> Search:
        """Ask until there are enough cuts, or no more can be found."""
        first = self._seen[-1]
        if not is_text(first):
            return
        pieces = deque([_Piece(first, self._end_at)])
        while pieces and len(self.found) < self._cuts and self._questions_left > 0:
            piece = pieces.popleft()
            cut = yield from self._cut(piece)
            if cut is not None:
                boundary, behind = cut
                self.found.append(boundary)
                pieces.append(_Piece(piece.first, boundary))
                pieces.append(_Piece(behind, piece.end_at, piece.last))

    def _cut(self, piece: _Piece) -> Generator[Question, Answer, tuple[str, str] | None]:
        """Cut a piece; return the cut, and the first key after it. None: it cannot be cut."""
        if piece.last is None and piece.end_at is not None and self._alphabet:
            # Keys are mostly spread so evenly that some lie after the middle.
            boundary = between(piece.first, piece.end_at, self._alphabet)
            behind = yield from self._ask(boundary, piece)
            if boundary is not None and behind is not None:
                return boundary, behind
        if piece.last is None:
            piece.last = yield from self._near_the_end(piece)
        if piece.last <= piece.first:
            return None
        boundary = between(piece.first, piece.last, self._alphabet)
        behind = yield from self._ask(boundary, piece)
        return None if boundary is None or behind is None else (boundary, behind)

    def _near_the_end(self, piece: _Piece) -> Generator[Question, Answer, str]:
        """Return a key near the end of a piece; the first key if there is no other."""
        last = yield from self._ask(piece.first, piece)
        if last is None:
            self.nothing_behind |= not self.found
            return piece.first
        shared, last = yield from self._level(piece, last)
        self._learn(shared, last)
        for place in range(shared, shared + _PLACES):
            last = yield from self._largest_at(piece, place, last)
        return last

    def _level(self, piece: _Piece, last: str) -> Generator[Question, Answer, tuple[int, str]]:
        """How many characters all keys of a piece share, and the greatest key found."""
        lower, upper = self._shared, shared_length(piece.first, last)
        while lower < upper:
            length = (lower + upper + 1) // 2
            bound = following(piece.first[length - 1])
            beyond = None
            if bound is not None:
                beyond = yield from self._ask(piece.first[: length - 1] + bound, piece)
            if beyond is None:
                lower = length
            else:
                last = max(last, beyond)
                upper = min(length - 1, shared_length(piece.first, beyond))
        return lower, last

    def _largest_at(self, piece: _Piece, place: int, last: str) -> Generator[Question, Answer, str]:
        """Find roughly the largest character that keys have at a place; return a key that has it.

        All keys after `last` have the same characters as `last` before that place.
        """
        bound, leap = "", 1
        for _ in range(_QUESTIONS_PER_PLACE):
            if place >= len(last):
                return last
            used = last[place]
            inside = [one for one in self._alphabet if used < one and (not bound or one < bound)]
            if inside:
                character = inside[len(inside) // 2]
            elif leap > 1 or not bound:  # greater than all that we have seen
                character = _leap(used, bound, leap)
                leap *= 4
            else:
                return last
            if not character:
                return last
            beyond = yield from self._ask(last[:place] + character, piece)
            if beyond is not None and beyond > last:
                last = beyond
            elif inside or leap > 4:
                bound = character
            else:
                return last
        return last

    def _learn(self, shared: int, *more: str) -> None:
        """Learn which characters keys use after the beginning that all of them share."""
        used = set(self._alphabet)
        for key in (*self._seen, *more):
            used.update(key[shared:])
        self._seen.clear()
        self._alphabet = sorted(used)

    def _ask(self, key: str | None, piece: _Piece) -> Generator[Question, Answer, Answer]:
        """Ask for the first key after `key` in a piece; None: there is none that can be used."""
        outside = key is None or key < piece.first or (piece.end_at and key >= piece.end_at)
        if key is None or outside or not is_text(key) or self._questions_left <= 0:
            return None
        self._questions_left -= 1
        answer = yield key
        usable = answer is not None and is_text(answer) and answer > key
        if not usable or answer is None or (piece.end_at is not None and answer > piece.end_at):
            return None
        return answer


def _leap(used: str, bound: str, width: int) -> str:
    """Return the character `width` after `used`; with a `bound`, the one half way to it.

    No key reaches `bound`. Empty: `used` is close enough to the largest character.
    """
    if not bound:
        return following(chr(min(ord(used) + width - 1, 0x10FFFE))) or ""
    span = ord(bound) - ord(used)
    return following(chr(ord(used) + span // 2 - 1)) or "" if span > max(1, width // 64) else ""
