"""Reads JSON as it comes in: strictly, and in short steps.

Python's own parser reads a text in one step. A large text then stops every other thread for
seconds, and it may hold millions of values before anybody counts them. This parser gets a text
piece by piece. It ends with the first thing that no request may hold: a member that is given twice,
NaN, a very long number or string, deep nesting, or too many values.

Parsers that read piece by piece exist, such as ijson. With its fast parser, half of a surrogate
pair becomes a question mark, and so a key becomes another key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import Enum, auto
from http import HTTPStatus
from json.decoder import scanstring  # type: ignore[attr-defined]
from sys import getsizeof
from typing import NoReturn

from slurper.api import problems
from slurper.api.envelope import Code, Refusal, malformed
from slurper.api.members import MOST_CHARACTERS
from slurper.job import rules

MAX_MEMBERS = 100
"""The most members of one object. No model has as many. Each unknown member becomes an error."""

MAX_ENTRIES = rules.MAX_KEYS
"""The most entries of one list."""

_MAX_VALUES = MAX_ENTRIES + 2_000
_MAX_DEPTH = 16
_MAX_NUMBER_CHARACTERS = 1_000
_MAX_STRING_CHARACTERS = 128 << 10
"""The longest valid string is a private key of 16,384 characters, each written as `\\uXXXX`."""

_PLACE_BYTES = 32
"""A value takes so much besides itself: its place in a list, and what the allocator adds."""
_MEMBER_BYTES = 120
"""The place of a member in its object."""

_SPACE = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_WORD = re.compile(r'[^\s\[\]{},:"]+')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_LITERALS: dict[str, object] = {"true": True, "false": False, "null": None}
_NOT_IN_JSON = frozenset({"NaN", "Infinity", "-Infinity"})


class _State(Enum):
    """What may come next."""

    VALUE = auto()
    VALUE_OR_END = auto()
    """After `[`."""
    NAME = auto()
    NAME_OR_END = auto()
    """After `{`."""
    COLON = auto()
    COMMA = auto()
    """Or the end of the list or object."""
    NOTHING = auto()


_EXPECTED = {
    _State.VALUE: "Expecting value",
    _State.VALUE_OR_END: "Expecting value",
    _State.NAME: "Expecting property name enclosed in double quotes",
    _State.NAME_OR_END: "Expecting property name enclosed in double quotes",
    _State.COLON: "Expecting ':' delimiter",
    _State.COMMA: "Expecting ',' delimiter",
    _State.NOTHING: "Extra data",
}

_FOR_VALUES = (_State.VALUE, _State.VALUE_OR_END)
_FOR_NAMES = (_State.NAME, _State.NAME_OR_END)


class _Open:
    """A list or object that has begun and not ended."""

    __slots__ = ("entries", "members", "name", "place")

    def __init__(
        self, place: Sequence[str], members: dict[str, object] | None, entries: list[object]
    ) -> None:
        self.place = place
        """The names and numbers that lead to it."""
        self.members = members
        """None: it is a list."""
        self.entries = entries
        self.name = ""
        """The member whose value is read."""

    def place_of_next(self) -> Sequence[str]:
        """The names and numbers that lead to the value that is read."""
        last = str(len(self.entries)) if self.members is None else self.name[:MOST_CHARACTERS]
        return (*self.place, last)


class JsonReader:
    """Reads one JSON text. Every method raises `Refusal`, which says what is wrong, and where."""

    def __init__(self) -> None:
        self.value: object = None
        """What has been read, after `finish`."""
        self.has_begun = False
        """Something other than white space has come."""
        self._state = _State.VALUE
        self._open: list[_Open] = []
        self._values = 0
        self._held = 0
        self._rest = ""
        """The beginning of a string or word whose end has not come."""
        self._lines = 0
        """Complete lines before `_rest`."""
        self._column = 0
        """Characters before `_rest` in its line."""

    @property
    def held_bytes(self) -> int:
        """The most memory that what has been read may take."""
        return self._held + (getsizeof(self._rest) if self._rest else 0)

    def feed(self, piece: str) -> None:
        """Read on. What is incomplete at the end is read with the next piece."""
        self._read(self._rest + piece, is_last=False)

    def finish(self) -> object:
        """Return the value, after the last piece."""
        self._read(self._rest, is_last=True)
        if self._state is not _State.NOTHING:
            self._fail(_EXPECTED[self._state], self._rest, len(self._rest))
        return self.value

    def _read(self, text: str, *, is_last: bool) -> None:
        at = 0
        while (begin := _SPACE.match(text, at).end()) < len(text):  # type: ignore[union-attr]
            self.has_begun = True
            end = self._token(text, begin, is_last)
            if not end:
                at = begin
                break
            at = end
        else:
            at = len(text)
        lines = text.count("\n", 0, at)
        self._lines += lines
        self._column = at - text.rfind("\n", 0, at) - 1 if lines else self._column + at
        self._rest = text[at:]

    def _token(self, text: str, at: int, is_last: bool) -> int:
        """Read a token; return its end, or 0 if its end has not come yet."""
        match text[at]:
            case '"':
                return self._string(text, at, is_last)
            case ",":
                fits = self._comma()
            case ":":
                fits = self._colon()
            case "{":
                fits = self._begin_object()
            case "}":
                fits = self._end_object()
            case "[":
                fits = self._begin_list()
            case "]":
                fits = self._end_list()
            case _:
                return self._word(text, at, is_last)
        if not fits:
            self._fail(_EXPECTED[self._state], text, at)
        return at + 1

    def _string(self, text: str, at: int, is_last: bool) -> int:
        if self._state not in _FOR_VALUES and self._state not in _FOR_NAMES:
            self._fail(_EXPECTED[self._state], text, at)
        whole = _STRING.match(text, at)
        end = len(text) if whole is None else whole.end()
        if end - at > _MAX_STRING_CHARACTERS:
            self._refuse_long_string(text[at + 1 : at + 1 + MOST_CHARACTERS])
        if whole is None and not is_last:
            return 0
        try:
            string, end = scanstring(text, at + 1, True)
        except json.JSONDecodeError as error:
            self._fail(error.msg.removesuffix(" at"), text, error.pos)
        if self._state in _FOR_VALUES:
            self._put(string)
        else:
            self._take_name(string)
        return int(end)

    def _word(self, text: str, at: int, is_last: bool) -> int:
        found = _WORD.match(text, at)
        if self._state not in _FOR_VALUES or found is None:
            self._fail(_EXPECTED[self._state], text, at)
        word = found[0]
        if len(word) > _MAX_NUMBER_CHARACTERS and (word[0] == "-" or word[0].isdecimal()):
            raise malformed("the body holds a number that is too long")
        if found.end() == len(text) and not is_last and len(word) <= _MAX_NUMBER_CHARACTERS:
            return 0
        if word in _LITERALS:
            self._put(_LITERALS[word])
        elif (number := _NUMBER.fullmatch(word)) is not None:
            is_whole = number[1] is None and number[2] is None
            self._put(int(word) if is_whole else float(word))
        elif word in _NOT_IN_JSON:
            raise malformed(f"the body is not valid JSON: {word} is not a JSON number")
        else:
            self._fail(_EXPECTED[self._state], text, at)
        return found.end()

    def _put(self, value: object) -> None:
        """Put a value where it belongs."""
        self._values += 1
        self._held += _PLACE_BYTES + getsizeof(value)
        if self._values > _MAX_VALUES:
            raise malformed(f"the body holds more than {_MAX_VALUES} values")
        self._state = _State.COMMA
        if not self._open:
            self.value = value
            self._state = _State.NOTHING
            return
        inner = self._open[-1]
        if inner.members is not None:
            inner.members[inner.name] = value
            return
        if len(inner.entries) == MAX_ENTRIES:
            _refuse(inner.place, f"has more than {MAX_ENTRIES} entries")
        inner.entries.append(value)

    def _take_name(self, name: str) -> None:
        inner = self._open[-1]
        members = inner.members or {}
        if name in members:
            raise malformed(f"the member {json.dumps(name[:100])} is given more than once")
        if len(members) == MAX_MEMBERS:
            raise malformed(f"an object in the body has more than {MAX_MEMBERS} members")
        inner.name = name
        self._held += _MEMBER_BYTES + getsizeof(name)
        self._state = _State.COLON

    # Each returns whether the mark may come here.

    def _begin_object(self) -> bool:
        members: dict[str, object] = {}
        return self._begin(_Open(self._place(), members, []), members, _State.NAME_OR_END)

    def _begin_list(self) -> bool:
        entries: list[object] = []
        return self._begin(_Open(self._place(), None, entries), entries, _State.VALUE_OR_END)

    def _place(self) -> Sequence[str]:
        return self._open[-1].place_of_next() if self._open else ()

    def _begin(self, inner: _Open, value: object, state: _State) -> bool:
        if self._state not in _FOR_VALUES:
            return False
        if len(self._open) == _MAX_DEPTH:
            raise malformed("the body is nested too deeply")
        self._put(value)
        self._open.append(inner)
        self._state = state
        return True

    def _end_object(self) -> bool:
        is_object = bool(self._open) and self._open[-1].members is not None
        return is_object and self._end(_State.NAME_OR_END)

    def _end_list(self) -> bool:
        is_list = bool(self._open) and self._open[-1].members is None
        return is_list and self._end(_State.VALUE_OR_END)

    def _end(self, if_empty: _State) -> bool:
        if self._state not in (_State.COMMA, if_empty):
            return False
        self._open.pop()
        self._state = _State.COMMA if self._open else _State.NOTHING
        return True

    def _colon(self) -> bool:
        is_due = self._state is _State.COLON
        if is_due:
            self._state = _State.VALUE
        return is_due

    def _comma(self) -> bool:
        is_due = self._state is _State.COMMA
        if is_due:
            is_list = self._open[-1].members is None
            self._state = _State.VALUE if is_list else _State.NAME
        return is_due

    # What is wrong

    def _fail(self, what: str, text: str, at: int) -> NoReturn:
        if text.startswith("\ufeff") and not self._lines and not self._column and not at:
            what = "it begins with a byte order mark (BOM)"
        lines = text.count("\n", 0, at)
        column = at - text.rfind("\n", 0, at) if lines else self._column + at + 1
        place = f"line {self._lines + lines + 1}, column {column}"
        raise malformed(f"the body is not valid JSON: {what} at {place}")

    def _refuse_long_string(self, begin: str) -> NoReturn:
        if self._state in _FOR_NAMES:
            place = (*self._open[-1].place, f"{begin}…")
            _refuse(place, "is not known here: no member has so long a name")
        _refuse(self._place(), f"is longer than {_MAX_STRING_CHARACTERS} bytes, as no text may be")


def _refuse(place: Sequence[str], what: str) -> NoReturn:
    """Refuse a value at a place in the body."""
    if not place:
        raise malformed("the body must be a JSON object")
    problem = problems.named(Code.INVALID_FIELD, problems.pointer(place), what)
    raise Refusal(HTTPStatus.BAD_REQUEST, problem)
