"""`slurper copy` as a user runs it, against real servers."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from slurper.demo import compare
from slurper.demo.servers import S3Server
from tests.chaos import faults, proxy
from tests.e2e import program
from tests.pairs.referee import S3Bucket, Stored

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Boto = Callable[[S3Server], "S3Client"]
MakeBucket = Callable[[S3Server], str]

COUNT = 60
SLOWLY = {"SLURPER_TASK_SECONDS": "0.3", "SLURPER_IN_FLIGHT_REQUESTS": "4", "SLURPER_WORKERS": "1"}


NOT_FOR_A_COPY = {
    "aiosqlite",
    "alembic",
    "boto3",
    "fastapi",
    "greenlet",
    "httpx",
    "prometheus_client",
    "psycopg",
    "pydantic_settings",
    "rich.console",
    "slurper.api",
    "slurper.demo",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.orm",
    "structlog",
    "uvicorn",
}
"""Each of these would cost more than the copy of a hundred objects."""


def _fill(client: S3Client, bucket: str, count: int = COUNT, prefix: str = "") -> set[str]:
    keys = {f"{prefix}item-{number:04}" for number in range(count)}
    for number, key in enumerate(sorted(keys)):
        client.put_object(
            Bucket=bucket,
            Key=key,
            Body=b"x" * number,
            ContentType="text/x-test",
            Metadata={"n": str(number)},
        )
    return keys


def _copied(bucket: compare.Bucket) -> int:
    """How many objects a copy has written. What the check of the target writes is none of them."""
    return sum(key.startswith("item-") for key in sorted(bucket.keys()))


def _assert_equal(source: compare.Bucket, target: compare.Bucket) -> None:
    assert S3Bucket(target.client, target.name).read_all() == _held(source)


@cache
def _held(unchanged: compare.Bucket) -> Mapping[str, Stored]:
    return S3Bucket(unchanged.client, unchanged.name).read_all()


@pytest.fixture(scope="module")
def filled(ministack: S3Server, boto: Boto, make_bucket: MakeBucket) -> compare.Bucket:
    """A bucket with `COUNT` objects, which no test changes."""
    return _filled(boto(ministack), make_bucket(ministack))


@pytest.fixture
def changed(ministack: S3Server, boto: Boto, make_bucket: MakeBucket) -> compare.Bucket:
    """A bucket with the same objects, which the test may change."""
    return _filled(boto(ministack), make_bucket(ministack))


def _filled(client: S3Client, bucket: str) -> compare.Bucket:
    _fill(client, bucket)
    return compare.Bucket(client, bucket)


@pytest.fixture
def empty(ministack: S3Server, boto: Boto, make_bucket: MakeBucket) -> compare.Bucket:
    """A bucket to copy to."""
    return compare.Bucket(boto(ministack), make_bucket(ministack))


@pytest.fixture
def env(ministack: S3Server, tmp_path: Path) -> dict[str, str]:
    """Both sides are at ministack."""
    return program.both_sides(ministack, ministack, tmp_path / "data")


def test_copies_between_two_stores(
    filled: compare.Bucket,
    ministack: S3Server,
    seaweedfs: S3Server,
    boto: Boto,
    make_bucket: MakeBucket,
    tmp_path: Path,
) -> None:
    target = compare.Bucket(boto(seaweedfs), make_bucket(seaweedfs))
    env = program.both_sides(ministack, seaweedfs, tmp_path / "data")
    sides = f"s3://{filled.name}", f"s3://{target.name}"
    ended = program.run("copy", *sides, env=env, anew=True)
    assert ended.code == 0, ended.err
    assert "completed in" in ended.out
    assert re.search(rf"^transferred +{COUNT} +1\.8 kB", ended.out, re.MULTILINE)
    _assert_equal(filled, target)


def test_the_bounds_of_a_service_do_not_stop_a_copy(
    filled: compare.Bucket,
    ministack: S3Server,
    make_bucket: MakeBucket,
    tmp_path: Path,
) -> None:
    """They keep its tenants from filling its disk. A copy fills its user's own."""
    env = program.both_sides(ministack, ministack, tmp_path / "data")
    bounds = {"SLURPER_JOB_LOG_ENTRIES": "1", "SLURPER_TASK_SECONDS": "0.001"}
    sides = f"s3://{filled.name}", f"s3://{make_bucket(ministack)}"
    ended = program.run("copy", *sides, env=env | bounds)
    assert ended.code == 0, ended.err
    assert "completed in" in ended.out


