"""A store that meets an absent key asks for the bucket, and no more often than it helps."""

from __future__ import annotations

import asyncio

import pytest

from slurper import errors
from slurper.objectstore import presence
from slurper.objectstore.presence import BucketPresence

GONE = errors.NoSuchBucket("ListObjectsV2", status=404)
BUSY = errors.Throttled("ListObjectsV2", status=503)


class Bucket:
    """Answers questions in turn, the last one for good, each when it is let."""

    def __init__(self, *answers: errors.SlurperError | None) -> None:
        self.asked = 0
        self.was_asked = asyncio.Event()
        self.let = asyncio.Event()
        self.let.set()
        self._answers = answers

    async def ask(self) -> None:
        answer = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        self.was_asked.set()
        await self.let.wait()
        if answer is not None:
            raise answer


async def outcome(asking: BucketPresence) -> errors.SlurperError | None:
    try:
        await asking.confirm()
    except errors.SlurperError as error:
        return error
    return None


async def test_a_bucket_that_was_there_is_not_asked_for_again_soon() -> None:
    bucket = Bucket(None)
    asking = BucketPresence(bucket.ask)
    for _ in range(3):
        await asking.confirm()
    assert bucket.asked == 1


async def test_it_is_asked_for_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "SEEN_SECONDS", 0.0)
    bucket = Bucket(None, GONE)
    asking = BucketPresence(bucket.ask)
    assert [await outcome(asking), await outcome(asking)] == [None, GONE]


@pytest.mark.parametrize("answer", [GONE, BUSY, None], ids=["gone", "busy", "there"])
async def test_one_question_serves_all_who_wait_for_it(answer: errors.SlurperError | None) -> None:
    bucket = Bucket(answer)
    bucket.let.clear()
    asking = BucketPresence(bucket.ask)
    waiting = [asyncio.create_task(outcome(asking)) for _ in range(5)]
    await bucket.was_asked.wait()
    assert not any(task.done() for task in waiting)
    bucket.let.set()
    assert await asyncio.gather(*waiting) == [answer] * 5
    assert bucket.asked == 1


async def test_a_question_that_failed_is_put_again_and_settles_nothing() -> None:
    bucket = Bucket(BUSY, None)
    asking = BucketPresence(bucket.ask)
    assert [await outcome(asking), await outcome(asking)] == [BUSY, None]
    assert bucket.asked == 2


@pytest.mark.parametrize(
    "refusal",
    [errors.AccessDenied("ListObjectsV2", status=403), errors.ListingError("no listing")],
    ids=["denied", "nonsense"],
)
async def test_what_says_nothing_of_the_bucket_leaves_the_key_absent(
    refusal: errors.SlurperError,
) -> None:
    bucket = Bucket(refusal)
    asking = BucketPresence(bucket.ask)
    assert [await outcome(asking), await outcome(asking)] == [None, None]
    assert bucket.asked == 1


async def test_who_is_cancelled_while_asking_leaves_the_question_to_the_next() -> None:
    bucket = Bucket(GONE)
    bucket.let.clear()
    asking = BucketPresence(bucket.ask)
    first = asyncio.create_task(outcome(asking))
    second = asyncio.create_task(outcome(asking))
    await bucket.was_asked.wait()
    first.cancel()
    bucket.let.set()
    assert await second == GONE
    assert first.cancelled()
