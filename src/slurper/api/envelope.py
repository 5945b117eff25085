"""The envelope of every answer, and the table of error codes.

    success   {"success": true,  "errors": [],    "messages": [text …], "result": …}
    failure   {"success": false, "errors": [item …], "messages": [],    "result": null}

An error item is `{"code": 14001, "message": "…", "source": {"pointer": "/source/bucket"}}`. It has
`source` if the error is about one field of the request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from http import HTTPStatus

from fastapi.responses import JSONResponse

from slurper.api.schemas import ErrorItem


class Code(IntEnum):
    """All values of `errors[].code`.

    Codes below 14000 and above 100000 are Cloudflare's. They mean the same as at its gateway or in
    R2. Cloudflare publishes no codes of Super Slurper, so the 14000s are Slurper's own.
    """

    METHOD_NOT_AVAILABLE = 7001
    """405: the path exists, but not with this method."""
    NO_ROUTE = 7003
    """404: no such path. 400: the account id is not valid."""
    SCOPE = 9109
    """403: the token is valid, and its scope is too small."""
    AUTHENTICATION = 10000
    """401: no credentials, or none that are valid for the account."""
    INTERNAL = 10001
    """500: a fault of the server; its log says more."""
    INVALID_BUCKET_NAME = 10005
    """400: breaks the provider's naming rules."""
    INVALID_OBJECT_NAME = 10020
    """400: a key that no store can hold."""
    UNAVAILABLE = 10043
    """503: the server runs but cannot work: it has no database, or too many requests under way."""
    TOO_MANY_REQUESTS = 10058
    """429: too much is under way, `Retry-After` says when to try again; nothing was changed."""
    AUTHENTICATION_LIMIT = 10502
    """429: too many requests without a valid token came from this address."""
    MALFORMED_REQUEST = 14000
    """400: the body cannot be read as one JSON object, or the request itself is broken.
    431: its head is too long."""
    INVALID_FIELD = 14001
    """400: a member or parameter has a wrong type or value; `source.pointer` names it."""
    MISSING_FIELD = 14002
    """400: a member is required and absent."""
    JOB_NOT_FOUND = 14004
    """404: no such job in this account."""
    JOB_CONFLICT = 14009
    """409: the job's status does not allow it."""
    JOB_LIMIT = 14010
    """409: the account, or all accounts, have as many active jobs as they may have."""
    PRECHECK_FAILED = 14011
    """403: a side of a new job cannot be used. A general item comes first, then one per problem."""
    KEY_REUSED = 14012
    """422: the `Idempotency-Key` was used before, with another request."""
    ENTITY_TOO_LARGE = 100100
    """413: the body is longer than any valid request."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One item of `errors`."""

    code: Code
    message: str
    pointer: str | None = None
    """JSON pointer into the body, or `/query/<name>`, `/path/<name>` or `/header/<name>`."""


class Refusal(Exception):
    """Ends a request with a failure envelope."""

    def __init__(
        self, status: HTTPStatus, problem: Problem, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(problem.message)
        self.status = status
        self.problem = problem
        self.headers = headers


def malformed(message: str, pointer: str | None = None) -> Refusal:
    """Return a 400 about the request as a whole."""
    return Refusal(HTTPStatus.BAD_REQUEST, Problem(Code.MALFORMED_REQUEST, message, pointer))


def failure(
    status: int, problems: Sequence[Problem], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Build the answer to a request that failed; `status` is never 2xx."""
    sent = dict(headers or {})
    if status == HTTPStatus.CONFLICT:
        # After a 409 the SDKs send the request up to two times again, unless told not to. A create
        # could then succeed after a conflict, and its caller would not notice the conflict.
        sent["x-should-retry"] = "false"
    body = {
        "success": False,
        "errors": [_item(problem) for problem in problems],
        "messages": [],
        "result": None,
    }
    return JSONResponse(body, status_code=status, headers=sent)


def _item(problem: Problem) -> ErrorItem:
    item = ErrorItem(code=int(problem.code), message=encodable(problem.message))
    if problem.pointer is not None:
        item["source"] = {"pointer": encodable(problem.pointer)}
    return item


def encodable(text: str) -> str:
    r"""Return `text` with escapes such as `\udc80` for lone surrogates: UTF-8 cannot hold them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
