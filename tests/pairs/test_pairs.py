"""The real program copies every case between every pair of stores; others look at what arrived.

What is to arrive otherwise, or not at all, stands in `differences`, and must.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.pairs.cases import CASES
from tests.pairs.differences import (
    CHANGED,
    FAILING,
    UNHELD,
    Changed,
    Failing,
    difference,
    unheld,
)
from tests.pairs.pairs import (
    PAIRS,
    Outcome,
    Pair,
    Source,
    Target,
    fill,
    is_kept,
    play,
    prepare,
    put,
)
from tests.pairs.referee import Stored
from tests.pairs.stores import Kind, Store

StoreOf = Callable[[Kind], Store]


@pytest.fixture(scope="session")
def sources() -> dict[Kind, Source]:
    """Buckets that are filled once and only read."""
    return {}


@pytest.fixture(scope="session")
def targets(store_of: StoreOf) -> dict[Pair, Target]:
    """All of them, for what they hold has to be a little older than the jobs."""
    return {pair: prepare(pair, store_of(pair.target)) for pair in PAIRS}


@pytest.fixture(scope="module", params=PAIRS, ids=str)
def outcome(
    request: pytest.FixtureRequest,
    store_of: StoreOf,
    sources: dict[Kind, Source],
    targets: dict[Pair, Target],
    tmp_path_factory: pytest.TempPathFactory,
) -> Outcome:
    """What became of a pair's copies, which are made once for all cases."""
    pair: Pair = request.param
    if pair.source not in sources:
        sources[pair.source] = fill(pair.source, store_of(pair.source))
    directory = tmp_path_factory.mktemp("pair")
    return play(pair, sources[pair.source], targets[pair], directory)


@pytest.mark.parametrize("case", CASES)
def test_an_object_arrives_or_is_told(outcome: Outcome, case: str) -> None:
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
    assert_same(outcome.replaced.at_target[key], stored)


def assert_same(found: Stored, expected: Stored) -> None:
    """Compare without printing megabytes."""
    assert (found.headers, found.metadata) == (expected.headers, expected.metadata)
    assert found.body == expected.body, "the bytes differ"


def test_every_object_is_counted_once(outcome: Outcome) -> None:
    pair, held = outcome.pair, outcome.held
    rows = {case: difference(pair.source, pair.target, case) for case in held}
    failing = {CASES[case].key for case, row in rows.items() if isinstance(row, Failing)}
    moved = len(held) - len(failing)
    for run, skipped in ((outcome.kept, len(outcome.found)), (outcome.replaced, 0)):
        told = run.told
        assert (told["status"], told["halt"]) == ("completed", None)
        assert told["objects"] == len(held)
        assert (told["transferred"], told["skipped"], told["failed"]) == (
            moved - skipped,
            skipped,
            len(failing),
        )
        assert run.failures.keys() == failing
        assert len(run.at_target) == moved
        assert run.uploads == []
    sizes = (len(held[case].body) for case in held if CASES[case].key not in failing)
    assert outcome.replaced.told["bytes"] == sum(sizes)


def test_without_overwrite_what_is_found_stays(outcome: Outcome) -> None:
    kept, replaced = outcome.kept.at_target, outcome.replaced.at_target
    assert len(outcome.found) > 10
    for key, stored in outcome.found.items():
        assert kept[key] == stored
        assert replaced[key].body != stored.body
    assert kept.keys() == replaced.keys()
    for key in kept.keys() - outcome.found.keys():
        assert kept[key] == replaced[key]


@pytest.mark.parametrize(
    ("kind", "case"), [(kind, case) for row in UNHELD for kind in row.at for case in row.cases]
)
def test_what_a_store_cannot_hold(store_of: StoreOf, kind: Kind, case: str) -> None:
    bucket = store_of(kind).new_bucket()
    put(bucket, CASES["key-nfc"])
    try:
        put(bucket, CASES[case])
    except Exception:  # of the client or from the store, each in its own way
        return
    found = bucket.read_all().get(CASES[case].key)
    assert found is None or not is_kept(CASES[case], found)


def test_every_difference_is_met_by_a_pair() -> None:
    met = {
        (case, id(row))
        for pair in PAIRS
        for case in CASES
        if unheld(pair.source, case) is None
        and (row := difference(pair.source, pair.target, case)) is not None
    }
    assert met == {(case, id(row)) for row in (*FAILING, *CHANGED) for case in row.cases}
    assert {case for row in UNHELD for case in row.cases} <= CASES.keys()
