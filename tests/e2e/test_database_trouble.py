"""A disk that is full, a database that is locked, a folder that cannot be written to.

With the real program: what cannot begin says why in one line; what is under way waits for the cure,
and then goes on as if nothing had been. A disk is really full (a small tmpfs, where one may be
mounted), or the program may make no file any larger, which any user can bring about.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from slurper.demo.servers import S3Server
from tests.e2e import program
from tests.e2e.conftest import COUNT
from tests.e2e.program import Service

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Boto = Callable[[S3Server], "S3Client"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs tmpfs and prlimit")

SLOWLY = {"SLURPER_IN_FLIGHT_REQUESTS": "2", "SLURPER_STOP_GRACE_SECONDS": "1"}


class FullDisk:
    """A data folder on a disk of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, _pid: int = 0) -> None:
        """Take all the space there is."""
        with self._filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1024))

    def cure(self, _pid: int = 0) -> None:
        """Give it back."""
        self._filler.unlink()


class NoLargerFiles:
    """A program whose writes fail, as they do beyond a quota."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, pid: int) -> None:
        """From now on no file of the process may be longer than a byte."""
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))

    def cure(self, pid: int) -> None:
        """Take the limit away."""
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


Disk = FullDisk | NoLargerFiles


@contextmanager
def small_disk(folder: Path) -> Iterator[FullDisk]:
    """A tmpfs of a megabyte, mounted at `folder`."""
    folder.mkdir(mode=0o700)
    refusal = _mount("mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", str(folder))
    if refusal:
        pytest.skip(f"this user may mount nothing: {refusal}")
    try:
        yield FullDisk(folder)
    finally:
        assert _mount("umount", "--lazy", str(folder)) == ""


def _mount(program_name: str, *arguments: str) -> str:
    """Run mount or umount; return why it did not do it."""
    path = shutil.which(program_name)
    if path is None:
        return f"there is no {program_name}"
    done = subprocess.run([path, *arguments], capture_output=True, encoding="utf-8", check=False)
    return "" if done.returncode == 0 else (done.stderr or f"{program_name} failed").splitlines()[0]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[FullDisk]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture(params=["full", "limited"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "limited":
        yield NoLargerFiles(tmp_path / "data")
        return
    with small_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder nobody may write to: root writes in spite of modes, so it gets a mount."""
    folder = tmp_path / "read-only"
    if os.geteuid() != 0:
        folder.mkdir(mode=0o500)
        yield folder
        folder.chmod(0o700)
        return
    with small_disk(folder):
        assert _mount("mount", "-o", "remount,ro", str(folder)) == ""
        yield folder


def _commands(folder: Path) -> list[tuple[str, ...]]:
    """Everything that opens a database in a data folder."""
    data_dir = ("--data-dir", str(folder))
    return [
        ("serve", "--port", "0", *data_dir),
        ("token", "create", "laptop", *data_dir),
        ("token", "list", *data_dir),
        ("copy", "s3://from", "s3://to"),
    ]


def _refused(arguments: tuple[str, ...], folder: Path) -> str:
    """Run a command that cannot begin; it must say so in one line, with the folder and a fix."""
    nowhere = S3Server(endpoint="http://127.0.0.1:9", access_key_id="a", secret_access_key="s")
    ended = program.run(*arguments, env=program.both_sides(nowhere, nowhere, folder))
    assert ended.code == 2, ended
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith("error: "), line
    assert str(folder) in line
    assert any(fix in line for fix in ("set SLURPER_DATA_DIR", "space and perm", "has space")), line
    return line


@pytest.mark.parametrize("which", range(4))
def test_a_read_only_folder_is_named_with_its_fix(read_only: Path, which: int) -> None:
    line = _refused(_commands(read_only)[which], read_only)
    assert "Read-only file system" in line or "Permission denied" in line
    assert list(read_only.iterdir()) == []


@pytest.mark.parametrize("which", range(4))
def test_a_full_disk_is_named_with_its_fix(full_disk: FullDisk, which: int) -> None:
    full_disk.fill()
    assert "No space left on device" in _refused(
        _commands(full_disk.folder)[which], full_disk.folder
    )


def test_a_disk_that_fills_up_while_the_database_is_made_leaves_nothing_in_the_way(
    full_disk: FullDisk,
) -> None:
    full_disk.fill()
    with (full_disk.folder / "filler").open("r+b") as file:
        file.truncate((1 << 20) - (40 << 10))
    _refused(("token", "create", "laptop"), full_disk.folder)
    full_disk.cure()
    data_dir = ("--data-dir", str(full_disk.folder))
    assert program.run("token", "list", *data_dir).out == "no tokens\n"
    assert program.run("token", "create", "laptop", *data_dir).code == 0


def test_a_full_disk_makes_no_token(full_disk: FullDisk) -> None:
    data_dir = ("--data-dir", str(full_disk.folder))
    assert program.run("token", "create", "first", *data_dir).code == 0
    full_disk.fill()
    _refused(("token", "create", "second"), full_disk.folder)
    full_disk.cure()
    assert "second" not in program.run("token", "list", *data_dir).out
    assert program.run("token", "create", "second", *data_dir).code == 0


