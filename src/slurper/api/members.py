"""Finds out which known member a sender may have meant by an unknown one.

The known members are read from the models in `schemas`.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from pydantic import BaseModel

from slurper.api import schemas

Place = tuple[str, ...]
"""The names that lead to an object in the body; () is the body itself."""

MOST_CHARACTERS = 64
"""A longer name is not taken for a misspelling, and is cut short in the answer."""

_LIKENESS = 0.7
"""How similar two names must be, from 0 to 1. Only then is one proposed for the other."""

_SYNONYMS = {
    "account": "accountId",
    "credentials": "secret",
    "dest": "target",
    "destination": "target",
    "files": "keys",
    "folder": "pathPrefix",
    "host": "endpoint",
    "objects": "keys",
    "path": "pathPrefix",
    "provider": "vendor",
    "sink": "target",
    "url": "endpoint",
}
"""Names from other interfaces, and names that people guess."""


def advice(request: object, place: Place, name: str) -> str:
    """Say what is wrong with a member that this kind of request does not have.

    Args:
        request: the type of the body: a model, or a union of models.
        place: where the member was found.
        name: the member.
    """
    here = _members(request).get(place, {})
    if name == schemas.OTHER_PATH_PREFIX and "pathPrefix" in here:
        return "contradicts pathPrefix, which is the same; give one of the two"
    if name in here:
        return f"belongs to {_forms(here[name])}; leave it out"
    if name in _members(schemas.CreateJob).get(place, {}) and _changes_a_job(request):
        return f"cannot be changed here, where a job changes only {_listed(sorted(here))}"
    if _SYNONYMS.get(_plain(name), name) == "accountId":
        return "is not known here; the account is the one that the request's path names"
    meant = _meant(request, place, name)
    if meant:
        return f"is not known here; did you mean {' or '.join(meant)}?"
    return f"is not known here; known are {_listed(sorted(here))}"


def may_have(request: object, name: str) -> bool:
    """Whether a member of this name may be anywhere in a request of this type."""
    return any(name in here for here in _members(request).values())


def _changes_a_job(request: object) -> bool:
    """Whether a create request has all top-level members of this request, too."""
    return _members(request)[()].keys() <= _members(schemas.CreateJob)[()].keys()


def _meant(request: object, place: Place, name: str) -> Sequence[str]:
    """Return known names with the same letters, here or elsewhere, or else a similar name."""
    if len(name) > MOST_CHARACTERS:
        return ()
    here = {_plain(known): [known] for known in _members(request).get(place, {})}
    elsewhere = _elsewhere(request, place)
    wanted = _plain(_SYNONYMS.get(_plain(name), name))
    for names in (here, elsewhere):
        if wanted in names:
            return names[wanted]
    for names in (here, elsewhere):
        for like in difflib.get_close_matches(wanted, names, 1, _LIKENESS):
            return names[like]
    return ()


def _elsewhere(request: object, place: Place) -> Mapping[str, list[str]]:
    """Return pointers to the members at other places, by the member's name and by its pointer."""
    found: dict[str, list[str]] = {}
    for other, names in _members(request).items():
        for name in names if other != place else ():
            pointer = "/" + "/".join((*other, name))
            for spelling in {_plain(name), _plain(pointer)}:
                found.setdefault(spelling, []).append(pointer)
    return found


@functools.cache
def _members(request: object) -> Mapping[Place, Mapping[str, Sequence[type[BaseModel]]]]:
    """Return each place in a body, with its known names and, for each name, the models with it."""
    found: dict[Place, dict[str, list[type[BaseModel]]]] = {}
    for place, name, model in _walk(request, ()):
        found.setdefault(place, {}).setdefault(name, []).append(model)
    return found


def _walk(request: object, place: Place) -> Iterator[tuple[Place, str, type[BaseModel]]]:
    for model in _models(request):
        for field in model.model_fields.values():
            name = str(field.alias)
            yield place, name, model
            yield from _walk(field.annotation, (*place, name))


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for part in get_args(annotation):
            yield from _models(part)


def _forms(models: Sequence[type[BaseModel]]) -> str:
    """Name the vendors of models, or the kind of secret."""
    if not all(issubclass(model, schemas.SideFields) for model in models):
        return "the other kind of secret"
    vendors = [get_args(model.model_fields["vendor"].annotation)[0] for model in models]
    return f"sides of vendor {' or '.join(vendors)}"


def _plain(name: str) -> str:
    """Return the letters and digits of a name, in lower case. Names are compared in this form."""
    return re.sub(r"[\W_]", "", name.casefold())


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
