"""A start that lacks file descriptors, processes or memory is tried again until there are some."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from slurper import errors
from slurper.engine import local, shortage
from slurper.engine.local import START_ATTEMPTS, LocalEngine
from slurper.engine.template import Template
from slurper.settings import Settings
from tests.unit.engine.conftest import SCRIPTED, StartEngine
from tests.unit.engine.test_local import ROOT, pid_of_worker, until
from tests.unit.engine.test_template import template_of

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="sets limits of other processes")

Starts = Callable[[], int]


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    """Counts the starts, which follow each other without a long delay."""
    count = 0
    fork = Template.fork

    def counted(template: Template, worker_socket: socket.socket) -> object:
        nonlocal count
        count += 1
        return fork(template, worker_socket)

    monkeypatch.setattr(Template, "fork", counted)
    monkeypatch.setattr(local, "_LONGEST_BACKOFF_SECONDS", 0.1)
    return lambda: count


@contextmanager
def limited(pid: int, limit: int, most: int) -> Iterator[None]:
    """Set the soft limit of a running process while the block lasts."""
    before = resource.prlimit(pid, limit)
    resource.prlimit(pid, limit, (most, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, limit, before)


def lines(text: str) -> list[dict[str, object]]:
    """The records in a log that begin with `{`; a traceback is no record."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@LINUX
@pytest.mark.processes
class TestWorkersOfAnEngine:
    async def test_a_template_without_descriptors_is_waited_for(
        self, start_engine: StartEngine, starts: Starts, caplog: pytest.LogCaptureFixture
    ) -> None:
        engine = await start_engine()
        worker = await pid_of_worker(engine)
        begun = starts()
        with limited(template_of(engine), resource.RLIMIT_NOFILE, 3):
            os.kill(worker, signal.SIGKILL)
            await until(lambda: starts() > begun + 3 * START_ATTEMPTS, what="it is tried often")
        assert await pid_of_worker(engine) != worker
        records = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
        told = [record for record in records if "advice" in record]
        assert len(told) == 1, "once a minute"
        assert "Too many open files" in str(told[0]["cause"])
        assert "ulimit -n" in str(told[0]["advice"])

    async def test_an_engine_whose_template_has_no_descriptors_starts_later(
        self, starts: Starts
    ) -> None:
        template = Template.spawned()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            first = template.fork(theirs)
        first.wait(60)  # the template runs
        engine = LocalEngine(Settings(workers=1), template=template, worker_factory=SCRIPTED)
        try:
            with limited(template.pid, resource.RLIMIT_NOFILE, 3):
                starting = asyncio.create_task(engine.start())
                await until(lambda: starts() > 3 * START_ATTEMPTS, what="it is tried often")
                assert not starting.done()
            await starting
            assert await pid_of_worker(engine)
        finally:
            await engine.stop(0)

    @pytest.mark.parametrize("most", range(6, 26, 3))
    async def test_a_worker_that_gets_too_few_descriptors_is_tried_again(
        self, start_engine: StartEngine, starts: Starts, most: int
    ) -> None:
        """A worker may be forked and then lack what its event loop needs."""
        engine = await start_engine()
        worker, template = await pid_of_worker(engine), template_of(engine)
        begun = starts()
        resource.prlimit(template, resource.RLIMIT_NOFILE, (most, most))  # workers raise theirs
        os.kill(worker, signal.SIGKILL)
        await until(lambda: worker not in engine.worker_pids, what="its end is noticed")
        is_enough = asyncio.create_task(pid_of_worker(engine))
        await until(
            lambda: is_enough.done() or starts() > begun + 2 * START_ATTEMPTS,
            what="it works, or is tried often",
        )
        assert engine._failed_starts == 0
        os.kill(template, signal.SIGKILL)  # the next one has other limits
        assert await is_enough

    async def test_a_worker_that_lacks_something_while_it_is_made_is_tried_again(
        self, starts: Starts
    ) -> None:
        engine = LocalEngine(Settings(workers=1), worker_factory="tests.unit.engine.runners:Short")
        starting = asyncio.create_task(engine.start())
        try:
            await until(lambda: starts() > 2 * START_ATTEMPTS, what="it is tried often")
            assert not starting.done()
            assert engine._failed_starts == 0
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await engine.stop(0)


