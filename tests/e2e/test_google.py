"""Google Cloud Storage through the official SDK and the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cloudflare
import pytest
from cloudflare import Cloudflare

from slurper.demo.servers import S3Server
from tests.e2e import program, sdk_requests
from tests.e2e.sdk_requests import gcs_source, r2_target, wait_for_end
from tests.pairs.stores import google_store, s3_store
from tests.servers.gcs.server import GcsServer
from tests.servers.gcs.tokens import ACCOUNT

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

OBJECTS = {
    "plain.txt": b"text",
    "empty": b"",
    "a/../b//c+%2F ?#": bytes(range(256)) * 40,
    "dir/ü-\U0001f30d": b"0123456789abcdef" * (1 << 16),
}


@pytest.fixture
def filled(gcs: GcsServer) -> str:
    bucket = gcs.make_bucket()
    for key, body in OBJECTS.items():
        gcs.add(bucket, key, body, contentType="text/x-own", metadata={"owner": "ana"})
    return bucket


def test_a_google_bucket_arrives_in_r2(
    sdk: Cloudflare,
    account: str,
    filled: str,
    ministack: S3Server,
    boto: Callable[[S3Server], S3Client],
    make_bucket: Callable[[S3Server], str],
) -> None:
    target = make_bucket(ministack)
    precheck = sdk.r2.super_slurper.connectivity_precheck
    checked = precheck.source(account_id=account, **gcs_source(filled))
    assert checked is not None
    assert checked.connectivity_status == "success"
    job = sdk.r2.super_slurper.jobs.create(
        account_id=account, source=gcs_source(filled), target=r2_target(ministack, target)
    )
    assert job is not None
    assert job.id is not None
    progress = wait_for_end(sdk, account, job.id)
    assert (progress.status, progress.transferred_objects) == ("completed", len(OBJECTS))
    shown = sdk.r2.super_slurper.jobs.get(job.id, account_id=account)
    assert shown is not None
    assert shown.source is not None
    assert shown.source.vendor == "gcs"
    assert "PRIVATE KEY" not in shown.to_json()
    for key, body in OBJECTS.items():
        found = boto(ministack).get_object(Bucket=target, Key=key)
        assert (found["Body"].read(), found["ContentType"]) == (body, "text/x-own")
        assert found["Metadata"] == {"owner": "ana"}


def test_a_google_bucket_arrives_in_another(
    sdk: Cloudflare, account: str, gcs: GcsServer, filled: str
) -> None:
    target = gcs.make_bucket()
    job = sdk.r2.super_slurper.jobs.create(
        account_id=account, source=gcs_source(filled), target=sdk_requests.gcs_target(target)
    )
    assert job is not None
    assert job.id is not None
    assert wait_for_end(sdk, account, job.id).status == "completed"
    kept = gcs.buckets[target].objects
    assert {key: found.data for key, found in kept.items()} == OBJECTS


def test_what_cannot_work_is_pointed_at(
    sdk: Cloudflare, account: str, filled: str, ministack: S3Server, gcs: GcsServer
) -> None:
    target = r2_target(ministack, "bucket")
    jobs = sdk.r2.super_slurper.jobs
    for bad in ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "MIIE"):
        with pytest.raises(cloudflare.BadRequestError, match="/source/secret/privateKey"):
            jobs.create(
                account_id=account, source=gcs_source(filled, private_key=bad), target=target
            )
    precheck = sdk.r2.super_slurper.connectivity_precheck
    for source, reason in (
        (gcs_source(filled, client_email="nobody@project.example"), "secret: "),
        (gcs_source("no-such-bucket-0b6e"), "bucket: "),
    ):
        answer = precheck.with_raw_response.source(account_id=account, **source)
        document = answer.json()
        assert isinstance(document, dict)
        assert isinstance(document["result"], dict)
        assert document["result"]["connectivityStatus"] == "error"
        assert [message.startswith(reason) for message in document["messages"]] == [True]
    assert gcs.buckets[filled].objects.keys() == OBJECTS.keys()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "account.json"
    account = {"client_email": ACCOUNT.client_email, "private_key": ACCOUNT.private_key}
    path.write_text(json.dumps({"type": "service_account", **account}))
    return path


def test_the_command_line_copies_to_and_from_google(
    gcs: GcsServer, filled: str, tmp_path: Path, key_file: Path
) -> None:
    target = gcs.make_bucket()
    env = {**gcs.environment, "SLURPER_DATA_DIR": str(tmp_path / "data")}
    named = f"--source-credentials-file={key_file}"
    sides = (f"gs://{filled}", f"gcs://{target}", named)
    env["GOOGLE_APPLICATION_CREDENTIALS"] = str(key_file)  # for the target
    checked = program.run("precheck", *sides, env=env)
    assert (checked.code, checked.err) == (0, "")
    assert gcs.uploads == {}
    ended = program.run("copy", *sides, env=env)
    assert ended.code == 0, ended.err
    kept = gcs.buckets[target].objects
    assert {key: found.data for key, found in kept.items()} == OBJECTS


def test_the_command_line_says_what_is_wrong(
    gcs: GcsServer, filled: str, tmp_path: Path, key_file: Path
) -> None:
    env = {**gcs.environment, "SLURPER_DATA_DIR": str(tmp_path / "data")}
    without = program.run("precheck", f"gs://{filled}", f"gs://{filled}", env=env)
    assert without.code == 2
    assert "--source-credentials-file" in without.err
    env["GOOGLE_APPLICATION_CREDENTIALS"] = str(key_file)
    key_file.write_text(key_file.read_text().replace("MII", "AAA"))
    broken = program.run("precheck", f"gs://{filled}", f"gs://{filled}", env=env)
    assert broken.code == 2
    assert "RSA private key" in broken.err


@pytest.mark.parametrize("name", ["gcs", "fakegcs", "gcsemulator"])
def test_a_bucket_comes_back_from_every_stand_in_of_google(
    request: pytest.FixtureRequest,
    name: str,
    ministack: S3Server,
    boto: Callable[[S3Server], S3Client],
    make_bucket: Callable[[S3Server], str],
    tmp_path: Path,
) -> None:
    client, begin, end = boto(ministack), make_bucket(ministack), make_bucket(ministack)
    bodies = {"a//b": b"1", "empty": b"", "ü %2F+?#": b"2", "large": b"x" * (12 << 20)}
    for key, body in bodies.items():
        client.put_object(
            Bucket=begin, Key=key, Body=body, ContentType="text/x-own", Metadata={"owner": "ana"}
        )
    with google_store(request.getfixturevalue(name), tmp_path) as google:
        between = google.new_bucket()
        sizes = {"MULTIPART_THRESHOLD_BYTES": f"{6 << 20}", "PART_BYTES": f"{5 << 20}"}
        env = {f"SLURPER_{setting}": value for setting, value in sizes.items()} | google.settings
        env["SLURPER_DATA_DIR"] = str(tmp_path)
        s3 = s3_store(ministack)
        with s3 as store:
            there = env | store.variables("source") | google.variables("target")
            back = env | google.variables("source") | store.variables("target")
        sides = f"s3://{begin}", google.url(between)
        for again in ((), ("--no-overwrite",)):
            done = program.run("copy", *sides, *again, "--json", env=there)
            assert done.code == 0, done.err
            moved = "skipped" if again else "transferred"
            assert done.json[moved] == len(bodies)
        done = program.run("copy", google.url(between), f"s3://{end}", env=back)
        assert done.code == 0, done.err
    for key, body in bodies.items():
        found = client.get_object(Bucket=end, Key=key)
        kept = found["Body"].read(), found["ContentType"], found["Metadata"]
        assert kept == (body, "text/x-own", {"owner": "ana"})
