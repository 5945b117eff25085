"""A process is called dead only when it certainly is, and alive only when it certainly is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest

from slurper.database.holders import Holder

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is known")
NAME = (
    "import sys; from slurper.database.holders import Holder;"
    "print(Holder.this_process().encode(), flush=True); sys.stdin.read()"
)


@pytest.fixture
def other() -> Iterator[subprocess.Popen[str]]:
    """A process that says its name and waits."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", NAME], stdin=pipe, stdout=pipe, text=True) as one:
        yield one
        one.kill()


def _name_of(process: subprocess.Popen[str]) -> Holder:
    assert process.stdout is not None
    return Holder.parse(process.stdout.readline().strip())


def test_names_come_back() -> None:
    this = Holder.this_process()
    assert this.pid == os.getpid()
    assert Holder.parse(this.encode()) == this
    for parts in (("",), ("box",), ("box", "n"), ("ü", "n", "2")):
        holder = Holder(1, *parts)
        assert Holder.parse(holder.encode()) == holder
    assert str(Holder(17, "box", "n", "2")) == "process 17 on box"
    assert len(Holder(2**31, "x" * 100, "b" * 47, "9" * 20).encode()) <= 255


@pytest.mark.parametrize("name", ["", "@", "nonsense", "x@y z", "-1@y z", "١@y z"])
def test_of_what_is_no_name_nothing_is_known(name: str) -> None:
    holder = Holder.parse(name)
    assert holder.lives is None
    assert str(holder) == name


@linux
def test_a_process_lives_until_it_is_killed_reaped_or_not(other: subprocess.Popen[str]) -> None:
    holder = _name_of(other)
    assert holder.pid == other.pid
    seen = [holder.lives]
    other.kill()
    while psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    seen.append(holder.lives)
    other.wait()
    seen.append(holder.lives)
    assert seen == [True, False, False]


@linux
def test_a_process_with_the_number_of_a_dead_one_is_another() -> None:
    this = Holder.this_process()
    assert this.lives is True
    assert replace(this, began=str(int(this.began) - 1)).lives is False


@linux
def test_from_another_machine_or_container_nothing_is_known() -> None:
    this = Holder.this_process()
    boot, _, inode = this.namespace.partition("/")
    for namespace in (f"{boot}/1", f"{'0' * len(boot)}/{inode}", "", "-"):
        assert replace(this, namespace=namespace).lives is None
        assert replace(this, namespace=namespace, pid=2**22 + 1).lives is None
    assert replace(this, began="").lives is None
    assert replace(this, pid=10**30).lives is None