def test_a_tab_in_metadata_arrives_as_it_is(
    seaweedfs: S3Server, boto: Boto, make_bucket: MakeBucket, tmp_path: Path
) -> None:
    """SeaweedFS compares signatures, and folds the white space of what is signed."""
    source = compare.Bucket(boto(seaweedfs), make_bucket(seaweedfs))
    target = compare.Bucket(boto(seaweedfs), make_bucket(seaweedfs))
    values = {"tab": "a\tb", "run": "a \t  b", "spaces": "a   b", "percent": "100%20 %"}
    for name, value in values.items():
        source.client.put_object(
            Bucket=source.name, Key=f"k-{name}", Body=b"x", Metadata={name: value}
        )
    env = program.both_sides(seaweedfs, seaweedfs, tmp_path / "data")
    for options in (["--no-server-side-copy"], []):
        ended = program.run("copy", f"s3://{source.name}", f"s3://{target.name}", *options, env=env)
        assert ended.code == 0, ended.err
        for name, value in values.items():
            found = target.client.head_object(Bucket=target.name, Key=f"k-{name}")
            assert found["Metadata"] == {name: value}


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_key_that_a_store_signs_otherwise_fails_alone(
    seaweedfs: S3Server, boto: Boto, make_bucket: MakeBucket, tmp_path: Path, overwrite: bool
) -> None:
    """Before the target stands a proxy that decodes what is encoded in a path, as some do."""
    source = compare.Bucket(boto(seaweedfs), make_bucket(seaweedfs))
    target = compare.Bucket(boto(seaweedfs), make_bucket(seaweedfs))
    for key in ("a", "b 100%", "c", "d"):
        source.client.put_object(Bucket=source.name, Key=key, Body=b"x")
    refused = faults.status(403, "SignatureDoesNotMatch")
    with proxy.FaultProxy(seaweedfs.endpoint).running() as before:
        before.add(refused, "^PUT [^?]*/b%20100%25")  # the check writes other keys with one
        behind = replace(seaweedfs, endpoint=before.endpoint)
        env = program.both_sides(seaweedfs, behind, tmp_path / "data")
        options = ["--json", *([] if overwrite else ["--no-overwrite"])]
        ended = program.run("copy", f"s3://{source.name}", f"s3://{target.name}", *options, env=env)
    told = ended.json
    assert (ended.code, told["status"], told["halt"]) == (1, "completed", None)
    assert (told["transferred"], told["failed"]) == (3, 1)
    (failure,) = told["failures"]
    assert failure["key"] == "b 100%"
    assert "PutObject answered HTTP 403 SignatureDoesNotMatch" in failure["message"]
    assert "other requests with the same credentials succeed" in failure["message"]


def test_json_tells_everything_and_nothing_else(
    filled: compare.Bucket, empty: compare.Bucket, env: dict[str, str]
) -> None:
    ended = program.run("copy", f"s3://{filled.name}", f"s3://{empty.name}", "--json", env=env)
    assert ended.code == 0, ended.err
    assert ended.err == ""
    told = ended.json
    assert (told["status"], told["resumed"], told["halt"]) == ("completed", False, None)
    assert told["skipped_by"] == {}
    assert (told["objects"], told["transferred"]) == (COUNT, COUNT)
    assert (told["skipped"], told["failed"], told["failures"]) == (0, 0, [])
    assert told["bytes"] == sum(range(COUNT))
    assert len(told["job"]) == 64


def test_a_finished_copy_begins_anew(
    filled: compare.Bucket, empty: compare.Bucket, env: dict[str, str]
) -> None:
    command = ("copy", f"s3://{filled.name}", f"s3://{empty.name}", "--json")
    first, second = program.run(*command, env=env).json, program.run(*command, env=env).json
    assert first["job"] != second["job"]
    assert (second["resumed"], second["transferred"]) == (False, COUNT)


