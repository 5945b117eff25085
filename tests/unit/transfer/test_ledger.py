from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slurper.job.model import Counts, LogType
from slurper.transfer.ledger import Failed, Ledger, Outcome, Skipped, Transferred

outcomes = st.one_of(
    st.builds(Transferred, st.integers(0, 100)),
    st.just(Skipped()),
    st.just(Skipped(LogType.IMPORT_SKIPPED_OVERSIZED, "large")),
    st.just(Failed("broken")),
)


def expected_counts(settled: list[Outcome]) -> Counts:
    return Counts(
        objects=len(settled),
        transferred=sum(isinstance(one, Transferred) for one in settled),
        skipped=sum(isinstance(one, Skipped) for one in settled),
        failed=sum(isinstance(one, Failed) for one in settled),
        transferred_bytes=sum(one.size for one in settled if isinstance(one, Transferred)),
    )


@given(data=st.data(), plan=st.lists(outcomes, max_size=30))
def test_only_what_lies_below_every_gap_is_counted(
    data: st.DataObject, plan: list[Outcome]
) -> None:
    keys = [f"k{i:03d}" for i in range(len(plan))]
    ledger = Ledger("a")
    entries = [ledger.open(key) for key in keys]
    order = data.draw(st.permutations(range(len(plan))))
    settled = order[: data.draw(st.integers(0, len(plan)))]
    for index in settled:
        ledger.settle(entries[index], plan[index])
    gapless = next((i for i in range(len(plan)) if i not in settled), len(plan))
    assert ledger.cursor == (keys[gapless - 1] if gapless else "a")
    assert ledger.counts == expected_counts(plan[:gapless])
    assert ledger.all_settled == (len(settled) == len(plan))
    logged = [
        key
        for key, one in zip(keys[:gapless], plan, strict=False)
        if isinstance(one, Failed) or (isinstance(one, Skipped) and one.log_type is not None)
    ]
    assert [event.key for event in ledger.events] == logged


def test_a_failure_is_logged_as_exhausted_and_an_existing_object_not_at_all() -> None:
    ledger = Ledger(None)
    ledger.settle(ledger.open("a"), Failed("HTTP 500"))
    ledger.settle(ledger.open("b"), Skipped())
    assert [(event.log_type, event.message) for event in ledger.events] == [
        (LogType.IMPORT_ERROR_RETRY_EXHAUSTION, "HTTP 500")
    ]
    assert ledger.counts.skipped == 1