PROCESSES_ARE_LIMITED = f"""
import asyncio, os, resource, signal
from slurper.engine import local
from slurper.engine.template import Template
from slurper.settings import Settings
from tests.unit.engine import runners
from tests.unit.engine.conftest import make_task
local._LONGEST_BACKOFF_SECONDS = 0.1
if os.geteuid() == 0:  # the limit does not hold for root
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
template = Template.forked()

async def main():
    engine = local.LocalEngine(Settings(workers=1), template=template, worker_factory={SCRIPTED!r})
    await engine.start()
    worker = engine.worker_pids[0]
    before = resource.prlimit(template.pid, resource.RLIMIT_NPROC)
    resource.prlimit(template.pid, resource.RLIMIT_NPROC, (0, before[1]))
    os.kill(worker, signal.SIGKILL)
    while worker in engine.worker_pids:
        await asyncio.sleep(0.01)
    waiting = asyncio.create_task(engine.run(make_task("pid")))
    await asyncio.sleep(2)
    print(engine._failed_starts, waiting.done(), flush=True)
    resource.prlimit(template.pid, resource.RLIMIT_NPROC, before)
    print((await waiting).counts.transferred)
    await engine.stop(5)

asyncio.run(main())
"""


def ran(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own to its end."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


@LINUX
@pytest.mark.processes
def test_a_limit_of_processes_is_waited_for() -> None:
    done = ran(PROCESSES_ARE_LIMITED)
    assert done.stdout.split() == ["0", "False", "1"], done.stderr
    assert "Resource temporarily unavailable" in done.stderr
    assert "ulimit -u" in done.stderr


FORKED_WITHOUT = """
import os
from slurper.engine.template import Template
os.devnull = "/nonexistent/null"
template = Template.forked()
print("once", flush=True)
template.close()
"""


@LINUX
def test_a_template_that_cannot_begin_does_not_go_on_as_the_program() -> None:
    done = ran(FORKED_WITHOUT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "once\n"


@pytest.mark.processes
class TestOrders:
    def test_a_system_without_room_for_a_command_refuses_one_worker(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        template = Template.spawned()
        try:

            def refuse(*_: object) -> int:
                raise OSError(errno.ETOOMANYREFS, "too many are on their way")

            ours, theirs = socket.socketpair()
            with ours, theirs:
                with monkeypatch.context() as patched:
                    patched.setattr(socket, "send_fds", refuse)
                    assert template.fork(theirs).refusal == errno.ETOOMANYREFS
                assert not template.lost
                born = template.fork(theirs)
                born.wait(0.01)
                assert not template.lost
        finally:
            template.close()

    def test_a_template_that_takes_no_commands_is_lost(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> int:
            raise BlockingIOError(errno.EAGAIN, "its queue is full")

        template = Template.spawned()
        try:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                monkeypatch.setattr(socket, "send_fds", refuse)
                assert template.fork(theirs).orphaned
                assert template.lost
        finally:
            template.close()


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.EMFILE, ""), errno.EMFILE),
        (OSError(errno.ENFILE, ""), errno.ENFILE),
        (BlockingIOError(errno.EAGAIN, ""), errno.EAGAIN),
        (OSError(errno.ENOMEM, ""), errno.ENOMEM),
        (MemoryError(), errno.ENOMEM),
        (errors.TooManyOpenFiles("none left"), errno.EMFILE),
        (OSError(errno.ENOENT, ""), 0),
        (OSError("no number"), 0),
        (errors.ConfigurationError("wrong"), 0),
    ],
)
def test_an_exit_status_tells_a_shortage_from_a_fault(error: Exception, number: int) -> None:
    status = shortage.exit_status(error)
    assert 0 < status < 256
    assert shortage.told_by(status) == shortage.number_of(error) == number
    if number:
        assert shortage.advice(number)
