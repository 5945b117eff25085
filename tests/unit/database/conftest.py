"""One store suite, on SQLite and, where its server and driver are installed, on PostgreSQL."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.unit.database.values import Store

_numbers = count()


def _postgres_binaries() -> Path | None:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    found = str(installed[-1]) if installed else shutil.which("pg_ctl")
    return Path(found).parent if found else None


def _wait_until_ready(binaries: Path, folder: Path, process: subprocess.Popen[bytes]) -> None:
    question = [str(binaries / "pg_isready"), "-q", "-h", str(folder)]
    while subprocess.run(question, check=False).returncode != 0:
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.05)


_HAS_POSTGRES = bool(_postgres_binaries() and importlib.util.find_spec("asyncpg"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server of our own, on a socket in its own folder; gives that folder."""
    binaries = _postgres_binaries()
    assert binaries is not None
    # Socket paths are short, and the server refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="slurper-pg-"))
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)
    server = binaries / "postgres"
    options = ["-D", f"{folder}/data", "-k", str(folder), "-c", "listen_addresses=", "-F"]
    try:
        initdb = [str(binaries / "initdb"), "-D", f"{folder}/data", "-U", "slurper", "-E", "UTF8"]
        subprocess.run(initdb, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([server, *options], user=user, cwd=folder, stderr=log)
        try:
            _wait_until_ready(binaries, folder, process)
            yield str(folder)
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"] if _HAS_POSTGRES else ["sqlite"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'slurper.db'}"
    socket = request.getfixturevalue("postgres")
    binaries = _postgres_binaries()
    assert binaries is not None
    name = f"slurper{next(_numbers)}"
    command = [str(binaries / "createdb"), "-h", socket, "-U", "slurper", name]
    subprocess.run(command, check=True)
    return f"postgresql://slurper@/{name}?host={socket}"


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    opened = await Store.open(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def sqlite_store(tmp_path: Path) -> AsyncIterator[Store]:
    """For what only a file can show."""
    opened = await Store.open(f"sqlite:///{tmp_path / 'slurper.db'}")
    yield opened
    await opened.close()
