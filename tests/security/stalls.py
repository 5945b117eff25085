"""Runs `slurper` as its users do, and measures for how long its event loop answers nobody.

A task of its own takes its turn in the loop again and again. Between two of its turns, everything
that was ready has run once. The measure is the CPU time of the process between two turns, with all
of its threads: on a busy machine no other process adds to it, and a thread that keeps the
interpreter from the loop does. (Python changes threads every 5 ms, unless a single call takes
longer. So short turns of threads add little.)

Each line on standard input is answered with the longest measure since the last one, in
milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from slurper.cli import main, serving

_longest = 0.0


async def _take_turns() -> None:
    global _longest
    before = time.process_time()
    while True:
        await asyncio.sleep(0)
        now = time.process_time()
        _longest = max(_longest, now - before)
        before = now


def _tell() -> None:
    global _longest
    if sys.stdin.readline():
        sys.stdout.write(f"{_longest * 1000:.1f}\n")
        sys.stdout.flush()
        _longest = 0.0


def _run() -> None:
    serve = serving.serve

    async def measured(*given: Any, **named: Any) -> None:  # noqa: ANN401 - what `serve` takes
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _tell)
        turns = asyncio.create_task(_take_turns())
        try:
            await serve(*given, **named)
        finally:
            turns.cancel()

    serving.serve = measured
    main()


class Measured:
    """A `slurper serve` under measurement."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url

    def longest_ms(self) -> float:
        """The longest time without a turn since the last call, in milliseconds of CPU time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


@contextlib.contextmanager
def serving_measured(env: Mapping[str, str]) -> Iterator[Measured]:
    """Run the service on a free port."""
    command = [sys.executable, "-m", "tests.security.stalls", "serve", "--port", "0"]
    process = subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        announced = process.stdout.readline()
        assert announced.startswith("slurper listens on http://"), announced
        yield Measured(process, announced.split()[-1])
        process.terminate()
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


if __name__ == "__main__":
    _run()
