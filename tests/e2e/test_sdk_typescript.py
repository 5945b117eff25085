"""The official TypeScript SDK drives the service, where node, npm and the registry are there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from slurper.demo.servers import S3Server
from tests.chaos import faults
from tests.chaos.proxy import FaultProxy
from tests.e2e.conftest import Service

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

VERSION = "7.3.0"
INSTALL_SECONDS = 90
RUN_SECONDS = 60
SCRIPT = Path(__file__).with_name("sdk_typescript.mjs")

pytestmark = pytest.mark.timeout(INSTALL_SECONDS + RUN_SECONDS + 60)


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script, in a folder where the SDK is installed."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    try:
        done = subprocess.run(
            [*command, f"cloudflare@{VERSION}"],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install cloudflare@{VERSION} within {INSTALL_SECONDS} s")
    if done.returncode != 0:
        pytest.skip(f"npm cannot install cloudflare@{VERSION}: {done.stderr[-500:]}")
    return Path(shutil.copy(SCRIPT, folder))


def run(script: Path, given: Mapping[str, object]) -> Any:  # noqa: ANN401 - as JSON is
    done = subprocess.run(
        ["node", script.name],  # noqa: S607 - looked for by the fixture
        cwd=script.parent,
        env={"PATH": os.environ["PATH"], "GIVEN": json.dumps(given)},
        capture_output=True,
        encoding="utf-8",
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(params=[0, 1], ids=["no answer lost", "the answer to create lost"])
def base_url(service: Service, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the SDK finds the service; a lost answer makes it send the request again."""
    with FaultProxy(service.origin).running() as front:
        front.add(faults.lost_answer, "^POST", times=request.param)
        yield f"{front.endpoint}/client/v4"


def test_a_job_from_its_creation_to_its_end(
    script: Path,
    base_url: str,
    service: Service,
    account: str,
    ministack: S3Server,
    buckets: tuple[str, str],
    boto: Callable[[S3Server], S3Client],
) -> None:
    source, target = buckets
    secret = {
        "accessKeyId": ministack.access_key_id,
        "secretAccessKey": ministack.secret_access_key,
    }
    told = run(
        script,
        {
            "baseURL": base_url,
            "token": service.token,
            "account": account,
            "source": {
                "vendor": "s3",
                "bucket": source,
                "endpoint": ministack.endpoint,
                "region": ministack.region,
                "secret": secret,
            },
            "target": {"vendor": "r2", "bucket": target, "secret": secret},
        },
    )
    assert told["precheck"] == {"connectivityStatus": "success", "reasons": []}
    progress = told["progress"]
    assert progress["status"] == "completed"
    wanted = boto(ministack).list_objects_v2(Bucket=source)["Contents"]
    assert progress["objects"] == progress["transferredObjects"] == len(wanted)
    assert told["created"]["id"] == progress["id"] == told["found"]["id"]
    assert told["found"]["source"]["bucket"] == source
    assert told["listed"] == [told["created"]["id"]]
    assert told["logs"] == ["migrationStart", "migrationComplete"]
    assert told["refusal"] == {"name": "ConflictError", "status": 409}
    copied = boto(ministack).list_objects_v2(Bucket=target)["Contents"]
    assert [(one["Key"], one["ETag"]) for one in copied] == [
        (one["Key"], one["ETag"]) for one in wanted
    ]
