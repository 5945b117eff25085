"""What a trace says of a copy; wrong figures would send the next change to the wrong place."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import trace
from benchmarks.run import staged
from benchmarks.sets import SETS
from benchmarks.targets import NGINX
from benchmarks.trace import Span
from benchmarks.traced import CHECK, COMMIT, COPY, TASK
from hypothesis import given
from hypothesis import strategies as st

WHOLE = 100

spans = st.lists(
    st.tuples(st.integers(-20, WHOLE + 20), st.integers(0, 40)).map(
        lambda pair: Span(pair[0], sum(pair))
    ),
    max_size=12,
)


def _under_way(found: list[Span], second: int) -> int:
    return sum(one.began <= second < one.ended for one in found)


@given(spans)
def test_averages_and_gaps_are_those_of_each_second(found: list[Span]) -> None:
    seconds = [_under_way(found, second) for second in range(WHOLE)]
    assert trace.average(found, Span(0, WHOLE)) == pytest.approx(sum(seconds) / WHOLE)
    assert trace.uncovered(found, Span(0, WHOLE)) == pytest.approx(seconds.count(0) / WHOLE)


@pytest.mark.processes
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@pytest.mark.parametrize("name", ["start", "line-96M-1ms"])
def test_a_copy_is_traced_from_its_start_to_its_end(name: str, tmp_path: Path) -> None:
    each = SETS[name].quick
    with staged(each, "nginx", tmp_path) as stage:
        found = trace.traced(each, stage, tmp_path, lanes=8, workers=1)
    (check,), copy = found.spans[CHECK], found.copy
    times = [found.whole.began, check.began, check.ended, copy.began, copy.ended, found.whole.ended]
    assert times == sorted(times)
    inside = (*found.spans[TASK], *found.spans[COMMIT], *found.spans[COPY])
    assert all(check.ended <= one.began <= one.ended <= found.whole.ended for one in inside)
    assert found.waited["source"] > 0
    assert found.waited["target"] > 0
    told = [line.split()[0] for line in trace.lines(found, each.dataset.bytes) if line]
    assert {"start", "check", "begin", "list", "copy", "end", "commit"} <= set(told)
