from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slurper.http.window import AdaptiveWindow

answers = st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=200)


@given(ceiling=st.integers(1, 200), answers=answers)
def test_always_between_one_and_the_ceiling(
    ceiling: int, answers: list[tuple[bool, float]]
) -> None:
    window = AdaptiveWindow(ceiling)
    now = 0.0
    for throttled, elapsed in answers:
        now += elapsed
        if throttled:
            window.throttled(sent_at=now - elapsed, now=now)
        else:
            window.granted()
        assert 1 <= window.size <= ceiling


def test_a_burst_of_refusals_cuts_once() -> None:
    window = AdaptiveWindow(64)
    for _ in range(64):
        window.throttled(sent_at=1.0, now=2.0)
    assert window.size == 32
    window.throttled(sent_at=2.5, now=3.0)
    assert window.size == 16


def test_a_window_of_good_answers_widens_by_about_one() -> None:
    window = AdaptiveWindow(64)
    window.throttled(sent_at=0.0, now=0.0)
    for _ in range(33):
        window.granted()
    assert window.size == 33


def test_it_recovers_to_the_ceiling_and_no_further() -> None:
    window = AdaptiveWindow(8)
    window.throttled(sent_at=0.0, now=0.0)
    assert window.narrowed
    for _ in range(100):
        window.granted()
    assert window.size == 8
    assert not window.narrowed