def test_prefix_is_copied_and_stripped(
    ministack: S3Server,
    boto: Boto,
    empty: compare.Bucket,
    make_bucket: MakeBucket,
    env: dict[str, str],
) -> None:
    source = make_bucket(ministack)
    _fill(boto(ministack), source, 5, prefix="a/b-")
    _fill(boto(ministack), source, 5, prefix="other/")
    url = f"s3://{source}/a/b-"
    ended = program.run("copy", url, f"s3://{empty.name}", "--strip-prefix", env=env)
    assert ended.code == 0, ended.err
    assert empty.keys() == {f"item-{number:04}" for number in range(5)}


def test_no_overwrite_leaves_what_is_there(
    filled: compare.Bucket, empty: compare.Bucket, env: dict[str, str]
) -> None:
    empty.client.put_object(Bucket=empty.name, Key="item-0007", Body=b"mine")
    command = ("copy", f"s3://{filled.name}", f"s3://{empty.name}", "--no-overwrite", "--json")
    told = program.run(*command, env=env).json
    assert (told["transferred"], told["skipped"], told["failed"]) == (COUNT - 1, 1, 0)
    assert told["skipped_by"] == {"exists": 1}
    kept = empty.client.get_object(Bucket=empty.name, Key="item-0007")["Body"].read()
    assert kept == b"mine"
    found = told["capabilities"]["target"]
    assert (found["conditional_put"], found["verifies_checksum"]) == (True, True)


def test_what_somebody_else_has_just_written_is_skipped(
    filled: compare.Bucket, empty: compare.Bucket, env: dict[str, str]
) -> None:
    """It is as large as ours and as new, but a new job has nothing that it could have lost."""
    theirs = b"?" * filled.client.head_object(Bucket=filled.name, Key="item-0007")["ContentLength"]
    empty.client.put_object(Bucket=empty.name, Key="item-0007", Body=theirs)
    command = ("copy", f"s3://{filled.name}", f"s3://{empty.name}", "--no-overwrite", "--json")
    told = program.run(*command, env=env).json
    assert (told["transferred"], told["skipped"], told["failed"]) == (COUNT - 1, 1, 0)


def test_no_overwrite_holds_where_the_target_ignores_conditions(
    ministack: S3Server, changed: compare.Bucket, empty: compare.Bucket, tmp_path: Path
) -> None:
    """An object that appears while a large one is being copied to its key stays."""
    changed.client.put_object(Bucket=changed.name, Key="large", Body=b"l" * (6 << 20))

    def write() -> None:
        empty.client.put_object(Bucket=empty.name, Key="large", Body=b"theirs")

    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(faults.preceded_by(write), "^POST [^ ]*/large[?]uploads")
        front.add(faults.without_request_headers("if-none-match"))
        behind = replace(ministack, endpoint=front.endpoint)
        env = program.both_sides(ministack, behind, tmp_path / "data")
        env["SLURPER_MULTIPART_THRESHOLD_BYTES"] = str(5 << 20)
        env["SLURPER_STREAM_SECONDS"] = "0"
        command = ("copy", f"s3://{changed.name}", f"s3://{empty.name}", "--no-overwrite", "--json")
        told = program.run(*command, env=env).json
    assert told["capabilities"]["target"]["conditional_put"] is False
    assert (told["transferred"], told["skipped"], told["failed"]) == (COUNT, 1, 0)
    kept = empty.client.get_object(Bucket=empty.name, Key="large")["Body"].read()
    assert kept == b"theirs"
    assert "Uploads" not in empty.client.list_multipart_uploads(Bucket=empty.name)


def test_skip_empty_and_size_limit(
    filled: compare.Bucket, empty: compare.Bucket, env: dict[str, str]
) -> None:
    command = ("copy", f"s3://{filled.name}", f"s3://{empty.name}")
    limits = ("--skip-empty", "--max-object-bytes", "39")
    empty.client.put_object(Bucket=empty.name, Key="item-0007", Body=b"mine")
    ended = program.run(*command, *limits, "--no-overwrite", env=env)
    words = "empty 1, too large 20, exists already 1"
    assert re.search(rf"^skipped +22 +{words}$", ended.out, re.MULTILINE), ended.out
    told = program.run(*command, *limits, "--json", env=env).json
    assert (told["transferred"], told["skipped"]) == (39, COUNT - 39)
    assert told["skipped_by"] == {"importSkippedEmptyObject": 1, "importSkippedOversized": 20}


