from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from slurper import descriptors, errors
from slurper.http import tls

INFINITE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1024, 4096), 4096),
        ((1024, 1_048_576), descriptors.MOST),
        ((1024, INFINITE), descriptors.MOST),
        ((100_000, 1_048_576), 100_000),
        ((256, 256), 256),
        ((INFINITE, INFINITE), descriptors.MOST),
    ],
)
def test_the_soft_limit_is_raised_to_the_hard_one_within_reason(
    monkeypatch: pytest.MonkeyPatch, before: tuple[int, int], after: int
) -> None:
    limits = list(before)
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.__setitem__(slice(0, 2), new))
    assert descriptors.raise_limit() == descriptors.limit() == after
    assert limits[1] == before[1]


def test_a_system_that_refuses_is_asked_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [256, INFINITE]

    def refuse(_: int, new: tuple[int, int]) -> None:
        if new[0] > 10_240:
            raise ValueError("current limit exceeds maximum limit")
        limits[:] = new

    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert descriptors.raise_limit() == 10_240


def test_programs_raise_their_limit_and_those_that_they_start_inherit_it() -> None:
    program = (
        "import os, resource; from slurper.cli import commands\n"
        "commands._root(version=False)\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)\n"
        "os.execlp('sh', 'sh', '-c', 'ulimit -n')"
    )
    limited = 'ulimit -Sn 128; ulimit -Hn 512; exec "$0" -c "$1"'
    shown = subprocess.run(
        ["/bin/sh", "-c", limited, sys.executable, program],
        check=True,
        capture_output=True,
        text=True,
    )
    assert shown.stdout.split() == ["512", "512"]


def test_what_tells_that_none_is_left() -> None:
    assert not descriptors.none_left()
    assert descriptors.is_shortage(OSError(errno.EMFILE, ""))
    assert descriptors.is_shortage(OSError(errno.ENFILE, ""))
    assert not descriptors.is_shortage(OSError(errno.ENOENT, ""))
    assert not descriptors.is_shortage(RuntimeError())


def no_files(*_: object) -> int:
    raise OSError(errno.EMFILE, "Too many open files")


def test_authorities_are_not_forgotten_because_they_could_not_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else every connection of the process over TLS would be refused from then on."""
    authorities = tmp_path / "ca.pem"
    authorities.touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", no_files)
        with pytest.raises(errors.TooManyOpenFiles, match="certificates"):
            tls.shared_context(authorities)
    with pytest.raises(errors.ConfigurationError):
        tls.shared_context(authorities)  # it is read now, and holds none


@pytest.mark.parametrize(
    ("limit", "allowed"), [(65_536, 512), (1_024, 512), (1_000, 500), (256, 128), (1, 1)]
)
def test_clients_leave_room_for_the_rest(limit: int, allowed: int) -> None:
    assert descriptors.for_clients(512, limit) == allowed


def test_fewer_clients_may_be_asked_for() -> None:
    assert descriptors.for_clients(20, 65_536) == 20
