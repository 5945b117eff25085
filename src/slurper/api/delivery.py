"""The headers of a request that are about sending it again."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Depends, Request

from slurper import errors
from slurper.job import model

KEY_HEADER = "Idempotency-Key"

RETRIES_HEADER = "x-stainless-retry-count"
"""In this header, Cloudflare's SDKs say how often they have sent the request before."""

_KEY = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")
_COUNT = re.compile(r"[0-9]{1,9}")

OPENAPI_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": KEY_HEADER,
        "in": "header",
        "required": False,
        "description": (
            "For a day, a request with the same key makes no second job: it gets the answer of the "
            "first. With another body it is refused (422)."
        ),
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        "x-extension": True,
    }
]
"""It is not declared as a parameter of the operations, so that it can be marked as an extension."""


def read(request: Request) -> model.Delivery:
    """Return what the headers say. Raises InvalidField: a key is given and is not valid."""
    count = request.headers.get(RETRIES_HEADER, "")
    retries = int(count) if _COUNT.fullmatch(count) else 0
    return model.Delivery(key=_key(request.headers.getlist(KEY_HEADER)), retries=retries)


def _key(given: list[str]) -> str | None:
    if not given:
        return None
    if len(given) > 1 or _KEY.fullmatch(given[0]) is None:
        text = "must be one text of 1 to 255 visible ASCII characters, such as a UUID"
        raise errors.InvalidField(f"/header/{KEY_HEADER}", text)
    return given[0]


Delivery = Annotated[model.Delivery, Depends(read)]