def test_a_prefix_of_nothing_is_told(
    changed: compare.Bucket, empty: compare.Bucket, env: dict[str, str]
) -> None:
    ended = program.run("copy", f"s3://{changed.name}/itme\n", f"s3://{empty.name}", env=env)
    assert ended.code == 0
    assert 'no object begins with "itme\\n"\n' in ended.out
    ended = program.run("copy", f"s3://{empty.name}", f"s3://{changed.name}", env=env)
    assert "no object is in the source\n" in ended.out


def test_only_some_types(
    changed: compare.Bucket, empty: compare.Bucket, env: dict[str, str]
) -> None:
    changed.client.put_object(Bucket=changed.name, Key="image", Body=b"i", ContentType="image/png")
    command = ("copy", f"s3://{changed.name}", f"s3://{empty.name}", "--json")
    told = program.run(*command, "--include-type", "IMAGE/*", env=env).json
    assert (told["transferred"], told["skipped"]) == (1, COUNT)
    assert told["skipped_by"] == {"importSkippedUnsupportedContentType": COUNT}
    told = program.run(*command, "--exclude-type", "image/png", env=env).json
    assert (told["transferred"], told["skipped"]) == (COUNT, 1)


def test_keys_from_standard_input_and_a_missing_one_fails(
    filled: compare.Bucket, empty: compare.Bucket, env: dict[str, str]
) -> None:
    keys = "item-0003\nitem-0001\nnot there\n\nitem-0001\n"
    command = ("copy", f"s3://{filled.name}", f"s3://{empty.name}", "--keys-from", "-")
    ended = program.run(*command, env=env, stdin=keys)
    assert ended.code == 1
    assert "failed: not there: " in ended.out
    assert "404" in ended.out
    assert empty.keys() == {"item-0001", "item-0003"}


def test_only_what_failed_is_tried_again(
    filled: compare.Bucket, empty: compare.Bucket, ministack: S3Server, tmp_path: Path
) -> None:
    again = str(tmp_path / "again")
    with proxy.FaultProxy(ministack.endpoint).running() as store:
        behind = replace(ministack, endpoint=store.endpoint)
        env = program.both_sides(behind, ministack, tmp_path / "data")
        store.add(proxy.status(403, "AccessDenied"), "^GET /[^?]*item-00[1-2]")
        command = ("copy", f"s3://{filled.name}", f"s3://{empty.name}")
        first = program.run(*command, "--failed-to", again, env=env)
        assert first.code == 1
        assert "... and 10 more" in first.out
        assert sorted(Path(again).read_text().split()) == [
            f"item-{number:04}" for number in range(10, 30)
        ]
        store.clear()
        told = program.run(*command, "--keys-from", again, "--json", env=env).json
    assert (told["objects"], told["transferred"]) == (20, 20)
    _assert_equal(filled, empty)


