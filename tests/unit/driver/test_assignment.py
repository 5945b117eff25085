from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper import errors
from slurper.driver import assignment
from slurper.job.model import (
    Capabilities,
    Job,
    JobCapabilities,
    JobOptions,
    JobStatus,
    Jurisdiction,
    Location,
    Vendor,
)
from slurper.objectstore import dialects, factory, key_shapes
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.key_shapes import KeyShape
from slurper.planning.keyspace import KeyRange, encode_key
from slurper.settings import Settings
from slurper.transfer.task import RangeTask
from tests.unit.driver.conftest import ACCOUNT, SECRETS, SPEC, report

CREATED = datetime(2026, 3, 19, 15, 46, 20, 987_654, UTC)
JOB = Job(id="j", account_id=ACCOUNT, spec=SPEC, status=JobStatus.RUNNING, created_at=CREATED)
KEYS = st.text(
    st.sampled_from(["a", "b", "é", "\udc80", "\udcff", "\U0001f600", "￿", "/"]), max_size=4
)
EITHER_END = st.none() | KEYS


def make(
    job: Job,
    slice_left: KeyRange = KeyRange(),  # noqa: B008 - frozen
    *,
    keys: tuple[str, ...] | None = None,
    failures: int = 0,
) -> RangeTask:
    return assignment.make_task(
        job,
        7,
        slice_left,
        keys=keys,
        uncounted=failures > 0,
        sides=assignment.sides(job, SECRETS, Settings()),
        quota=assignment.quota(job.spec.options, 8.0, failures=failures),
    )


@given(st.sets(KEYS, min_size=1, max_size=40), st.data())
def test_tasks_of_explicit_keys_cover_each_key_once(keys: set[str], data: st.DataObject) -> None:
    """Whatever the workers leave undone, and however the tasks are cut."""
    ordered = tuple(sorted(keys, key=encode_key))
    slice_left, settled, finished = KeyRange(), list[str](), False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "MAX_KEYS", data.draw(st.integers(1, 7)))
        while not finished:
            left = ordered[len(settled) :][: assignment.MAX_KEYS + 1]
            task = make(JOB, slice_left, keys=left)
            assert task.keys
            assert task.slice == KeyRange(slice_left.start_after, task.keys[-1])
            done = data.draw(st.integers(1, len(task.keys)))
            all_done = done == len(task.keys) and data.draw(st.booleans())
            said = report(task, task.keys[done - 1], objects=done, finished=all_done)
            concluded = assignment.conclude(said, task, left)
            settled += task.keys[:done]
            slice_left, finished = slice_left.after(concluded.cursor), concluded.finished
    assert tuple(settled) == ordered


def test_a_listed_range_takes_the_workers_word() -> None:
    task = make(JOB)
    said = report(task, "k", finished=True)
    assert assignment.conclude(said, task, None) is said


def test_a_task_that_settled_none_of_its_keys_leaves_the_cursor() -> None:
    keys = ("b", "c")
    task = make(JOB, KeyRange("a"), keys=keys)
    assert task.keys == keys
    concluded = assignment.conclude(report(task, "a"), task, keys)
    assert (concluded.cursor, concluded.finished) == ("a", False)
    nothing_at_all = assignment.conclude(report(task, None), task, keys)
    assert (nothing_at_all.cursor, nothing_at_all.finished) == (None, False)


def test_the_budget_shrinks_with_failures_but_not_to_nothing() -> None:
    tasks = [make(JOB, failures=failures) for failures in range(8)]
    budgets = [task.budget_seconds for task in tasks]
    assert budgets == [8.0, 4.0, 2.0, 1.0, 0.5, 0.5, 0.5, 0.5]


def test_a_small_budget_is_never_enlarged() -> None:
    assert assignment._budget_seconds(0.01, 5, 100.0) == 0.01


def test_tasks_of_a_young_job_are_short_so_that_it_is_shared_soon() -> None:
    budgets = [assignment._budget_seconds(8.0, 0, age) for age in (0.0, 4.0, 16.0, 64.0, 1e6)]
    assert budgets == [0.5, 0.5, 2.0, 8.0, 8.0]


def test_a_range_is_cut_without_any_work() -> None:
    report = replace(assignment.nothing_done("j", 7, KeyRange("c", "x")), boundaries=("h", "p"))
    assert (report.started_after, report.cursor, report.finished) == ("c", "c", False)
    assert (report.boundaries, report.counts.objects) == (("h", "p"), 0)


def test_replays_begin_before_the_second_in_which_the_job_was_made() -> None:
    task = make(JOB, failures=1)
    assert task.replayed_since == datetime(2026, 3, 19, 15, 46, 19, tzinfo=UTC)


