"""Answers that do not come from a store: what kind they are, and what the log tells of them.

A user names an endpoint, and any program may answer there. What it says may be for the operator
alone. So errors name the kind of the answer. Its beginning goes into the program's own log.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from slurper import telemetry
from slurper.objectstore import documents, texts

_LOGGED_CHARACTERS = 200
_MOST_LOGGED = 60
"""So many answers are logged in a minute: a job may get millions of them."""
_MINUTE = 60.0

_log = telemetry.get_logger(__name__)


def kind_of(body: bytes) -> str:
    """Say what kind of answer a body is; empty if there is none."""
    begins = body[: documents.MAX_TEXT_BYTES].strip()
    if not begins:
        return ""
    if documents.is_web_page(begins):
        return "a web page"
    if begins.startswith((b"{", b"[")):
        return "JSON"
    if begins.startswith(b"<"):
        return "an XML document that is not S3's"
    return f"text of {len(body)} bytes"


class _Minute:
    """Counts what was logged within the last minute."""

    def __init__(self) -> None:
        self._began = 0.0
        self._logged = 0

    def has_room(self) -> bool:
        now = time.monotonic()
        if now - self._began >= _MINUTE:
            self._began, self._logged = now, 0
        self._logged += 1
        return self._logged <= _MOST_LOGGED


_minute = _Minute()


def log(
    begins: str,
    *,
    operation: str,
    place: str = "",
    status: int = 200,
    hidden: Iterable[str] = (),
) -> None:
    """Log how an answer begins that is no store's. It may repeat secrets: they are `hidden`."""
    if begins and _minute.has_room():
        _log.info(
            "an answer is no store's",
            operation=operation,
            place=place,
            status=status,
            begins=texts.cleaned(begins, _LOGGED_CHARACTERS, hidden=hidden),
        )
