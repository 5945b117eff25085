"""How the program ends: as Python would have it, without taking itself apart."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

_BEGIN = """
    import atexit, os, sys, threading
    from slurper.cli import commands, main

    class Last:
        def __del__(self, write=os.write):
            write(1, b"taken apart")

    def run():
        sys.last = Last()
"""


def _run(body: str, out: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Run `body` in place of the command line."""
    code = textwrap.dedent(_BEGIN) + textwrap.indent(body, " " * 4)
    return subprocess.run(
        [sys.executable, "-c", f"{code}\ncommands.run = run\nsys.exit(main())"],
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )


@pytest.mark.parametrize(("status", "code"), [("0", 0), ("3", 3), ("", 0)])
def test_nothing_is_taken_apart(status: str, code: int) -> None:
    ended = _run(f"print('written', end='')\nsys.exit({status})")
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "written", "")


def test_what_waits_for_the_end_is_called_and_threads_are_waited_for() -> None:
    ended = _run(
        "atexit.register(print, 'called')\n"
        "threading.Timer(0.2, print, ['a thread']).start()\n"
        "sys.exit(0)"
    )
    assert (ended.returncode, ended.stdout) == (0, "a thread\ncalled\n")


@pytest.mark.parametrize("end", ["sys.exit('why')", "raise ValueError('why')"])
def test_any_other_end_is_left_to_python(end: str) -> None:
    ended = _run(end)
    assert (ended.returncode, ended.stdout) == (1, "taken apart")
    assert ended.stderr.endswith("why\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here is full")
def test_output_that_cannot_be_written_is_left_to_python() -> None:
    with Path("/dev/full").open("w") as full:
        ended = _run("print('lost')\nsys.exit(0)", full.fileno())
    assert ended.returncode == 120
    assert "No space left on device" in ended.stderr