def test_the_text_says_which_side_cannot_be_used() -> None:
    gcs = Location(vendor=Vendor.GCS, bucket="b")
    with pytest.raises(errors.ConfigurationError, match="the source's secret"):
        make(replace(JOB, spec=replace(SPEC, source=gcs)))
    plain = Location(vendor=Vendor.S3, bucket="b", endpoint="http://s3.example")
    with pytest.raises(errors.ConfigurationError, match="the target's endpoint must start with"):
        make(replace(JOB, spec=replace(SPEC, target=plain)))


def test_the_account_is_part_of_r2_addresses() -> None:
    r2 = Location(vendor=Vendor.R2, bucket="b", jurisdiction=Jurisdiction.EU)
    task = make(replace(JOB, spec=replace(SPEC, target=r2)))
    assert task.target.origin == f"https://{ACCOUNT}.eu.r2.cloudflarestorage.com"


def test_what_was_found_of_a_store_takes_the_place_of_what_is_assumed() -> None:
    found = Capabilities(list_version=1, checksum="md5", conditional_put=False)
    own = Location(vendor=Vendor.S3, bucket="b", endpoint="https://s3.example")
    spec = replace(SPEC, source=own, target=own)
    capabilities = JobCapabilities(target=found)
    task = make(replace(JOB, spec=spec, capabilities=capabilities))
    dialect = task.target.dialect
    assert (dialect.list_version, dialect.checksum) == (1, Algorithm.MD5)
    assert (dialect.conditional_put, dialect.conditional_completion) == (False, False)
    assert task.source.dialect == dialects.GENERIC


@pytest.mark.parametrize(
    ("order", "in_folders"), [(None, False), ("bytes", False), ("folders", True)]
)
def test_a_store_that_lists_by_folders_keeps_them(order: str | None, in_folders: bool) -> None:
    own = Location(vendor=Vendor.S3, bucket="b", endpoint="https://s3.example")
    capabilities = JobCapabilities(target=Capabilities(key_order=order))
    task = make(replace(JOB, spec=replace(SPEC, target=own), capabilities=capabilities))
    shapes = key_shapes.KEPT_IN_FOLDERS if in_folders else ()
    assert task.target.dialect == replace(dialects.GENERIC, unkept_keys=shapes)


@pytest.mark.parametrize("order", ["bytes", "folders"])
def test_what_was_found_out_of_keys_counts_more_than_the_order(order: str) -> None:
    own = Location(vendor=Vendor.S3, bucket="b", endpoint="https://s3.example")
    found = Capabilities(key_order=order, unkept_keys=("plus",), conditional_completion=False)
    capabilities = JobCapabilities(target=found)
    task = make(replace(JOB, spec=replace(SPEC, target=own), capabilities=capabilities))
    dialect = task.target.dialect
    assert dialect.unkept_keys == (KeyShape.PLUS,)
    assert (dialect.conditional_put, dialect.conditional_completion) == (True, False)


@pytest.mark.parametrize(
    ("require", "refused"),
    [
        ((), set()),
        (("content-type",), set()),
        (("expires", "metadata"), {"expires", "long-metadata"}),
        (("headers",), {"expires", "long-metadata"}),
    ],
)
def test_headers_that_are_required_and_lost_are_refused(
    require: tuple[str, ...], refused: set[str]
) -> None:
    own = Location(vendor=Vendor.S3, bucket="b", endpoint="https://s3.example")
    spec = replace(SPEC, target=own, options=JobOptions(require=require))
    found = Capabilities(unkept_headers=("expires", "long-metadata"))
    task = make(replace(JOB, spec=spec, capabilities=JobCapabilities(target=found)))
    assert task.target.dialect == replace(dialects.GENERIC, refused_headers=frozenset(refused))
    assert task.source.dialect.refused_headers == frozenset()


@pytest.mark.parametrize("vendor", [Vendor.S3, Vendor.R2])
def test_what_a_refused_request_has_shown_counts_in_every_dialect(vendor: Vendor) -> None:
    found = Capabilities(
        obeys_if_match=False, etags_are_md5s=False, etags_of_parts_are_md5s=False, wants_md5=True
    )
    spec = replace(SPEC, target=Location(vendor=vendor, bucket="b"))
    plain = make(replace(JOB, spec=spec)).target.dialect
    task = make(replace(JOB, spec=spec, capabilities=JobCapabilities(target=found)))
    dialect = task.target.dialect
    assert factory.found_since(plain, dialect) == found
    assert factory.found_since(dialect, dialect) == Capabilities()
    assert (
        replace(
            dialect,
            obeys_if_match=True,
            etags_are_md5s=True,
            etags_of_parts_are_md5s=True,
            wants_md5=False,
        )
        == plain
    )


def test_what_is_known_of_a_provider_counts_more() -> None:
    found = Capabilities(list_version=1, checksum="md5", conditional_put=False, key_order="folders")
    spec = replace(SPEC, target=Location(vendor=Vendor.R2, bucket="b"))
    task = make(replace(JOB, spec=spec, capabilities=JobCapabilities(target=found)))
    assert task.target.dialect == dialects.R2
