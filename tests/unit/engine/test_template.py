"""The template process: what it forks, what it hides, and what happens when it is gone."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from slurper import errors
from slurper.engine.forking import Command
from slurper.engine.local import LocalEngine
from slurper.engine.template import Child, Template
from tests.unit.engine.conftest import SCRIPTED, StartEngine, make_task
from tests.unit.engine.test_local import ROOT, lives, loads, pid_of_worker, until

pytestmark = pytest.mark.processes

FORKED = """
import asyncio, os
from slurper.engine.template import Template
template = Template.forked()
from slurper.engine.local import LocalEngine
from slurper.settings import Settings
from tests.unit.engine.conftest import SCRIPTED, make_task
async def main():
    engine = LocalEngine(Settings(workers=1), template=template, worker_factory=SCRIPTED)
    await engine.start()
    worker = (await engine.run(make_task("pid"))).cursor
    seen = (await engine.run(make_task("secrets"))).cursor
    for pid in (template.pid, worker):
        with open(f"/proc/{pid}/environ") as shown:
            seen += shown.read()
    await engine.stop(5)
    print(os.getpid(), template.pid, worker, seen)
asyncio.run(main())
"""

HANGING = f"""
import asyncio
from slurper.engine.local import LocalEngine
from slurper.settings import Settings
from tests.unit.engine.conftest import make_task
async def main():
    engine = LocalEngine(Settings(workers=1), worker_factory={SCRIPTED!r})
    await engine.start()
    asyncio.create_task(engine.run(make_task("hang")))
    print(engine.worker_pids[0], flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks a program that has begun")
class TestForked:
    def test_its_workers_see_none_of_the_programs_secrets(self) -> None:
        hidden = {
            "SLURPER_API_TOKEN": "hush-1",
            "SLURPER_SECRET_KEY": "hush-2",
            "SLURPER_DATABASE_URL": "sqlite:////hush-3",
            "SLURPER_METRICS_TOKEN": "hush-4",
        }
        done = subprocess.run(
            [sys.executable, "-c", FORKED],
            cwd=ROOT,
            env={**os.environ, **hidden},
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        program, template, worker, seen = done.stdout.split(" ", 3)
        assert len({program, template, worker}) == 3
        assert "hush" not in seen
        assert "PATH" in seen

    def test_a_program_that_has_begun_is_not_forked(self) -> None:
        over = threading.Event()
        thread = threading.Thread(target=over.wait)
        thread.start()
        try:
            assert Template.forked() is None
        finally:
            over.set()
            thread.join()


def test_a_template_that_cannot_take_a_workers_socket_refuses_and_lives() -> None:
    template = Template.spawned()
    try:
        for number in (1, 2):
            worker = template._children[number] = Child(template, number)
            template.order(Command.FORK, number)  # its socket did not come along
            worker.wait(60)
            assert worker.refusal == errno.EMFILE
        assert not template.lost
    finally:
        template.close()


class TestLosingTheTemplate:
    async def test_its_workers_go_on_and_the_next_come_from_another(
        self, start_engine: StartEngine, tmp_path: Path
    ) -> None:
        engine = await start_engine(workers=2)
        worker = await pid_of_worker(engine)
        lost = template_of(engine)
        os.kill(lost, signal.SIGKILL)
        await until(lambda: engine._template is None, what="its end is noticed")
        gate = tmp_path / "gate"
        calls = [
            asyncio.create_task(engine.run(make_task(f"wait:{gate}", number))) for number in (1, 2)
        ]
        await until(lambda: loads(engine) == [1, 1], what="another worker is forked")
        assert engine.worker_pids[0] == worker
        assert template_of(engine) != lost
        gate.touch()
        await asyncio.gather(*calls)

    async def test_another_serves_with_more_descriptors_open_than_select_knows(
        self, start_engine: StartEngine
    ) -> None:
        engine = await start_engine()
        worker = await pid_of_worker(engine)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2048), limits[1]))
        opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
        try:
            os.kill(template_of(engine), signal.SIGKILL)
            await until(lambda: engine._template is None, what="its end is noticed")
            os.kill(worker, signal.SIGKILL)
            await until(lambda: worker not in engine.worker_pids, what="its end is noticed")
            assert await pid_of_worker(engine) != worker
        finally:
            for descriptor in opened:
                os.close(descriptor)
            await engine.stop(5)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    async def test_an_orphan_can_be_lost_and_is_replaced(self, start_engine: StartEngine) -> None:
        engine = await start_engine()
        worker = await pid_of_worker(engine)
        os.kill(template_of(engine), signal.SIGKILL)
        await until(lambda: engine._template is None, what="its end is noticed")
        with pytest.raises(errors.WorkerLost, match=f"worker process {worker} ended unseen"):
            await engine.run(make_task("die"))
        assert await pid_of_worker(engine) != worker

    async def test_an_orphan_that_hangs_is_killed(self, start_engine: StartEngine) -> None:
        engine = await start_engine(silence_limit_seconds=2.0)
        worker = await pid_of_worker(engine)
        os.kill(template_of(engine), signal.SIGKILL)
        with pytest.raises(errors.WorkerLost):
            await engine.run(make_task("hang"))
        await until(lambda: not lives(worker), what="it is dead")

    async def test_stop_leaves_no_orphan(self, start_engine: StartEngine) -> None:
        engine = await start_engine()
        worker = await pid_of_worker(engine)
        os.kill(template_of(engine), signal.SIGKILL)
        await engine.stop(5)
        await until(lambda: not lives(worker), what="it is gone")


class TestEndOfTheControlPlane:
    async def test_a_worker_that_hangs_is_killed_with_it(self) -> None:
        with subprocess.Popen(  # noqa: ASYNC220 - takes a millisecond
            [sys.executable, "-c", HANGING], cwd=ROOT, stdout=subprocess.PIPE
        ) as program:
            assert program.stdout is not None
            worker = int(await asyncio.to_thread(program.stdout.readline))
            template = psutil.Process(worker).parent()
            assert template is not None
            program.kill()
        await until(lambda: not lives(worker), what="the worker is gone")
        await until(lambda: not lives(template.pid), what="the template is gone")


def template_of(engine: LocalEngine) -> int:
    assert engine._template is not None
    return engine._template.pid
