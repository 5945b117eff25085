"""A target that keeps objects as files in folders: what it would change fails, each by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from slurper.demo.servers import S3Server
from tests.e2e import program

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KEPT = {
    "a/b": b"1",
    "lead": b"22",
    "x/y": b"333",
    "folder/": b"",
    "..x": b"4",
    "d": b"55",
}
CHANGED = {
    "a//b": b"55",
    "/lead": b"6",
    "x\\y": b"7",
    "empty//": b"",
    "bytes/": b"8",
    "d/": b"",
    "large//parts": b"l" * (6 << 20),
}


@pytest.mark.parametrize(
    "options", [(), ("--no-overwrite",), ("--no-overwrite", "--keys-from", "-")], ids=str
)
def test_no_key_is_rewritten(
    ministack: S3Server,
    seaweedfs: S3Server,
    make_bucket: Callable[[S3Server], str],
    boto: Callable[[S3Server], S3Client],
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    source, target = make_bucket(ministack), make_bucket(seaweedfs)
    for key, body in {**KEPT, **CHANGED}.items():
        boto(ministack).put_object(Bucket=source, Key=key, Body=body)
    env = program.both_sides(ministack, seaweedfs, tmp_path / "data")
    env["SLURPER_MULTIPART_THRESHOLD_BYTES"] = str(5 << 20)
    command = ("copy", f"s3://{source}", f"s3://{target}", "--json", *options)
    keys = "\n".join((*KEPT, *CHANGED)) if "--keys-from" in options else ""

    told = program.run(*command, env=env, stdin=keys).json
    messages = {failure["key"]: failure["message"] for failure in told["failures"]}
    assert messages.keys() == CHANGED.keys(), messages
    assert (told["transferred"], told["skipped"], told["failed"]) == (len(KEPT), 0, len(CHANGED))
    assert all("keeps objects as files in folders" in text for text in messages.values())
    assert "would keep 'a//b' as 'a/b'; give the object another key" in messages["a//b"]
    found = boto(seaweedfs).list_objects_v2(Bucket=target)["Contents"]
    assert {item["Key"] for item in found} == KEPT.keys()
    for key, body in KEPT.items():
        assert boto(seaweedfs).get_object(Bucket=target, Key=key)["Body"].read() == body
    assert "Uploads" not in boto(seaweedfs).list_multipart_uploads(Bucket=target)

    if options:  # what is found under the rewritten key is no reason to skip
        again = program.run(*command, env=env, stdin=keys).json
        assert (again["objects"], again["failed"]) == (told["objects"], len(CHANGED))
        assert {failure["key"] for failure in again["failures"]} == CHANGED.keys()
