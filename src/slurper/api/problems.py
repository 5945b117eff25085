"""Turns validation errors into items of `errors`: a code, a text that names the fix, a pointer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slurper.api import members
from slurper.api.envelope import Code, Problem
from slurper.errors import InvalidField

MAX_PROBLEMS = 20
"""The most problems in one answer. More would not help to mend a request."""

_VENDORS = frozenset({"s3", "gcs", "r2"})

_CODES = {
    "missing": Code.MISSING_FIELD,
    "union_tag_not_found": Code.MISSING_FIELD,
    "bucket_name": Code.INVALID_BUCKET_NAME,
    "object_key": Code.INVALID_OBJECT_NAME,
}

_TEXTS = {
    "missing": "is required",
    "string_type": "must be a string",
    "bool_type": "must be true or false, without quotes",
    "int_type": "must be a whole number, without quotes",
    "list_type": "must be a list",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "enum": "must be one of {expected}",
    "literal_error": "must be one of {expected}",
    "too_long": "has more than {max_length} entries",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "union_tag_not_found": "is required: one of {expected_tags}",
    "union_tag_invalid": "must be one of {expected_tags}",
}
_EXPECTED_VENDORS = {"expected_tags": "'s3', 'gcs', 'r2'"}


def from_validation(found: Sequence[Mapping[str, Any]], request: object) -> list[Problem]:
    """Return at most `MAX_PROBLEMS` problems for the errors of a FastAPI validation.

    `request` is the type of the body.
    """
    return [_problem(error, request) for error in found[:MAX_PROBLEMS]]


def _problem(error: Mapping[str, Any], request: object) -> Problem:
    kind = error["type"]
    if kind == "extra_forbidden":
        return _unknown_member(error["loc"], request)
    place = _place(error["loc"])
    context = {**_EXPECTED_VENDORS, **error.get("ctx", {})}
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        place = (*place, "vendor")
    template = _TEXTS.get(kind)
    text = error["msg"] if template is None else template.format_map(context)
    return named(_CODES.get(kind, Code.INVALID_FIELD), pointer(place), text)


def _unknown_member(location: Sequence[str | int], request: object) -> Problem:
    *where, last = location
    name, place = str(last), _place(where)
    shown = name if len(name) <= members.MOST_CHARACTERS else name[: members.MOST_CHARACTERS] + "…"
    text = members.advice(request, place, name)
    return named(Code.INVALID_FIELD, pointer((*place, shown)), text)


def _place(location: Sequence[str | int]) -> tuple[str, ...]:
    """Drop steps that are not part of the request: `body`, and the tag of a union's branch."""
    where, *rest = location
    inside = tuple(str(step) for step in rest if step not in _VENDORS)
    return inside if where == "body" else (str(where), *inside)


def pointer(place: Sequence[str]) -> str:
    """Return the JSON pointer of a place: the names and numbers that lead to it."""
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in place)


def from_invalid_field(error: InvalidField) -> Problem:
    """Return the problem that the service found."""
    return named(_CODES.get(error.kind, Code.INVALID_FIELD), error.pointer, error.message)


def named(code: Code, where: str, text: str) -> Problem:
    """Return a problem whose message begins with the field's name: `source.bucket: …`.

    `where` is its JSON pointer.
    """
    name = where.lstrip("/").replace("/", ".")
    return Problem(code, f"{name}: {text}" if name else text, where)