def _objects(service: Service, job_id: str) -> int:
    answer = service.call("GET", f"/{job_id}/progress")
    assert answer.status_code == 200, answer.text
    settled: int = answer.json()["result"]["objects"]
    return settled


def _begun(service: Service, slow: S3Server, buckets: tuple[str, str]) -> str:
    job_id = service.create_job(slow, *buckets)
    program.wait_until(lambda: _objects(service, job_id) > 0, "the first commit")
    return job_id


def _assert_refused(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    (problem,) = answer.json()["errors"]
    assert "cannot use its database at present" in problem["message"]
    assert "nothing was changed, try again later" in problem["message"]


def _assert_completed(service: Service, job_id: str, types: list[str]) -> None:
    """Every object is counted once, and the log tells of nothing that did not happen."""

    def progress() -> dict[str, object]:
        found: dict[str, object] = service.call("GET", f"/{job_id}/progress").json()["result"]
        return found

    program.wait_until(lambda: progress()["status"] == "completed", "the end of the job")
    names = ("objects", "transferredObjects", "skippedObjects", "failedObjects")
    ended = progress()
    assert [ended[name] for name in names] == [COUNT, COUNT, 0, 0]
    entries = service.call("GET", f"/{job_id}/logs").json()["result"]
    assert [entry["logType"] for entry in entries] == types


def test_a_service_outlives_a_full_disk_and_its_jobs_go_on(
    disk: Disk, slow: S3Server, buckets: tuple[str, str]
) -> None:
    with program.serving(disk.folder, env=SLOWLY, anew=True) as service:
        job_id = _begun(service, slow, buckets)
        disk.fill(service.process.pid)
        for _ in range(2):
            _assert_refused(service.call("PUT", f"/{job_id}/pause"))
            assert service.client.get(f"{service.url}/healthz").status_code == 200
        settled = _objects(service, job_id)
        assert settled < COUNT
        program.wait_until(lambda: _commits_delayed(service), "a commit that has to wait")
        assert _objects(service, job_id) == settled
        disk.cure(service.process.pid)
        _assert_completed(service, job_id, ["migrationStart", "migrationComplete"])


def _commits_delayed(service: Service) -> bool:
    metrics = service.client.get(f"{service.url}/metrics").text
    return bool(
        re.search(r'^slurper_commits_total{outcome="delayed"} [1-9]', metrics, re.MULTILINE)
    )


def test_a_service_that_is_stopped_on_a_full_disk_ends_and_loses_nothing(
    disk: Disk, slow: S3Server, buckets: tuple[str, str]
) -> None:
    with program.serving(disk.folder, env=SLOWLY) as first:
        job_id = _begun(first, slow, buckets)
        disk.fill(first.process.pid)
        _assert_refused(first.call("PUT", f"/{job_id}/pause"))
        first.process.send_signal(signal.SIGTERM)
        ended = program.end(first.process)
        assert (ended.code, "Traceback" in ended.err) == (0, False), ended.err
    if isinstance(disk, FullDisk):
        disk.cure()
    with program.serving(disk.folder) as second:
        _assert_completed(second, job_id, ["migrationStart", "migrationComplete"])


def test_a_copy_waits_for_space_and_goes_on(
    disk: Disk, ministack: S3Server, slow: S3Server, buckets: tuple[str, str], boto: Boto
) -> None:
    disk.folder.mkdir(exist_ok=True)
    env = program.both_sides(slow, ministack, disk.folder) | SLOWLY
    env |= {"SLURPER_TASK_SECONDS": "0.3", "SLURPER_WORKERS": "1"}
    sides = (f"s3://{buckets[0]}", f"s3://{buckets[1]}")
    listing = boto(ministack).list_objects_v2
    with program.started("copy", *sides, "--json", env=env) as process:
        program.wait_until(  # what the check writes begins with a dot or a slash
            lambda: listing(Bucket=buckets[1], StartAfter="/~")["KeyCount"] > 0, "the first object"
        )
        disk.fill(process.pid)
        for line in process.stderr:
            if "database cannot be used" in line:
                break
        assert process.poll() is None, "the copy gave up"
        disk.cure(process.pid)
        ended = program.end(process)
    assert ended.code == 0, ended.err
    assert [ended.json[name] for name in ("transferred", "skipped", "failed")] == [COUNT, 0, 0]


def test_a_locked_database_is_waited_for_and_then_named(
    slow: S3Server, buckets: tuple[str, str], tmp_path: Path
) -> None:
    """Readers are not in the way; who wants to write is told within the time clients wait."""
    with program.serving(tmp_path, env=SLOWLY) as service:
        job_id = _begun(service, slow, buckets)
        intruder = sqlite3.connect(tmp_path / "slurper.db", isolation_level=None)
        intruder.execute("BEGIN IMMEDIATE")
        try:
            token = ("token", "create", "laptop", "--data-dir", str(tmp_path))
            with program.started(*token) as making:
                settled = _objects(service, job_id)
                _assert_refused(service.call("PUT", f"/{job_id}/pause"))
                assert _objects(service, job_id) == settled
                refused = program.end(making)
            assert refused.code == 2
            assert "database is locked" in refused.err
        finally:
            intruder.close()
        _assert_completed(service, job_id, ["migrationStart", "migrationComplete"])
        assert program.run("token", "list", "--data-dir", str(tmp_path)).out == "no tokens\n"