def test_keys_from_a_file(
    filled: compare.Bucket, empty: compare.Bucket, env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("item-0003")
    command = ("copy", f"s3://{filled.name}", f"s3://{empty.name}")
    assert program.run(*command, "--keys-from", str(tmp_path / "keys"), env=env).code == 0
    assert empty.keys() == {"item-0003"}


def test_credentials_come_from_profiles_and_the_environment(
    filled: compare.Bucket, empty: compare.Bucket, ministack: S3Server, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(
        f"[profile store]\nregion = us-east-1\nendpoint_url = {ministack.endpoint}\n"
    )
    (tmp_path / "credentials").write_text(
        f"[store]\naws_access_key_id = {ministack.access_key_id}\n"
        f"aws_secret_access_key = {ministack.secret_access_key}\n"
    )
    env = {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_ACCESS_KEY_ID": ministack.access_key_id,
        "AWS_SECRET_ACCESS_KEY": ministack.secret_access_key,
        "AWS_ENDPOINT_URL_S3": ministack.endpoint,
        "AWS_REGION": "us-east-1",
        "SLURPER_DATA_DIR": str(tmp_path / "data"),
    }
    command = ("copy", f"s3://{filled.name}", f"s3://{empty.name}", "--source-profile", "store")
    assert program.run(*command, env=env).code == 0
    _assert_equal(filled, empty)


def test_r2_is_reached_at_the_endpoint_of_the_settings(
    filled: compare.Bucket, empty: compare.Bucket, env: dict[str, str], ministack: S3Server
) -> None:
    env = {name: value for name, value in env.items() if "TARGET_E" not in name}
    del env["SLURPER_TARGET_REGION"]
    env["SLURPER_R2_ENDPOINT"] = ministack.endpoint
    ended = program.run("copy", f"s3://{filled.name}", f"r2://{empty.name}", env=env)
    assert ended.code == 0, ended.err
    _assert_equal(filled, empty)


def test_copies_over_tls_with_a_private_authority(
    filled: compare.Bucket, empty: compare.Bucket, ministack_tls: S3Server, tmp_path: Path
) -> None:
    env = program.both_sides(ministack_tls, ministack_tls, tmp_path / "data")
    command = ("copy", f"s3://{filled.name}", f"s3://{empty.name}")
    refused = program.run(*command, env=env)
    assert refused.code == 2
    assert "certificate" in refused.err.lower()
    assert ministack_tls.ca_file is not None
    assert program.run(*command, "--ca-file", str(ministack_tls.ca_file), env=env).code == 0
    _assert_equal(filled, empty)


def test_loads_nothing_that_a_copy_does_not_need(
    filled: compare.Bucket, empty: compare.Bucket, ministack: S3Server, tmp_path: Path
) -> None:
    env = program.both_sides(ministack, ministack, tmp_path / "data")
    command = ("copy", f"s3://{filled.name}", f"s3://{empty.name}", "--json")
    ended = program.run(*command, env=env | {"PYTHONPROFILEIMPORTTIME": "1"}, anew=True)
    listed = (line for line in ended.err.splitlines() if line.startswith("import time:"))
    loaded = {line.rpartition("|")[2].strip() for line in listed}
    assert ended.json["transferred"] == COUNT
    assert {"slurper.cli.copying", "slurper.transfer.worker", "sqlalchemy"} <= loaded
    assert loaded & NOT_FOR_A_COPY == set()


def test_goes_on_after_kill_9_without_losing_or_counting_twice(
    filled: compare.Bucket, empty: compare.Bucket, ministack: S3Server, tmp_path: Path
) -> None:
    with proxy.FaultProxy(ministack.endpoint).running() as slow:
        slow.add(proxy.delayed(0.1), "^GET /[^?]*item-")
        behind = replace(ministack, endpoint=slow.endpoint)
        env = program.both_sides(behind, ministack, tmp_path / "data") | SLOWLY
        command = ("copy", f"s3://{filled.name}", f"s3://{empty.name}", "--json")
        with program.started(*command, env=env, anew=True) as process:
            program.wait_until(lambda: _copied(empty) > COUNT // 3, "a third of the copy")
            children = program.descendants(process)
            process.kill()
            process.wait()
            psutil.wait_procs(children, timeout=10)
        assert [child for child in children if child.is_running()] == []
        assert len(empty.keys()) < COUNT
        slow.clear()
        reads = slow.count("^GET /[^?]*item-")
        told = program.run(*command, env=env).json
        assert slow.count("^GET /[^?]*item-") - reads < COUNT, "it began from the start"
    assert (told["status"], told["resumed"]) == ("completed", True)
    assert (told["objects"], told["transferred"]) == (COUNT, COUNT)
    assert (told["skipped"], told["failed"]) == (0, 0)
    assert told["bytes"] == sum(range(COUNT))
    _assert_equal(filled, empty)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_pauses_and_running_again_goes_on(
    filled: compare.Bucket,
    empty: compare.Bucket,
    ministack: S3Server,
    tmp_path: Path,
    number: signal.Signals,
    code: int,
) -> None:
    with proxy.FaultProxy(ministack.endpoint).running() as slow:
        slow.add(proxy.delayed(0.1), "^GET /[^?]*item-")
        behind = replace(ministack, endpoint=slow.endpoint)
        env = program.both_sides(behind, ministack, tmp_path / "data") | SLOWLY
        command = ("copy", f"s3://{filled.name}", f"s3://{empty.name}", "--json")
        with program.started(*command, env=env, anew=True) as process:
            program.wait_until(lambda: _copied(empty) > 10, "the copy to begin")
            program.interrupt(process, number)
            stopped = program.end(process)
        assert stopped.code == code
        assert "run the same command again" in stopped.err
        assert stopped.json["status"] == "paused"
        assert stopped.json["transferred"] == len(empty.keys()) < COUNT
        slow.clear()
        told = program.run(*command, env=env).json
    assert (told["job"], told["resumed"]) == (stopped.json["job"], True)
    assert (told["transferred"], told["skipped"], told["failed"]) == (COUNT, 0, 0)
    _assert_equal(filled, empty)


def test_goes_on_with_other_limits(
    filled: compare.Bucket, empty: compare.Bucket, env: dict[str, str]
) -> None:
    command = ("copy", f"s3://{filled.name}", f"s3://{empty.name}", "--json")
    limited = (*command, "--request-rate-limit", "10", "--bandwidth-limit", "1MB/s")
    with program.started(*limited, env=env | SLOWLY) as process:
        program.wait_until(lambda: _copied(empty) > 2, "the copy to begin")
        program.interrupt(process, signal.SIGINT)
        stopped = program.end(process)
    assert stopped.json["status"] == "paused"
    assert stopped.json["transferred"] == len(empty.keys()) < COUNT
    told = program.run(*command, env=env).json
    assert (told["job"], told["resumed"]) == (stopped.json["job"], True)
    assert (told["transferred"], told["failed"]) == (COUNT, 0)
    _assert_equal(filled, empty)


@pytest.mark.parametrize("arguments", [(), ("--no-server-side-copy",)], ids=["inside", "through"])
def test_a_store_that_holds_both_buckets_copies_by_itself(
    filled: compare.Bucket,
    empty: compare.Bucket,
    ministack: S3Server,
    arguments: tuple[str, ...],
    tmp_path: Path,
) -> None:
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        behind = replace(ministack, endpoint=front.endpoint)
        env = program.both_sides(behind, behind, tmp_path / "data")
        command = ("copy", f"s3://{filled.name}", f"s3://{empty.name}", *arguments)
        ended = program.run(*command, env=env)
        assert ended.code == 0, ended.err
        checked = 1  # the precheck reads a byte of the first object
        assert front.count("^GET /[^?]*item-") == checked + (COUNT if arguments else 0)
    _assert_equal(filled, empty)


def test_goes_on_with_fresh_credentials_when_the_old_ones_expire(
    filled: compare.Bucket, empty: compare.Bucket, ministack: S3Server, tmp_path: Path
) -> None:
    with proxy.FaultProxy(ministack.endpoint).running() as store:
        behind = replace(ministack, endpoint=store.endpoint)
        env = program.both_sides(behind, ministack, tmp_path / "data") | SLOWLY
        store.add(proxy.status(403, "ExpiredToken"), "^GET /[^?]*item-", skip=25)
        command = ("copy", f"s3://{filled.name}", f"s3://{empty.name}")
        halted = program.run(*command, env=env)
        assert halted.code == 1
        assert "ExpiredToken" in halted.err
        assert "run the same command again" in halted.err
        store.clear()
        told = program.run(*command, "--json", env=env).json
    assert (told["status"], told["resumed"]) == ("completed", True)
    assert (told["transferred"], told["failed"]) == (COUNT, 0)
    _assert_equal(filled, empty)


def test_the_same_copy_does_not_run_twice_at_once(
    filled: compare.Bucket, empty: compare.Bucket, ministack: S3Server, tmp_path: Path
) -> None:
    env = program.both_sides(ministack, ministack, tmp_path / "data") | SLOWLY
    command = ("copy", f"s3://{filled.name}", f"s3://{empty.name}")
    with program.started(*command, "--request-rate-limit", "2", env=env) as process:
        program.wait_until(lambda: bool(empty.keys()), "the copy to begin")
        second = program.run(*command, env=env)
        assert second.code == 2
        assert f"already running as process {process.pid}" in second.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"SLURPER_SOURCE_SECRET_ACCESS_KEY": "wrong"}, "source secret: "),
        ({"SLURPER_TARGET_SECRET_ACCESS_KEY": "wrong"}, "target secret: "),
        ({"SLURPER_SOURCE_ENDPOINT": "http://127.0.0.1:1"}, "source endpoint: "),
        ({"SLURPER_TARGET_ENDPOINT": "nonsense"}, "target endpoint: "),
        ({"SLURPER_ALLOW_HTTP": "false"}, "source endpoint: "),
        ({"SLURPER_SOURCE_SECRET_ACCESS_KEY": ""}, "belong together"),
        ({"SLURPER_IN_FLIGHT_BYTES": "1"}, "SLURPER_IN_FLIGHT_BYTES: "),
        ({"SLURPER_CONFIG": "/does/not/exist.toml"}, "SLURPER_CONFIG /does/not"),
    ],
)
def test_what_cannot_work_is_said_before_anything_begins(
    filled: compare.Bucket,
    empty: compare.Bucket,
    env: dict[str, str],
    change: dict[str, str],
    said: str,
) -> None:
    command = ("copy", f"s3://{filled.name}", f"s3://{empty.name}")
    ended = program.run(*command, env=env | change)
    assert ended.code == 2, ended
    assert said in ended.err
    assert "wrong" not in ended.err.replace("wrong,", "")
    assert empty.keys() == set()


