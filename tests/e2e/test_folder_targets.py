"""A target that keeps objects as files in folders: what it would change fails, each by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from moto.server import ThreadedMotoServer

from slurper.demo.servers import HOST, S3Server
from tests.chaos import faults, proxy
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
    "dots/./a": b"9",
    "dots/../a": b"10",
    "long/" + "s" * 256: b"11",
}


@pytest.fixture
def nameless(seaweedfs: S3Server) -> Iterator[S3Server]:
    """SeaweedFS behind something that does not say what it is."""
    with proxy.FaultProxy(seaweedfs.endpoint).running() as front:
        front.add(faults.with_headers(without=("server",)))
        yield replace(seaweedfs, endpoint=front.endpoint)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("seaweedfs", ()),
        ("seaweedfs", ("--no-overwrite",)),
        ("seaweedfs", ("--no-overwrite", "--keys-from", "-")),
        ("nameless", ()),
        ("nameless", ("--no-overwrite", "--keys-from", "-")),
    ],
    ids=str,
)
def test_no_key_is_rewritten(
    request: pytest.FixtureRequest,
    ministack: S3Server,
    seaweedfs: S3Server,
    name: str,
    make_bucket: Callable[[S3Server], str],
    boto: Callable[[S3Server], S3Client],
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    source, target = make_bucket(ministack), make_bucket(seaweedfs)
    for key, body in {**KEPT, **CHANGED}.items():
        boto(ministack).put_object(Bucket=source, Key=key, Body=body)
    behind: S3Server = request.getfixturevalue(name)
    env = program.both_sides(ministack, behind, tmp_path / "data")
    env["SLURPER_MULTIPART_THRESHOLD_BYTES"] = str(5 << 20)
    command = ("copy", f"s3://{source}", f"s3://{target}", "--json", *options)
    keys = "\n".join((*KEPT, *CHANGED)) if "--keys-from" in options else ""

    told = program.run(*command, env=env, stdin=keys).json
    messages = {failure["key"]: failure["message"] for failure in told["failures"]}
    assert messages.keys() == CHANGED.keys(), messages
    assert (told["transferred"], told["skipped"], told["failed"]) == (len(KEPT), 0, len(CHANGED))
    beside = messages.pop("d/")
    assert "cannot keep both 'd/' and 'd'; only the second is copied" in beside
    assert all(text.startswith("the target does not keep keys") for text in messages.values())
    assert "keys that hold '//'" in messages["a//b"]
    assert "give the object another key" in messages["a//b"]
    found = boto(seaweedfs).list_objects_v2(Bucket=target)["Contents"]
    assert {item["Key"] for item in found} == KEPT.keys()
    for key, body in KEPT.items():
        assert boto(seaweedfs).get_object(Bucket=target, Key=key)["Body"].read() == body
    assert "Uploads" not in boto(seaweedfs).list_multipart_uploads(Bucket=target)

    if options:  # what is found under the rewritten key is no reason to skip
        again = program.run(*command, env=env, stdin=keys).json
        assert (again["objects"], again["failed"]) == (told["objects"], len(CHANGED))
        assert {failure["key"] for failure in again["failures"]} == CHANGED.keys()


@pytest.fixture
def drops_slashes() -> Iterator[tuple[S3Server, S3Server]]:
    """A store that drops the first slash of a key, as MinIO's gateway does; and without that."""
    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    plain = S3Server(
        endpoint=f"http://{host}:{port}", access_key_id="AKIAMOTO", secret_access_key="secret"
    )
    with proxy.FaultProxy(plain.endpoint).running() as front:
        front.add(faults.with_request_line(r"^(\S+ /[^/?]+/)/", r"\1"), "^[A-Z]+ /[^/?]+//")
        yield replace(plain, endpoint=front.endpoint), plain
    server.stop()


@pytest.mark.parametrize(
    "options", [(), ("--no-overwrite",), ("--no-overwrite", "--keys-from", "-")], ids=str
)
def test_an_object_of_the_target_is_not_overwritten_by_one_that_is_rewritten_to_its_key(
    ministack: S3Server,
    drops_slashes: tuple[S3Server, S3Server],
    make_bucket: Callable[[S3Server], str],
    boto: Callable[[S3Server], S3Client],
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    front, plain = drops_slashes
    source, target = make_bucket(ministack), make_bucket(plain)
    for key in ("/k", "/lead/large", "kept"):
        boto(ministack).put_object(Bucket=source, Key=key, Body=b"of the source")
    boto(plain).put_object(Bucket=target, Key="k", Body=b"of the target")
    env = program.both_sides(ministack, front, tmp_path / "data")
    command = ("copy", f"s3://{source}", f"s3://{target}", "--json", *options)
    keys = "/k\n/lead/large\nkept" if "--keys-from" in options else ""
    told = program.run(*command, env=env, stdin=keys).json
    assert (told["transferred"], told["skipped"], told["failed"]) == (1, 0, 2)
    assert {failure["key"] for failure in told["failures"]} == {"/k", "/lead/large"}
    assert told["capabilities"]["target"]["unkept_keys"] == ["leading-slash", "line-break"]
    found = boto(plain).list_objects_v2(Bucket=target)["Contents"]
    assert {item["Key"] for item in found} == {"k", "kept"}
    assert boto(plain).get_object(Bucket=target, Key="k")["Body"].read() == b"of the target"
