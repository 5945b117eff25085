"""Small workers that run in real worker processes; a task's prefix says what one does with it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from slurper import errors, telemetry
from slurper.job.model import Counts
from slurper.settings import Settings
from slurper.transfer.task import RangeReport, RangeTask

_log = telemetry.get_logger(__name__)


class UnpicklableCause(Exception):
    """Can be pickled, but its constructor cannot be replayed from what the pickle holds."""

    def __init__(self, first: str, *, second: str) -> None:
        super().__init__(first)
        self.second = second


class Scripted:
    """Does what the task's prefix says, `verb` or `verb:argument`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def run(self, task: RangeTask) -> RangeReport:
        verb, _, argument = task.prefix.partition(":")
        await _do(verb, argument)
        cursor = argument or "done"
        if verb == "pid":
            cursor = str(os.getpid())
        elif verb == "secrets":
            settings = self.settings.model_dump(mode="python")
            unmasked = [getattr(value, "get_secret_value", str)() for value in settings.values()]
            cursor = repr((settings, unmasked, dict(os.environ)))
        answer = report(task, cursor)
        if verb == "unpicklable":
            return replace(answer, halt=lambda: None)  # type: ignore[arg-type] # the point
        return answer

    def waits(self) -> dict[str, dict[str, int]]:
        return {}

    def job_ended(self, job_id: str) -> None:
        if "TEST_ENDED" in os.environ:
            _touch(Path(os.environ["TEST_ENDED"]) / f"{job_id}-{os.getpid()}")

    async def close(self) -> None:
        if "TEST_CLOSED" in os.environ:
            _touch(Path(os.environ["TEST_CLOSED"]))


class Trapped(Scripted):
    """A worker whose process ends while it is made, as long as a file exists."""

    def __init__(self, settings: Settings) -> None:
        if Path(os.environ["TEST_TRAP"]).exists():
            os._exit(1)
        super().__init__(settings)


class Failing:
    """A worker that cannot be made."""

    def __init__(self, settings: Settings) -> None:
        raise errors.ConfigurationError(f"the CA file {settings.ca_file} does not exist")


class Short:
    """A worker that finds no file descriptor while it is made."""

    def __init__(self, _settings: Settings) -> None:
        raise errors.TooManyOpenFiles("the certificates: too many open files")


def exit_at_once(_settings: Settings) -> Scripted:
    """Make no worker."""
    os._exit(9)


def _exists(path: str | Path) -> bool:
    return Path(path).exists()


def _touch(path: Path) -> None:
    path.touch()


async def _do(verb: str, argument: str) -> None:
    if verb == "wait":
        await _wait_for_file(Path(argument))
    elif verb == "mark":
        await _mark_until_cancelled(Path(argument))
    elif verb == "die" or (verb == "die-unless" and not _exists(argument)):
        os.kill(os.getpid(), signal.SIGKILL)
    elif verb == "hang":
        time.sleep(3600)  # noqa: ASYNC251 - the point: the event loop no longer turns
    elif verb == "log":
        _log.info("seen by the worker", secret=argument)
    elif verb == "raise":
        raise _error(argument)


def report(task: RangeTask, cursor: str) -> RangeReport:
    return RangeReport(
        job_id=task.job_id,
        range_id=task.range_id,
        started_after=task.slice.start_after,
        cursor=cursor,
        finished=True,
        counts=Counts(objects=1, transferred=1, transferred_bytes=3),
    )


def _error(name: str) -> BaseException:
    known: dict[str, BaseException] = {
        "store": errors.NoSuchBucket("PutObject", status=404, code="NoSuchBucket", bucket="b"),
        "value": ValueError("a plain one"),
        "strange": UnpicklableCause("first", second="second"),
        "field": errors.InvalidField("/source/bucket", "no such"),
        "cancel": asyncio.CancelledError(),
    }
    return known[name]


async def _wait_for_file(path: Path) -> None:
    while not _exists(path):  # noqa: ASYNC110 - another process makes the file
        await asyncio.sleep(0.005)


async def _mark_until_cancelled(path: Path) -> None:
    path.with_suffix(".begun").touch()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        path.with_suffix(".cancelled").touch()
        raise