@pytest.mark.parametrize("command", ["copy", "precheck"])
def test_the_settings_file_beats_what_a_command_would_allow(
    command: str, filled: compare.Bucket, empty: compare.Bucket, env: dict[str, str], tmp_path: Path
) -> None:
    arguments = (command, f"s3://{filled.name}", f"s3://{empty.name}")
    file = tmp_path / "slurper.toml"
    env["SLURPER_CONFIG"] = str(file)
    file.write_text("allow_http = false\n")
    ended = program.run(*arguments, env=env)
    assert ended.code == 2
    assert "source endpoint: " in ended.err
    assert program.run(*arguments, "--allow-http", env=env).code == 0
    file.write_text("allow_private_endpoints = false\n")
    assert program.run(*arguments, env=env).code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("copy", "bucket", "s3://b"), "write s3://BUCKET"),
        (("copy", "gs://bucket", "s3://b"), "--source-credentials-file"),
        (("copy", "s3://", "s3://b"), "names no bucket"),
        (("copy", "s3://a", "s3://b/prefix"), "TARGET names a prefix"),
        (("copy", "s3://a", "r2://b"), "CLOUDFLARE_ACCOUNT_ID"),
        (("copy", "s3://a", "s3://b", "--keys-from", "/absent"), "--keys-from /absent"),
        (("copy", "s3://a", "s3://b", "--keys-from", "-"), "holds no key"),
        (("copy", "s3://a", "s3://b", "--failed-to", "/absent/file"), "--failed-to /absent/file"),
        (("copy", "s3://a", "s3://b", "--include-type", "image"), "--include-type 'image': must"),
        (("copy", "s3://a", "s3://b", "--include-type", ""), "--include-type '': must be"),
        (("copy", "s3://a", "s3://b", "--exclude-type", "a/*,b/c"), "--exclude-type 'a/*,b/c': "),
        (("copy", "s3://a"), "TARGET"),
        (("copy", "s3://a", "s3://b", "--workers", "0"), "--workers"),
        (("copy", "s3://a", "r2://b", "--target-region", "eu"), "R2 has none"),
        (("copy", "s3://a", "s3://b", "--source-jurisdiction", "eu"), "for r2:// only"),
        (("nonsense",), "nonsense"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    env = {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "SLURPER_DATA_DIR": str(tmp_path),
    }
    ended = program.run(*arguments, env=env)
    assert ended.code == 2
    assert said in ended.err


def test_without_credentials_it_says_where_to_put_them(tmp_path: Path) -> None:
    ended = program.run("copy", "s3://a", "s3://b", env={"SLURPER_DATA_DIR": str(tmp_path)})
    assert ended.code == 2
    assert "SLURPER_SOURCE_ACCESS_KEY_ID" in ended.err
    assert "--source-profile" in ended.err


def test_an_absent_bucket_is_named(filled: compare.Bucket, env: dict[str, str]) -> None:
    ended = program.run("copy", f"s3://{filled.name}", "s3://no-such-bucket-here", env=env)
    assert ended.code == 2
    assert "target bucket: " in ended.err
    assert "no-such-bucket-here" in ended.err


def test_precheck(filled: compare.Bucket, empty: compare.Bucket, env: dict[str, str]) -> None:
    sides = ("precheck", f"s3://{filled.name}", f"s3://{empty.name}")
    assert program.run(*sides, env=env, anew=True).code == 0
    assert empty.keys() == set()
    refused = program.run(*sides, env=env | {"SLURPER_TARGET_SECRET_ACCESS_KEY": "other"})
    assert refused.code == 2
    assert "target secret: " in refused.err
