"""Reads a request's body. Its length is limited, and it must be strict JSON.

The body is parsed as it comes in, in short steps. Between two of them the event loop serves others.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator
from email.message import Message
from http import HTTPStatus
from typing import Any, NoReturn

from fastapi import Request
from starlette.requests import ClientDisconnect

from slurper.api.body_memory import Claim
from slurper.api.envelope import Code, Problem, Refusal, malformed
from slurper.api.json_reader import JsonReader
from slurper.job import rules

# JSON may write a character that is not ASCII as \uXXXX: up to three bytes for a byte of the key.
MAX_BODY_BYTES = rules.MAX_KEYS * rules.MAX_KEY_BYTES * 3 + (1 << 20)
"""31 MB: the largest list of keys, escaped, and a mebibyte for everything else."""

MAX_KEYLESS_BODY_BYTES = 1 << 20
"""For requests without a list of keys."""

_PIECE_BYTES = 16 << 10
"""Parsing so much takes a few milliseconds, whatever it holds."""

_HEARD_LATE = (HTTPStatus.BAD_REQUEST, HTTPStatus.TOO_MANY_REQUESTS)
"""Before these the rest of the body is read and dropped: many clients read no answer before they
have sent everything."""

_STAND_IN = b"{}"
"""FastAPI asks whether there is a body, and then for what was parsed."""


class JsonRequest(Request):
    """A request whose body has been read and parsed."""

    parsed: object

    async def json(self) -> object:
        """Return the parsed body."""
        return self.parsed


async def read_json(
    request: Request, claim: Claim, *, max_bytes: int, optional: bool = False
) -> JsonRequest:
    """Return the request with its body parsed.

    An `optional` body may be empty, with any content type. It may also be `null`, as some generated
    clients send it. `claim` is what the body may take in memory.

    Raises:
        Refusal: 413 for a body over `max_bytes`; 400 for one that is not exactly one JSON object;
            429 if there is no memory for it.
    """
    if not optional:
        _require_json(request)
    parsed = await _parsed(request, claim, max_bytes, optional=optional)
    if parsed is None and optional:
        return JsonRequest(request.scope, _replay(b""))
    if not isinstance(parsed, dict):
        raise malformed("the body must be a JSON object")
    complete = JsonRequest(request.scope, _replay(_STAND_IN))
    complete.parsed = parsed
    return complete


async def _parsed(request: Request, claim: Claim, max_bytes: int, *, optional: bool) -> object:
    """Parse the body as it comes in. None: it is null, or it is empty and `optional`."""
    announced = _announced(request, max_bytes)
    length = max_bytes if announced is None else announced
    reader, decoder = JsonReader(), _Decoder()
    pieces = _pieces(request, max_bytes)
    try:
        await claim.grow(announced or 0, length=length)
        async for piece in pieces:
            await claim.grow(reader.held_bytes, length=length)
            text = decoder.decode(piece)
            if optional and text.strip():
                _require_json(request)
                optional = False
            reader.feed(text)
        reader.feed(decoder.decode(b"", is_last=True))
    except Refusal as refusal:
        if refusal.status in _HEARD_LATE:
            async for _ in pieces:
                pass
        raise
    if reader.has_begun:
        whole = reader.finish()
        claim.keep(reader.held_bytes)
        return whole
    if not optional:
        raise malformed("the body is empty; this operation needs a JSON object")
    return None


class _Decoder:
    """Decodes pieces of UTF-8."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._taken = 0

    def decode(self, piece: bytes, *, is_last: bool = False) -> str:
        """Return the characters that are complete. Raises Refusal."""
        kept = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(piece, is_last)
        except UnicodeDecodeError as error:
            at = self._taken - kept + error.start
            raise malformed(f"the body is not valid UTF-8 at byte {at}") from error
        self._taken += len(piece)
        return text


def _replay(body: bytes) -> Any:  # noqa: ANN401 - ASGI's own types are dictionaries of anything
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _require_json(request: Request) -> None:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise malformed("the body must not be compressed: send it without Content-Encoding")
    header = Message()
    header["content-type"] = request.headers.get("content-type", "")
    subtype = header.get_content_subtype()
    is_json = header.get_content_maintype() == "application" and (
        subtype == "json" or subtype.endswith("+json")
    )
    if not is_json:
        raise malformed("the body must be JSON: send it with Content-Type: application/json")
    if str(header.get_param("charset", "utf-8")).lower() not in ("utf-8", "utf8", "us-ascii"):
        raise malformed("the body must be UTF-8: send it with Content-Type: application/json")


async def _pieces(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    """The body in pieces. After each one, others get their turn."""
    kept, received = bytearray(), 0
    try:
        async for chunk in request.stream():
            received += len(chunk)
            if received > max_bytes:
                _refuse_size(max_bytes)
            kept += chunk
            while len(kept) >= _PIECE_BYTES:
                yield bytes(kept[:_PIECE_BYTES])
                del kept[:_PIECE_BYTES]
                await asyncio.sleep(0)
    except ClientDisconnect as error:
        raise malformed("the connection was closed before the whole body had arrived") from error
    yield bytes(kept)


def _announced(request: Request, max_bytes: int) -> int | None:
    """Return the length that a body announces; None: it announces none. Raises Refusal."""
    text = request.headers.get("content-length", "")
    if not (text.isascii() and text.isdecimal()):
        return None
    # It may have more digits than Python reads.
    if len(text) > _MAX_LENGTH_DIGITS or int(text) > max_bytes:
        _refuse_size(max_bytes)
    return int(text)


_MAX_LENGTH_DIGITS = 18


def _refuse_size(max_bytes: int) -> NoReturn:
    fix = (
        f"a job takes at most {rules.MAX_KEYS} keys, so split the list over several jobs or use "
        "pathPrefix"
        if max_bytes == MAX_BODY_BYTES
        else "no request of this kind needs as much"
    )
    raise Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        Problem(
            Code.ENTITY_TOO_LARGE,
            f"the body is larger than {max_bytes} bytes; {fix}",
        ),
        # The rest of the body was not read. Without this it would be taken for the next request.
        headers={"connection": "close"},
    )
