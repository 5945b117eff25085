from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from slurper import errors, telemetry
from slurper.engine.local import SLOTS_PER_WORKER, START_ATTEMPTS, TASKS_PER_WORKER, LocalEngine
from slurper.settings import Settings
from tests.unit.engine.conftest import SCRIPTED, StartEngine, make_task
from tests.workers import worker_processes

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[3]


async def until(condition: Callable[[], object], *, what: str) -> None:
    """Wait for a condition; the bound is generous and only there to end a broken test."""
    for _ in range(12_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail(f"waited too long until {what}")


def loads(engine: LocalEngine) -> list[int]:
    return [process.load for process in engine._processes]


async def pid_of_worker(engine: LocalEngine) -> int:
    report = await engine.run(make_task("pid"))
    assert report.cursor is not None
    return int(report.cursor)


class TestRunning:
    async def test_a_task_comes_back_as_its_report(self, start_engine: StartEngine) -> None:
        engine = await start_engine()
        report = await engine.run(make_task("answer:last-key", range_id=7))
        assert (report.job_id, report.range_id) == ("job", 7)
        assert report.cursor == "last-key"
        assert report.counts.transferred == 1

    async def test_tasks_run_outside_this_process(self, start_engine: StartEngine) -> None:
        engine = await start_engine()
        assert await pid_of_worker(engine) in engine.worker_pids
        assert os.getpid() not in engine.worker_pids

    async def test_every_worker_is_told_when_a_job_has_ended(
        self, start_engine: StartEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TEST_ENDED", str(tmp_path))
        engine = await start_engine(workers=2)
        gate = tmp_path / "gate"
        waiting = [asyncio.create_task(engine.run(make_task(f"wait:{gate}", n))) for n in (1, 2)]
        await until(lambda: len(engine.worker_pids) == 2, what="both workers run")
        engine.job_ended("job")
        told = {tmp_path / f"job-{pid}" for pid in engine.worker_pids}
        await until(lambda: all(path.exists() for path in told), what="both are told")
        gate.touch()
        await asyncio.gather(*waiting)

    async def test_a_large_task_arrives_whole(self, start_engine: StartEngine) -> None:
        engine = await start_engine()
        long_key = "k" * 3_000_000
        assert (await engine.run(make_task(f"answer:{long_key}"))).cursor == long_key

    async def test_slots_are_spread_over_all_workers(
        self, start_engine: StartEngine, tmp_path: Path
    ) -> None:
        engine = await start_engine(workers=2)
        assert engine.slots == 2 * SLOTS_PER_WORKER
        gate = tmp_path / "gate"
        held = [
            asyncio.create_task(engine.run(make_task(f"wait:{gate}", number))) for number in (1, 2)
        ]
        await until(lambda: loads(engine) == [1, 1], what="each worker has a task")
        gate.touch()
        await asyncio.gather(*held)

    async def test_a_worker_is_started_only_when_there_is_work_for_it(
        self, start_engine: StartEngine, tmp_path: Path
    ) -> None:
        engine = await start_engine(workers=3)
        gate = tmp_path / "gate"
        first = asyncio.create_task(engine.run(make_task(f"wait:{gate}", 1)))
        await until(lambda: loads(engine) == [1], what="the first worker has a task")
        second = asyncio.create_task(engine.run(make_task(f"wait:{gate}", 2)))
        await until(lambda: loads(engine) == [1, 1], what="another worker has a task")
        gate.touch()
        await asyncio.gather(first, second)
        assert await pid_of_worker(engine) in engine.worker_pids
        assert len(engine.worker_pids) == 2

    async def test_a_report_tells_how_many_processes_work_on_the_job(
        self, start_engine: StartEngine, tmp_path: Path
    ) -> None:
        engine = await start_engine(workers=2)
        gates = [tmp_path / "first", tmp_path / "second"]
        calls = [
            asyncio.create_task(engine.run(make_task(f"wait:{gate}", number)))
            for number, gate in enumerate(gates)
        ]
        await until(lambda: loads(engine) == [1, 1], what="both workers have a task")
        workers = []
        for gate, call in zip(gates, calls, strict=True):
            gate.touch()
            workers.append((await call).workers)
        assert workers == [2, 1]

    async def test_more_tasks_than_slots_wait_their_turn(
        self, start_engine: StartEngine, tmp_path: Path
    ) -> None:
        engine = await start_engine()
        gate = tmp_path / "gate"
        calls = [
            asyncio.create_task(engine.run(make_task(f"wait:{gate}", number)))
            for number in range(TASKS_PER_WORKER + 3)
        ]
        await asyncio.sleep(0)
        assert [process.load for process in engine._processes] == [TASKS_PER_WORKER]
        gate.touch()
        reports = await asyncio.gather(*calls)
        assert [report.range_id for report in reports] == list(range(TASKS_PER_WORKER + 3))

    async def test_it_takes_tasks_only_while_it_runs(self, start_engine: StartEngine) -> None:
        with pytest.raises(errors.SlurperError, match="not running"):
            await LocalEngine(Settings(workers=1)).run(make_task("answer:x"))
        engine = await start_engine()
        await engine.stop(5)
        with pytest.raises(errors.SlurperError, match="not running"):
            await engine.run(make_task("answer:x"))

    async def test_workers_log_as_the_control_plane_does(
        self,
        start_engine: StartEngine,
        capfd: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(telemetry, "shown_level", lambda: "INFO")
        engine = await start_engine()
        await engine.run(make_task("log:hush"))
        (line,) = capfd.readouterr().err.splitlines()
        shown = json.loads(line)
        assert (shown["message"], shown["level"]) == ("seen by the worker", "info")
        assert shown["secret"] == telemetry.MASK


class TestErrors:
    async def test_an_error_keeps_its_type_and_fields(self, start_engine: StartEngine) -> None:
        engine = await start_engine()
        with pytest.raises(errors.NoSuchBucket) as raised:
            await engine.run(make_task("raise:store"))
        assert (raised.value.status, raised.value.bucket) == (404, "b")

    async def test_an_unexpected_error_says_where_it_was_raised(
        self, start_engine: StartEngine
    ) -> None:
        engine = await start_engine()
        with pytest.raises(ValueError, match="a plain one") as raised:
            await engine.run(make_task("raise:value"))
        assert "in the worker process" in raised.value.__notes__[0]
        assert "runners.py" in raised.value.__notes__[0]

    @pytest.mark.parametrize(
        ("name", "text"),
        [("strange", "UnpicklableCause: first"), ("field", "InvalidField: no such")],
    )
    async def test_an_error_that_cannot_travel_comes_as_its_text(
        self, start_engine: StartEngine, name: str, text: str
    ) -> None:
        engine = await start_engine()
        with pytest.raises(errors.SlurperError, match=text):
            await engine.run(make_task(f"raise:{name}"))
        assert await pid_of_worker(engine) in engine.worker_pids

    async def test_a_task_that_cancels_itself_is_an_error_not_a_cancellation(
        self, start_engine: StartEngine
    ) -> None:
        engine = await start_engine()
        with pytest.raises(errors.SlurperError, match="cancelled in its worker"):
            await engine.run(make_task("raise:cancel"))

    async def test_a_report_that_cannot_travel_is_an_error(self, start_engine: StartEngine) -> None:
        engine = await start_engine()
        with pytest.raises(Exception, match="pickle"):
            await engine.run(make_task("unpicklable"))
        assert await pid_of_worker(engine) in engine.worker_pids


class TestCancelling:
    async def test_cancelling_the_call_cancels_the_task_at_its_worker(
        self, start_engine: StartEngine, tmp_path: Path
    ) -> None:
        engine = await start_engine()
        mark = tmp_path / "mark"
        call = asyncio.create_task(engine.run(make_task(f"mark:{mark}")))
        await until(mark.with_suffix(".begun").exists, what="the task began")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(mark.with_suffix(".cancelled").exists, what="the worker was told")
        await until(lambda: engine._processes[0].load == 0, what="the place is free again")

    async def test_a_call_cancelled_before_its_task_began_frees_its_place(
        self, start_engine: StartEngine
    ) -> None:
        engine = await start_engine()
        for _ in range(3 * TASKS_PER_WORKER):
            call = asyncio.create_task(engine.run(make_task("mark:/nonexistent/mark")))
            await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        assert await pid_of_worker(engine)

    async def test_a_waiting_call_can_be_cancelled(
        self, start_engine: StartEngine, tmp_path: Path
    ) -> None:
        engine = await start_engine()
        gate = tmp_path / "gate"
        held = [
            asyncio.create_task(engine.run(make_task(f"wait:{gate}", number)))
            for number in range(TASKS_PER_WORKER)
        ]
        await asyncio.sleep(0)
        waiting = asyncio.create_task(engine.run(make_task("die")))
        await asyncio.sleep(0)
        waiting.cancel()
        gate.touch()
        await asyncio.gather(*held)
        assert waiting.cancelled()
        assert await pid_of_worker(engine) in engine.worker_pids


class TestLosingProcesses:
    async def test_kill_9_loses_exactly_the_tasks_of_that_process(
        self, start_engine: StartEngine, tmp_path: Path
    ) -> None:
        metrics = telemetry.Metrics(CollectorRegistry())
        engine = await start_engine(workers=2, metrics=metrics)
        gate = tmp_path / "gate"
        calls = [
            asyncio.create_task(engine.run(make_task(f"wait:{gate}", number)))
            for number in range(4)
        ]
        await until(lambda: loads(engine) == [2, 2], what="each worker has two tasks")
        victim = engine._processes[0].pid
        os.kill(victim, signal.SIGKILL)
        await until(lambda: sum(call.done() for call in calls) == 2, what="two calls are lost")
        gate.touch()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        lost = [outcome for outcome in outcomes if isinstance(outcome, errors.WorkerLost)]
        assert len(lost) == 2
        assert f"worker process {victim} was killed by SIGKILL" in str(lost[0])
        await until(lambda: len(engine.worker_pids) == 2, what="the process is replaced")
        assert victim not in engine.worker_pids
        assert metrics.worker_restarts._value.get() == 1

    async def test_a_task_that_kills_its_process_is_a_lost_worker_every_time(
        self, start_engine: StartEngine
    ) -> None:
        engine = await start_engine()
        for _ in range(3):
            with pytest.raises(errors.WorkerLost):
                await engine.run(make_task("die"))
        assert await pid_of_worker(engine) in engine.worker_pids

    async def test_after_a_loss_the_innocent_is_not_lost_with_the_guilty_again(
        self, start_engine: StartEngine, tmp_path: Path
    ) -> None:
        engine = await start_engine()
        gate = tmp_path / "gate"
        innocent, guilty = make_task(f"wait:{gate}", 1), make_task("die", 2)
        first = await asyncio.gather(
            engine.run(innocent), engine.run(guilty), return_exceptions=True
        )
        assert [type(outcome) for outcome in first] == [errors.WorkerLost] * 2
        again = [asyncio.create_task(engine.run(task)) for task in (innocent, guilty)]
        await until(lambda: any(p.load for p in engine._processes), what="the innocent runs")
        assert [process.load for process in engine._processes] == [1]
        gate.touch()
        second = await asyncio.gather(*again, return_exceptions=True)
        assert [isinstance(outcome, errors.WorkerLost) for outcome in second] == [False, True]

    async def test_a_suspect_waits_for_a_process_of_its_own_and_others_go_on(
        self, start_engine: StartEngine, tmp_path: Path
    ) -> None:
        engine = await start_engine()
        pardon, gate = tmp_path / "pardon", tmp_path / "gate"
        suspect = make_task(f"die-unless:{pardon}", 1)
        with pytest.raises(errors.WorkerLost):
            await engine.run(suspect)
        pardon.touch()
        await until(lambda: engine.worker_pids, what="the process is replaced")
        calls = [asyncio.create_task(engine.run(make_task(f"wait:{gate}", 2)))]
        await asyncio.sleep(0)
        calls.append(asyncio.create_task(engine.run(suspect)))
        calls.append(asyncio.create_task(engine.run(make_task("answer:x", 3))))
        await asyncio.sleep(0)
        assert [process.load for process in engine._processes] == [1]
        gate.touch()
        reports = await asyncio.gather(*calls)
        assert [report.range_id for report in reports] == [2, 1, 3]

    async def test_a_cancelled_suspect_gives_the_process_back(
        self, start_engine: StartEngine, tmp_path: Path
    ) -> None:
        engine = await start_engine()
        with pytest.raises(errors.WorkerLost):
            await engine.run(make_task("die", 1))
        gate = tmp_path / "gate"
        await until(lambda: engine.worker_pids, what="the process is replaced")
        held = asyncio.create_task(engine.run(make_task(f"wait:{gate}", 2)))
        await asyncio.sleep(0)
        suspect = asyncio.create_task(engine.run(make_task("die", 1)))
        await asyncio.sleep(0)
        suspect.cancel()
        assert (await engine.run(make_task("answer:x", 3))).cursor == "x"
        gate.touch()
        await held
        assert suspect.cancelled()

    async def test_a_process_that_hangs_is_killed(self, start_engine: StartEngine) -> None:
        engine = await start_engine(silence_limit_seconds=2.0)
        with pytest.raises(errors.WorkerLost):
            await engine.run(make_task("hang"))
        assert await pid_of_worker(engine) in engine.worker_pids

    async def test_processes_that_die_at_start_are_tried_until_one_lives(
        self,
        start_engine: StartEngine,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        trap = tmp_path / "trap"
        monkeypatch.setenv("TEST_TRAP", str(trap))
        metrics = telemetry.Metrics(CollectorRegistry())
        engine = await start_engine(
            worker_factory="tests.unit.engine.runners:Trapped", metrics=metrics
        )
        trap.touch()
        os.kill(engine.worker_pids[0], signal.SIGKILL)
        await until(lambda: metrics.worker_restarts._value.get() >= 3, what="several starts fail")
        trap.unlink()
        assert (await engine.run(make_task("answer:x"))).cursor == "x"

    @pytest.mark.parametrize(
        ("factory", "text"),
        [
            ("tests.unit.engine.runners:Failing", "ConfigurationError: the CA file"),
            ("tests.unit.engine.no_such_module:Worker", "ModuleNotFoundError"),
            ("tests.unit.engine.runners:exit_at_once", "exited with status 9"),
        ],
    )
    async def test_start_says_why_no_worker_comes_up(
        self, start_engine: StartEngine, factory: str, text: str
    ) -> None:
        with pytest.raises(errors.SlurperError, match=text):
            await start_engine(workers=2, worker_factory=factory)

    async def test_a_start_waits_for_file_descriptors(
        self, start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A service that takes over while another program has them all must not end."""
        real, left = socket.socketpair, START_ATTEMPTS + 1

        def refuse() -> tuple[socket.socket, socket.socket]:
            nonlocal left
            left -= 1
            if left >= 0:
                raise OSError(errno.EMFILE, "none left")
            return real()

        monkeypatch.setattr(socket, "socketpair", refuse)
        engine = await start_engine()
        assert await pid_of_worker(engine)
        assert left < 0

    async def test_a_process_killed_during_start_is_replaced_too(self) -> None:
        engine = LocalEngine(Settings(workers=1), worker_factory=SCRIPTED)
        starting = asyncio.create_task(engine.start())
        for _ in range(START_ATTEMPTS - 1):
            await until(lambda: engine._processes and engine._processes[0].pid, what="it is born")
            victim = engine._processes[0]
            os.kill(victim.pid, signal.SIGKILL)
            await until(lambda: victim not in engine._processes, what="it is dead")  # noqa: B023
        await starting
        assert await pid_of_worker(engine)
        await engine.stop(5)


class TestEnding:
    async def test_signals_of_the_terminal_do_not_end_a_worker(
        self, start_engine: StartEngine
    ) -> None:
        engine = await start_engine()
        pid = await pid_of_worker(engine)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        assert await pid_of_worker(engine) == pid

    async def test_signals_during_start_do_not_end_a_worker(self) -> None:
        engine = LocalEngine(Settings(workers=1), worker_factory=SCRIPTED)
        starting = asyncio.create_task(engine.start())
        await until(lambda: engine._processes and engine._processes[0].pid, what="it is born")
        pid = engine._processes[0].pid
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        await starting
        assert await pid_of_worker(engine) == pid
        await engine.stop(5)

    async def test_stop_waits_for_tasks_under_way(
        self, start_engine: StartEngine, tmp_path: Path
    ) -> None:
        engine = await start_engine()
        gate = tmp_path / "gate"
        call = asyncio.create_task(engine.run(make_task(f"wait:{gate}")))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(engine.stop(60))
        await asyncio.sleep(0)
        gate.touch()
        await stopping
        assert (await call).counts.objects == 1
        assert engine.worker_pids == ()

    async def test_stop_loses_what_its_grace_is_too_short_for(
        self, start_engine: StartEngine, tmp_path: Path
    ) -> None:
        engine = await start_engine()
        calls = [
            asyncio.create_task(engine.run(make_task(f"wait:{tmp_path}/never", number)))
            for number in range(TASKS_PER_WORKER + 1)
        ]
        await asyncio.sleep(0)
        await engine.stop(0.05)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, errors.SlurperError) for outcome in outcomes)
        assert worker_processes() == []

    async def test_stop_closes_the_workers_connections(
        self, start_engine: StartEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed = tmp_path / "closed"
        monkeypatch.setenv("TEST_CLOSED", str(closed))
        engine = await start_engine()
        await engine.stop(5)
        assert closed.exists()

    async def test_a_cancelled_stop_leaves_no_process(
        self, start_engine: StartEngine, tmp_path: Path
    ) -> None:
        engine = await start_engine()
        call = asyncio.create_task(engine.run(make_task(f"wait:{tmp_path}/never")))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(engine.stop(60))
        await asyncio.sleep(0)
        stopping.cancel()
        outcomes = await asyncio.gather(stopping, call, return_exceptions=True)
        assert isinstance(outcomes[1], errors.WorkerLost)
        assert worker_processes() == []

    async def test_workers_end_with_the_process_that_started_them(self) -> None:
        program = (
            "import asyncio, uvloop\n"
            "from slurper.engine.local import LocalEngine\n"
            "from slurper.settings import Settings\n"
            "from tests.unit.engine.conftest import make_task\n"
            "async def main():\n"
            f"    engine = LocalEngine(Settings(workers=2), worker_factory={SCRIPTED!r})\n"
            "    await engine.start()\n"
            "    task = make_task('wait:/never')\n"
            "    calls = [asyncio.create_task(engine.run(task)) for _ in range(2)]\n"
            "    while len(engine.worker_pids) < 2: await asyncio.sleep(0.01)\n"
            "    print(*engine.worker_pids, flush=True)\n"
            "    await asyncio.sleep(3600)\n"
            "uvloop.run(main())\n"
        )
        with subprocess.Popen(  # noqa: ASYNC220 - takes a millisecond
            [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE
        ) as server:
            assert server.stdout is not None
            line = await asyncio.to_thread(server.stdout.readline)
            pids = [int(word) for word in line.split()]
            assert len(pids) == 2
            server.kill()
        await until(lambda: not any(map(lives, pids)), what="the workers are gone")


class TestSecrets:
    async def test_a_worker_gets_none_of_the_servers_own_secrets(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SLURPER_SECRET_KEY", "hush-1")
        monkeypatch.setenv("SLURPER_DATABASE_URL", "postgresql://u:hush-2@h/d")
        monkeypatch.setenv("SLURPER_METRICS_TOKEN", "hush-4")
        settings = Settings(workers=1, api_token=SecretStr("hush-3"))
        engine = LocalEngine(settings, worker_factory=SCRIPTED)
        await engine.start()
        try:
            seen = (await engine.run(make_task("secrets"))).cursor
        finally:
            await engine.stop(5)
        assert seen is not None
        assert "hush" not in seen
        assert "PATH" in seen


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
