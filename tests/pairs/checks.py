"""What the copies of a pair are held to. What is to arrive otherwise, or not at all, must."""

from __future__ import annotations

import re

from tests.pairs.cases import CASES
from tests.pairs.differences import Changed, Failing, difference, kept_by, unheld
from tests.pairs.pairs import Outcome, is_kept, put
from tests.pairs.referee import Stored
from tests.pairs.stores import Kind, Store


def arrives_or_is_told(outcome: Outcome, case: str) -> None:
    """Hold what became of a case against the table of differences."""
    pair, key = outcome.pair, CASES[case].key
    if case not in outcome.held:
        assert unheld(pair.source, case)
        return
    row, stored = difference(pair.source, pair.target, case), outcome.held[case]
    if isinstance(row, Failing):
        assert key not in outcome.replaced.at_target
        assert re.search(row.says, outcome.replaced.failures[key])
        return
    if isinstance(row, Changed):
        before = (key, stored)
        key, stored = row.key(key), row.into(stored)
        assert (key, stored) != before, "this changes nothing: the row is wrong"
    _same(outcome.replaced.at_target[key], kept_by(pair.target, stored))


def _same(found: Stored, expected: Stored) -> None:
    """Compare without printing megabytes."""
    assert (found.headers, found.metadata) == (expected.headers, expected.metadata)
    assert found.body == expected.body, "the bytes differ"


def _failing(outcome: Outcome) -> set[str]:
    """Keys that must fail."""
    pair = outcome.pair
    rows = {case: difference(pair.source, pair.target, case) for case in outcome.held}
    return {CASES[case].key for case, row in rows.items() if isinstance(row, Failing)}


def every_object_is_counted_once(outcome: Outcome) -> None:
    """Hold the counts of both runs against what is at the target."""
    held, failing = outcome.held, _failing(outcome)
    moved = len(held) - len(failing)
    for run, skipped in ((outcome.kept, len(outcome.found)), (outcome.replaced, 0)):
        told = run.told
        assert (told["status"], told["halt"]) == ("completed", None)
        assert run.failures.keys() == failing
        assert told["objects"] == len(held)
        assert (told["transferred"], told["skipped"], told["failed"]) == (
            moved - skipped,
            skipped,
            len(failing),
        )
        assert len(run.at_target) == moved
        assert run.uploads == []
    sizes = (len(held[case].body) for case in held if CASES[case].key not in failing)
    assert outcome.replaced.told["bytes"] == sum(sizes)


def what_is_found_stays(outcome: Outcome) -> None:
    """Hold what the first run left alone against what was there."""
    kept, replaced = outcome.kept.at_target, outcome.replaced.at_target
    assert len(outcome.found) > 10
    for key, stored in outcome.found.items():
        assert kept[key] == stored
        assert replaced[key].body != stored.body
    assert kept.keys() == replaced.keys()
    for key in kept.keys() - outcome.found.keys():
        assert kept[key] == replaced[key]


def nothing_is_copied_again(outcome: Outcome) -> None:
    """Hold the third run, which overwrites nothing, against the second."""
    told, failing = outcome.again, _failing(outcome)
    moved = len(outcome.held) - len(failing)
    counts = (told["transferred"], told["skipped"], told["failed"], told["bytes"])
    assert (told["status"], *counts) == ("completed", 0, moved, len(failing), 0)


def cannot_be_held(store: Store, case: str) -> None:
    """Hold a row of what a store cannot keep against the store."""
    bucket = store.new_bucket()
    put(bucket, CASES["key-nfc"])
    try:
        put(bucket, CASES[case])
    except Exception:  # of the client or from the store, each in its own way
        return
    found = bucket.read_all().get(CASES[case].key)
    assert found is None or not is_kept(Kind.S3, CASES[case], found)  # who keeps all
