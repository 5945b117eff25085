"""Finds out and reports which keys and headers come back from a target as they were written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from slurper.objectstore import key_shapes
from slurper.objectstore.base import ProbedStore
from slurper.objectstore.dialects import KeyOrder
from slurper.service.probes.check import Check, StepFailed
from slurper.service.probes.specimens import Findings, Specimens

_FOLDERS_NOTED = (
    "the target keeps objects as files in folders: keys that begin with '/' or hold '//' or a "
    "backslash fail, and so do objects with bytes whose key ends with '/'"
)


async def ask(store: ProbedStore, check: Check) -> None:
    """Write objects, read them, and note what the target does not keep."""
    hasty = check.open_hasty(store)
    try:
        await _examine(store, Specimens(hasty, check.new_key()), check)
    finally:
        await hasty.close()


async def _examine(store: ProbedStore, specimens: Specimens, check: Check) -> None:
    try:
        async with check.step("writing objects, and reading them"):
            kept = await specimens.examine(check.deadline, is_far=store.statistics.is_far)
    except StepFailed as failed:
        check.notes.append(
            "which keys and headers the target keeps could not be found out, and is assumed "
            f"({failed})"
        )
    else:
        check.found = replace(check.found, unkept_keys=kept.keys, unkept_headers=kept.headers)
        check.notes += _texts_of(kept)
    finally:
        name = specimens.name
        left = f"objects of the check may be left: delete what begins with {name}, also after '/'"
        check.remove(specimens.remove(store), left)


def _texts_of(kept: Findings) -> Iterator[str]:
    if kept.keys:
        texts = "; ".join(map(key_shapes.text_of, kept.keys))
        yield f"the target does not keep every key; these fail, each by itself: {texts}"
    if kept.headers:
        yield (
            f"the target does not keep {', '.join(kept.headers)}: objects arrive without them, or "
            "fail where options.require (--require) names them"
        )
    if kept.unknown:
        texts = "; ".join(map(key_shapes.text_of, kept.unknown))
        yield f"whether the target keeps these could not be found out, and is assumed: {texts}"


def note_folders(check: Check) -> None:
    """Note what every store that lists folder by folder refuses, if nothing was found out."""
    found = check.found
    if found.unkept_keys is None and found.key_order == KeyOrder.FOLDERS.value:
        check.notes.append(_FOLDERS_NOTED)
