"""The keys that seal credentials are changed under a running service, and nothing is lost by it."""

from __future__ import annotations

import asyncio
import functools
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from slurper import data_folder
from slurper.database.store import JobStore
from slurper.demo.servers import S3Server
from slurper.job.lifecycle import Command
from slurper.secrets import JobSecrets, S3Credentials, Sealer, new_key
from slurper.settings import Settings
from tests.e2e import program
from tests.e2e.program import ACCOUNT
from tests.unit.database import values

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ROWS = 4_000
"""More than one piece by far, so that a kill falls between two of them."""
PAIR = S3Credentials(access_key_id="AKIDEXAMPLE", secret_access_key="hunter2")
SECRETS = JobSecrets(source=PAIR, target=PAIR)


@pytest.fixture
def buckets(
    ministack: S3Server,
    make_bucket: Callable[[S3Server], str],
    boto: Callable[[S3Server], S3Client],
) -> tuple[str, str]:
    """A bucket with some objects, and an empty one."""
    source, target = make_bucket(ministack), make_bucket(ministack)
    for number in range(5):
        boto(ministack).put_object(Bucket=source, Key=f"item-{number}", Body=b"x")
    return source, target


def _fill(folder: Path, *, key: str | None = None) -> str:
    """Store a paused job, and many copies of its row; return its id."""
    settings = Settings.model_validate({"data_dir": folder, "secret_key": key})

    async def make() -> str:
        sealer = data_folder.prepare(settings)
        store = await JobStore.open(settings.resolved_database_url)
        job = values.job()
        entry = values.started(job)
        await store.create_job(job, sealer.seal(SECRETS), max_active=1, entry=entry)
        await store.apply(ACCOUNT, job.id, Command.PAUSE)
        await store.close()
        return job.id

    job_id = asyncio.run(make())
    with closing(sqlite3.connect(folder / "slurper.db")) as database, database:
        names = [row[1] for row in database.execute("PRAGMA table_info(jobs)")]
        copied = ", ".join(name for name in names if name not in ("number", "id", "account_id"))
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        rows = f"SELECT printf('%064d', i), 'other', {copied} FROM jobs, n"  # noqa: S608 - ours
        database.execute(f"{numbers} INSERT INTO jobs (id, account_id, {copied}) {rows}", (ROWS,))
    return job_id


def _sealed(folder: Path) -> list[bytes]:
    with closing(sqlite3.connect(folder / "slurper.db", timeout=60)) as database:
        rows = database.execute("SELECT sealed FROM jobs WHERE sealed IS NOT NULL").fetchall()
    return [row[0] for row in rows]


def _keys(folder: Path) -> tuple[str, ...]:
    return tuple((folder / "secret.key").read_text().split())


def _are_others(folder: Path, keys: tuple[str, ...]) -> bool:
    return _keys(folder) != keys


def _open_all(folder: Path, keys: tuple[str, ...]) -> None:
    sealer = Sealer(keys)
    for sealed in _sealed(folder):
        sealer.open(sealed)


def test_keys_are_rotated_under_a_running_service_and_through_kills(
    tmp_path: Path, ministack: S3Server, buckets: tuple[str, str]
) -> None:
    folder = tmp_path / "data"
    _fill(folder)
    (first,) = _keys(folder)
    data_dir = ("--data-dir", str(folder))
    pauses = [0.0, 0.02, 0.05, 0.1, 0.2, 0.4]
    env = {"SLURPER_MAX_CONCURRENT_JOBS_TOTAL": "10000"}
    with program.serving(folder, env=env) as service:
        for pause in pauses:
            before = _keys(folder)
            with program.started("keys", "rotate", *data_dir) as rotating:
                program.wait_until(functools.partial(_are_others, folder, before), "the new key")
                time.sleep(pause)
                rotating.send_signal(signal.SIGKILL)
                program.end(rotating)
            _open_all(folder, _keys(folder))
        job_id = service.create_job(ministack, *buckets)  # sealed while several keys are there
        ended = program.run("keys", "rotate", *data_dir)
        assert ended.code == 0, ended.err
        (last,) = _keys(folder)
        assert last != first
        _open_all(folder, (last,))
        assert program.run("jobs", "watch", job_id, env=service.env).code == 0
        paused = service.create_job(ministack, *buckets)
        _open_all(folder, (last,))
        service.call("PUT", f"/{paused}/pause")
    assert [each for each in folder.iterdir() if each.name.startswith(".secret.key-")] == []
    with program.serving(folder, env=env) as service:
        if service.call("GET", f"/{paused}").json()["result"]["status"] == "paused":
            assert service.call("PUT", f"/{paused}/resume").status_code == 200
        assert program.run("jobs", "watch", paused, env=service.env).code == 0


def test_keys_of_the_environment_are_yours_to_change(tmp_path: Path) -> None:
    old, new = new_key(), new_key()
    folder = tmp_path / "data"
    _fill(folder, key=old)
    data_dir = ("--data-dir", str(folder))
    refused = program.run("keys", "rotate", *data_dir, env={"SLURPER_SECRET_KEY": old})
    assert refused.code == 2
    for said in ("slurper keys new", "SLURPER_SECRET_KEY=NEW,OLD", "slurper keys reseal"):
        assert said in refused.err
    printed = program.run("keys", "new", anew=True)
    assert Sealer((printed.out.strip(),)).seal(SECRETS)
    both = {"SLURPER_SECRET_KEY": f"{new},{old}"}
    ended = program.run("keys", "reseal", *data_dir, env=both, anew=True)
    assert ended.code == 0, ended.err
    assert f"sealed again: {ROWS + 1:,}" in ended.out
    _open_all(folder, (new,))
    assert not (folder / "secret.key").exists()


def test_a_rotation_that_was_stopped_can_be_finished(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    _fill(folder)
    (old,) = _keys(folder)
    new = new_key()
    (folder / "secret.key").write_text(f"{new}\n{old}\n")
    ended = program.run("keys", "reseal", "--data-dir", str(folder), anew=True)
    assert ended.code == 0, ended.err
    assert _keys(folder) == (new,)
    _open_all(folder, (new,))


def test_what_no_key_opens_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    _fill(folder)
    (folder / "secret.key").write_text(new_key() + "\n")
    ended = program.run("keys", "rotate", "--data-dir", str(folder), anew=True)
    assert ended.code == 0
    assert f"no key opens the credentials of {ROWS + 1:,} jobs" in ended.err


@pytest.mark.parametrize(
    "command", [("serve", "--port", "0"), ("token", "list"), ("keys", "rotate")]
)
@pytest.mark.parametrize("name", ["secret.key", "slurper.db"])
def test_no_command_uses_what_others_may_read(
    tmp_path: Path, command: tuple[str, ...], name: str
) -> None:
    folder = tmp_path / "data"
    assert program.run("token", "list", "--data-dir", str(folder)).code == 0
    (folder / name).chmod(0o644)
    ended = program.run(*command, "--data-dir", str(folder))
    assert ended.code == 2
    assert f"chmod go-rwx {folder / name}" in ended.err
