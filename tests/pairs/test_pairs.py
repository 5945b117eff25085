"""The real program copies every case between every pair of stores; others look at what arrived.

What is to arrive otherwise, or not at all, stands in `differences`, and must.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.pairs import checks
from tests.pairs.cases import CASES
from tests.pairs.differences import CHANGED, FAILING, UNHELD, difference, unheld, unheld_at
from tests.pairs.pairs import PAIRS, SERVERS, Outcome, Playground
from tests.pairs.stores import Kind, Store

StoreOf = Callable[[Kind], Store]


@pytest.fixture(scope="module")
def playground(store_of: StoreOf) -> Playground:
    return Playground(store_of, [PAIRS])


@pytest.fixture(scope="module", params=PAIRS, ids=str)
def outcome(
    request: pytest.FixtureRequest,
    playground: Playground,
    tmp_path_factory: pytest.TempPathFactory,
) -> Outcome:
    """What became of a pair's copies, which are made once for all cases."""
    return playground.play(request.param, tmp_path_factory.mktemp("pair"))


@pytest.mark.parametrize("case", CASES)
def test_an_object_arrives_or_is_told(outcome: Outcome, case: str) -> None:
    checks.arrives_or_is_told(outcome, case)


def test_every_object_is_counted_once(outcome: Outcome) -> None:
    checks.every_object_is_counted_once(outcome)


def test_without_overwrite_what_is_found_stays(outcome: Outcome) -> None:
    checks.what_is_found_stays(outcome)


def test_without_overwrite_nothing_is_copied_again(outcome: Outcome) -> None:
    checks.nothing_is_copied_again(outcome)


@pytest.mark.parametrize(
    ("kind", "case"), [(k, c) for k in Kind if k not in SERVERS for c in unheld_at(k)]
)
def test_what_a_store_cannot_hold(store_of: StoreOf, kind: Kind, case: str) -> None:
    checks.cannot_be_held(store_of(kind), case)


def test_every_difference_is_met_by_a_pair() -> None:
    met = {
        (case, id(row))
        for pairs in (PAIRS, *SERVERS.values())
        for pair in pairs
        for case in CASES
        if unheld(pair.source, case) is None
        and (row := difference(pair.source, pair.target, case)) is not None
    }
    assert met == {(case, id(row)) for row in (*FAILING, *CHANGED) for case in row.cases}
    assert {case for row in UNHELD for case in row.cases} <= CASES.keys()
