"""The in-memory stores beyond the protocol: faults to order, made-up keys, a bottomless pit."""

from __future__ import annotations

import pytest

from slurper import errors
from slurper.objectstore.base import Body, ByteRange, ObjectHeaders
from slurper.objectstore.dialects import AWS
from tests.memory.made_up import DiscardingStore, SyntheticStore
from tests.memory.store import MemoryStore

SLOW_DOWN = errors.Throttled("PutObject", status=503, code="SlowDown")


async def test_the_nth_request_fails() -> None:
    store = MemoryStore()
    store.faults.fail(SLOW_DOWN, operation="put", nth=2, times=2)
    outcomes = []
    for number in range(4):
        try:
            await store.put(f"k{number}", Body([b"x"]), ObjectHeaders())
            outcomes.append("ok")
        except errors.Throttled:
            outcomes.append("slow down")
    assert outcomes == ["ok", "slow down", "slow down", "ok"]
    assert store.keys == ("k0", "k3")
    assert store.faults.requests == {"put": 4}
    assert store.statistics.requests == 4


async def test_a_fault_of_one_operation_leaves_the_others_alone() -> None:
    store = MemoryStore()
    store.add("k", b"body")
    store.faults.fail(errors.TransportError("reset"), operation="get")
    assert (await store.head("k")).meta.size == 4
    with pytest.raises(errors.TransportError):
        await store.get("k")
    assert bytes((await store.get("k")).body) == b"body"


async def test_an_answer_can_be_lost_after_the_effect() -> None:
    store = MemoryStore()
    store.faults.fail(errors.TransportError("reset"), takes_effect=True)
    with pytest.raises(errors.TransportError):
        await store.put("k", Body([b"x"]), ObjectHeaders())
    assert store.read("k")[0] == b"x"


async def test_archived_objects_are_listed_but_not_read() -> None:
    store = MemoryStore(dialect=AWS)
    store.add("k", b"x", storage_class="GLACIER")
    (meta,) = (await store.list_page()).objects
    assert meta.storage_class == "GLACIER"
    with pytest.raises(errors.RequiresRetrieval):
        await store.get("k")


async def test_removed_objects_are_gone() -> None:
    store = MemoryStore()
    store.add("k")
    store.remove("k")
    assert (await store.list_page()).objects == []
    with pytest.raises(errors.NotFound):
        await store.head("k")


async def test_headers_in_the_store_are_its_own() -> None:
    headers = ObjectHeaders({"content-type": "a/b"}, {"m": "1"})
    store = MemoryStore()
    await store.put("k", Body([]), headers)
    headers.metadata["m"] = "2"
    (await store.head("k")).headers.metadata["m"] = "3"
    assert store.read("k")[1].metadata == {"m": "1"}


async def test_millions_of_keys_are_paged_without_being_kept() -> None:
    store = SyntheticStore(10_000_000, object_bytes=5)
    first = await store.list_page(max_keys=2)
    assert [meta.key for meta in first.objects] == ["object-00000000", "object-00000001"]
    assert not first.finished
    late = await store.list_page(start_after="object-09999996x", max_keys=10)
    assert [meta.key[-7:] for meta in late.objects] == ["9999997", "9999998", "9999999"]
    assert late.finished
    middle = await store.list_page(prefix="object-0123456")
    assert len(middle.objects) == 10
    assert middle.finished


async def test_made_up_objects_agree_with_their_listing() -> None:
    store = SyntheticStore(100, object_bytes=25, prefix="p/")
    (meta,) = (await store.list_page(max_keys=1)).objects
    download = await store.get(meta.key, if_match=meta.etag)
    assert download.stored.headers == (await store.head(meta.key)).headers
    assert download.stored.meta == (await store.head(meta.key)).meta == meta
    assert bytes(download.body) == b"p/000p/000p/000p/000p/000"
    part = await store.get(meta.key, byte_range=ByteRange(5, 10))
    assert bytes(part.body) == b"p/000"
    for absent in ("p/100", "p/1", "q/000", "p/0001"):
        with pytest.raises(errors.NotFound):
            await store.head(absent)
    with pytest.raises(errors.AccessDenied):
        await store.put("p/000", Body([]), ObjectHeaders())
    with pytest.raises(errors.AccessDenied):
        await store.create_upload("p/000", ObjectHeaders())


async def test_the_pit_counts_and_keeps_nothing() -> None:
    store = DiscardingStore()
    await store.put("k", Body([b"12345"]), ObjectHeaders())
    upload = (await store.create_upload("l", ObjectHeaders())).upload_id
    part = await store.put_part("l", upload, 1, Body([b"678"]))
    await store.complete_upload("l", upload, [part])
    assert (store.objects, store.bytes) == (2, 8)
    assert (await store.list_page()).objects == []
