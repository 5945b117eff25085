"""Whether a store serves others is asked of another object, seldom, and never for parts."""

from __future__ import annotations

import asyncio
import time

import pytest

from slurper.http import client
from slurper.http.messages import Request
from slurper.objectstore import witness
from slurper.objectstore.witness import Witness

FEW = client.LASTING_RETRIES


class Asked:
    """Answers a witness's questions, and counts them."""

    def __init__(self, *, served: bool) -> None:
        self.served = served
        self.targets: list[str] = []

    async def __call__(self, target: str) -> bool:
        self.targets.append(target)
        await asyncio.sleep(0)
        return self.served


def get(target: str = "/b/bad", **headers: str) -> Request:
    return Request("GET", target, headers)


def put(target: str = "/b/bad") -> Request:
    return Request("PUT", target, {})


async def test_the_object_read_or_written_last_is_asked_for() -> None:
    read, write = Asked(served=True), Asked(served=True)
    found = Witness(read, write)
    found.read_last, found.written_last = "/b/read?versionId=1", "/b/written"
    assert await found.serves_others(get(), time.monotonic(), FEW)
    assert await found.serves_others(Request("HEAD", "/b/bad", {}), time.monotonic(), FEW)
    assert await found.serves_others(put(), time.monotonic(), FEW)
    assert (read.targets, write.targets) == (["/b/read?versionId=1"] * 2, ["/b/written"])


@pytest.mark.parametrize(
    "request_",
    [
        get("/b/last"),
        get("/b/last?x=1"),
        get(range="bytes=0-9"),
        put("/b/bad?partNumber=1&uploadId=u"),
        Request("POST", "/b/bad?uploadId=u", {}),
    ],
)
async def test_nothing_is_a_witness_for_itself_and_parts_get_more_retries(
    request_: Request,
) -> None:
    asked = Asked(served=True)
    found = Witness(asked, asked)
    found.read_last = found.written_last = "/b/last"
    assert not await found.serves_others(request_, time.monotonic(), FEW)
    assert asked.targets == []


@pytest.mark.parametrize(
    "request_", [get("/b/last", range="bytes=0-9"), put("/b/bad?partNumber=1&uploadId=u")]
)
async def test_after_more_retries_the_witness_is_asked_for_a_part_too(request_: Request) -> None:
    asked = Asked(served=True)
    found = Witness(asked, asked)
    found.read_last = found.written_last = "/b/last"
    assert await found.serves_others(request_, time.monotonic(), witness.PART_RETRIES)
    assert asked.targets == ["/b/last"]


async def test_without_a_witness_nothing_is_given_up_sooner() -> None:
    asked = Asked(served=True)
    assert not await Witness(asked, asked).serves_others(get(), time.monotonic(), FEW)
    only_reads = Witness(asked, None)
    only_reads.written_last = "/b/written"
    assert not await only_reads.serves_others(put(), time.monotonic(), FEW)


async def test_one_question_serves_all_who_wait() -> None:
    read = Asked(served=True)
    found = Witness(read, None)
    found.read_last = "/b/good"
    since = time.monotonic()
    answers = await asyncio.gather(
        *(found.serves_others(get(f"/b/bad{number}"), since, FEW) for number in range(20))
    )
    assert (set(answers), len(read.targets)) == ({True}, 1)
    assert await found.serves_others(get(), time.monotonic(), FEW)
    assert len(read.targets) == 2


async def test_a_store_that_serves_nobody_is_not_asked_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = Asked(served=False)
    found = Witness(read, None)
    found.read_last = "/b/good"
    for _ in range(20):
        assert not await found.serves_others(get(), time.monotonic(), FEW)
    assert len(read.targets) == 1
    monkeypatch.setattr(witness, "ASKED_AGAIN_SECONDS", 0.0)
    read.served = True
    assert await found.serves_others(get(), time.monotonic(), FEW)
