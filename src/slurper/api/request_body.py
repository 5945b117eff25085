"""Reads a request's body. Its length is limited, and it must be strict JSON.

Python's parser accepts texts that cause trouble later. A member may be given twice; the last one
counts. There may be NaN, very long numbers, and objects with any number of members. All of these
are refused here.
"""

from __future__ import annotations

import json
from email.message import Message
from http import HTTPStatus
from typing import Any, NoReturn

from fastapi import Request
from starlette.requests import ClientDisconnect

from slurper.api.envelope import Code, Problem, Refusal, malformed
from slurper.job import rules

# JSON may write a character that is not ASCII as \uXXXX: up to three bytes for a byte of the key.
MAX_BODY_BYTES = rules.MAX_KEYS * rules.MAX_KEY_BYTES * 3 + (1 << 20)
"""31 MB: the largest list of keys, escaped, and a mebibyte for everything else."""

MAX_MEMBERS = 100
"""The most members of one object. No model has as many. Each unknown member becomes an error."""


class JsonRequest(Request):
    """A request whose body has been read and parsed."""

    parsed: object

    async def json(self) -> object:
        """Return the parsed body."""
        return self.parsed


async def read_json(request: Request, *, optional: bool = False) -> JsonRequest:
    """Return the request with its body parsed.

    An `optional` body may be empty, with any content type. It may also be `null`, as some generated
    clients send it.

    Raises:
        Refusal: 413 for a body over the limit; 400 for one that is not exactly one JSON object.
    """
    if not optional:
        _require_json(request)
    body = await _bounded_body(request)
    complete = JsonRequest(request.scope, _replay(body))
    if optional and not body.strip():
        return JsonRequest(request.scope, _replay(b""))
    if optional:
        _require_json(request)
        if body.strip() == b"null":
            return JsonRequest(request.scope, _replay(b""))
    complete.parsed = parse(body)
    return complete


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


async def _bounded_body(request: Request) -> bytes:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > MAX_BODY_BYTES:
        _refuse_size()
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                _refuse_size()
    except ClientDisconnect as error:
        raise malformed("the connection was closed before the whole body had arrived") from error
    return bytes(body)


def _refuse_size() -> NoReturn:
    raise Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        Problem(
            Code.ENTITY_TOO_LARGE,
            f"the body is larger than {MAX_BODY_BYTES} bytes; a job takes at most "
            f"{rules.MAX_KEYS} keys, so split the list over several jobs or use pathPrefix",
        ),
        # The rest of the body was not read. Without this it would be taken for the next request.
        headers={"connection": "close"},
    )


def parse(body: bytes) -> dict[str, object]:
    """Return the JSON object that `body` is.

    Raises:
        Refusal: it is anything else; the text says what.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise malformed(f"the body is not valid UTF-8 at byte {error.start}") from error
    if not text.strip():
        raise malformed("the body is empty; this operation needs a JSON object")
    value = _loads(text)
    if not isinstance(value, dict):
        raise malformed("the body must be a JSON object")
    return value


def _loads(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_unique_members, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise malformed(
            f"the body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error
    except RecursionError as error:
        raise malformed("the body is nested too deeply") from error
    except ValueError as error:
        # The interpreter refuses to read integers of more than 4,300 digits.
        raise malformed("the body holds a number that is too long") from error


def _unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(pairs) > MAX_MEMBERS:
        raise malformed(f"an object in the body has more than {MAX_MEMBERS} members")
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise malformed(f"the member {json.dumps(twice[:100])} is given more than once")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise malformed(f"the body is not valid JSON: {name} is not a JSON number")
