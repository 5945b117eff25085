"""What happens to copies to R2 alone, by the real program; R2 is what its stub knows of it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slurper.objectstore import own_keys
from tests.chaos import proxy
from tests.chaos.faults import lost_answer
from tests.e2e import program
from tests.pairs.cases import IN_PARTS
from tests.pairs.referee import Bucket
from tests.pairs.stores import Kind, Store, s3_store
from tests.servers.r2 import server as r2
from tests.servers.r2.bucket import Bucket as R2Bucket
from tests.servers.r2.bucket import PartOf

StoreOf = Callable[[Kind], Store]

MIB = 1 << 20


def copy(
    source: tuple[Store, Bucket], target: tuple[Store, Bucket], data_dir: Path, *options: str
) -> Any:  # noqa: ANN401 - as JSON is
    """Copy, and return what the program tells."""
    (from_store, from_bucket), (to_store, to_bucket) = source, target
    env = {**IN_PARTS, "SLURPER_DATA_DIR": str(data_dir)}
    env |= {**from_store.variables("source"), **to_store.variables("target")}
    sides = (from_store.url(from_bucket), to_store.url(to_bucket))
    ended = program.run("copy", *sides, "--json", *options, env=env)
    assert ended.out, ended.err
    return ended.json


def test_an_upload_that_r2_has_dropped_is_begun_again(store_of: StoreOf, tmp_path: Path) -> None:
    s3 = store_of(Kind.S3)
    source = s3.new_bucket()
    source.put("large", os.urandom(12 * MIB), ContentType="video/x")
    with r2.running() as stub, s3_store(stub.address, "r2") as store:
        target = store.new_bucket()
        bucket = stub.buckets[target.name]
        expire_after_a_part(bucket)
        told = copy((s3, source), (store, target), tmp_path)
        assert (told["transferred"], told["failed"]) == (1, 0), told
        assert target.read_all() == source.read_all()
        assert bucket.uploads("") == []


def expire_after_a_part(bucket: R2Bucket) -> None:
    """Let the first upload end, as after seven days, once it has a part."""
    put_part, dropped = bucket.put_part, list[str]()

    def put_and_drop(
        key: str, upload_id: str, number: int, headers: Mapping[str, str], body: bytes
    ) -> PartOf:
        part = put_part(key, upload_id, number, headers, body)
        if not key.startswith(own_keys.PREFIX) and not dropped:
            dropped.append(upload_id)
            bucket.abort(key, upload_id)
        return part

    bucket.put_part = put_and_drop  # type: ignore[method-assign]


def test_an_answer_that_was_lost_makes_no_second_object_and_no_skip(
    store_of: StoreOf, tmp_path: Path
) -> None:
    s3, store, key = store_of(Kind.S3), store_of(Kind.R2), secrets.token_hex(4)
    source, target = s3.new_bucket(), store.new_bucket()
    source.put(key, b"body", ContentType="text/x")
    with proxy.FaultProxy(store.origin).running() as front:
        front.add(lost_answer, f"^PUT /[^ ]*{key}", times=1)
        told = copy((s3, source), (store.at(front.endpoint), target), tmp_path, "--no-overwrite")
    assert (told["transferred"], told["skipped"], told["failed"]) == (1, 0, 0), told
    assert target.read_all() == source.read_all()
