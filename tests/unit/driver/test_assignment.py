from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper import errors
from slurper.database.schema import encode_key
from slurper.jobs import assignment
from slurper.jobs.models import Job, JobStatus, Jurisdiction, Location, Vendor
from slurper.planning.keyspace import KeyRange
from slurper.settings import Settings
from slurper.transfer.task import RangeTask
from tests.unit.driver.conftest import ACCOUNT, SECRETS, SPEC, report

CREATED = datetime(2026, 3, 19, 15, 46, 20, 987_654, UTC)
JOB = Job(id="j", account_id=ACCOUNT, spec=SPEC, status=JobStatus.RUNNING, created_at=CREATED)
KEYS = st.text(
    st.sampled_from(["a", "b", "é", "\udc80", "\udcff", "\U0001f600", "￿", "/"]), max_size=4
)
EITHER_END = st.none() | KEYS


def make(job: Job, slice_left: KeyRange = KeyRange(), failures: int = 0) -> RangeTask | None:  # noqa: B008 - frozen
    return assignment.make_task(
        job,
        7,
        slice_left,
        secrets=SECRETS,
        settings=Settings(task_seconds=8.0),
        uncounted=failures > 0,
        failures=failures,
    )


def with_keys(*keys: str) -> Job:
    return replace(JOB, spec=replace(SPEC, keys=tuple(sorted(set(keys), key=encode_key))))


@given(st.lists(KEYS, max_size=30), EITHER_END, EITHER_END)
def test_keys_within_a_slice_are_those_between_its_ends_in_byte_order(
    keys: list[str], start_after: str | None, end_at: str | None
) -> None:
    ordered = sorted(set(keys), key=encode_key)
    expected = [
        key
        for key in ordered
        if (start_after is None or encode_key(key) > encode_key(start_after))
        and (end_at is None or encode_key(key) <= encode_key(end_at))
    ]
    assert list(assignment.keys_within(ordered, KeyRange(start_after, end_at))) == expected


@given(st.lists(KEYS, min_size=1, max_size=40), st.data())
def test_tasks_of_explicit_keys_cover_each_key_once(keys: list[str], data: st.DataObject) -> None:
    """Whatever the workers leave undone, and however the tasks are cut."""
    job = with_keys(*keys)
    assert job.spec.keys is not None
    slice_left, settled, finished = KeyRange(), list[str](), False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "MAX_KEYS", data.draw(st.integers(1, 7)))
        while not finished:
            task = make(job, slice_left)
            assert task is not None
            assert task.keys
            done = data.draw(st.integers(1, len(task.keys)))
            all_done = done == len(task.keys) and data.draw(st.booleans())
            said = report(task, task.keys[done - 1], objects=done, finished=all_done)
            concluded = assignment.conclude(said, task, job, slice_left)
            settled += task.keys[:done]
            slice_left, finished = slice_left.after(concluded.cursor), concluded.finished
    assert tuple(settled) == job.spec.keys
    assert make(job, slice_left) is None


def test_a_listed_range_takes_the_workers_word() -> None:
    task = make(JOB)
    assert task is not None
    said = report(task, "k", finished=True)
    assert assignment.conclude(said, task, JOB, KeyRange()) is said


def test_a_task_that_settled_none_of_its_keys_leaves_the_cursor() -> None:
    job = with_keys("a", "b", "c")
    task = make(job, KeyRange("a"))
    assert task is not None
    assert task.keys == ("b", "c")
    concluded = assignment.conclude(report(task, "a"), task, job, KeyRange("a"))
    assert (concluded.cursor, concluded.finished) == ("a", False)
    nothing_at_all = assignment.conclude(report(task, None), task, job, KeyRange())
    assert (nothing_at_all.cursor, nothing_at_all.finished) == (None, False)


def test_the_budget_shrinks_with_failures_but_not_to_nothing() -> None:
    tasks = [make(JOB, failures=failures) for failures in range(8)]
    budgets = [task.budget_seconds for task in tasks if task is not None]
    assert budgets == [8.0, 4.0, 2.0, 1.0, 0.5, 0.5, 0.5, 0.5]


def test_a_small_budget_is_never_enlarged() -> None:
    assert assignment._budget_seconds(0.01, 5) == 0.01


def test_replays_begin_before_the_second_in_which_the_job_was_made() -> None:
    task = make(JOB, failures=1)
    assert task is not None
    assert task.replayed_since == datetime(2026, 3, 19, 15, 46, 19, tzinfo=UTC)


def test_the_text_says_which_side_cannot_be_used() -> None:
    gcs = Location(vendor=Vendor.GCS, bucket="b")
    with pytest.raises(errors.ConfigurationError, match="the source's vendor"):
        make(replace(JOB, spec=replace(SPEC, source=gcs)))
    plain = Location(vendor=Vendor.S3, bucket="b", endpoint="http://s3.example")
    with pytest.raises(errors.ConfigurationError, match="the target's endpoint must begin with"):
        make(replace(JOB, spec=replace(SPEC, target=plain)))


def test_the_account_is_part_of_r2_addresses() -> None:
    r2 = Location(vendor=Vendor.R2, bucket="b", jurisdiction=Jurisdiction.EU)
    task = make(replace(JOB, spec=replace(SPEC, target=r2)))
    assert task is not None
    assert task.target.origin == f"https://{ACCOUNT}.eu.r2.cloudflarestorage.com"
