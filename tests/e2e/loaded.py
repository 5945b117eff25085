"""A process that has loaded Slurper, and forks one for each start of the program.

A start costs less than half of what it costs with a new interpreter, which spends most of its time
on imports. All else is the program's own: process, arguments, environment, streams, exit code. The
tests start it in this way where the loading of modules is not what they test. `program.py` has the
other way too, and the tests of each command also go it.

This is what runs in that process. It has one thread, and knows nothing of the tests.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import struct
import sys
from collections.abc import Sequence

NUMBER = struct.Struct("!i")
"""What is told of a start: first the process id, at the end the exit status as `Popen` has it."""
MOST_BYTES = 128 << 10
"""A request is one message with the arguments, the environment and the folder."""
DESCRIPTORS = 4
"""The three streams of the program, and the socket where its start and end are told."""

_OTHERS_PART = ("slurper.__main__", "slurper.database.migrations.", "slurper.demo")
"""Modules that are run by something else than the program."""
_LATE = (
    "alembic.command",
    "alembic.config",
    "asyncio",
    "awscrt.auth",
    "google.auth.crypt",
    "google.auth.jwt",
    "importlib.metadata",
    "rich.console",
    "rich.progress",
    "rich.table",
    "sqlalchemy.dialects.sqlite",
    "structlog",
)
"""What the program imports when it needs it, from elsewhere."""


def load() -> None:
    """Import all of the program but the demo."""
    import slurper

    for module in pkgutil.walk_packages(slurper.__path__, "slurper."):
        if not module.name.startswith(_OTHERS_PART):
            importlib.import_module(module.name)
    for name in _LATE:
        importlib.import_module(name)


class Nursery:
    """Forks a process for each request that comes by `control`, until that is closed."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._told: dict[int, int] = {}
        """The descriptors where to tell how processes end, by process ids."""
        self._woken, self._waker = socket.socketpair()
        for one in (self._woken, self._waker):
            one.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler it does not wake us
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)

    def run(self) -> bool:
        """Fork. It is True in a process that has been forked, and False at the end."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._woken.fileno() in ready:
                self._woken.recv(4096)
                self._tell_of_the_dead()
            if self._control.fileno() in ready:
                data, descriptors, _, _ = socket.recv_fds(self._control, MOST_BYTES, DESCRIPTORS)
                if not data:
                    return False
                if self._is_forked(data, descriptors):
                    return True

    def _is_forked(self, data: bytes, descriptors: Sequence[int]) -> bool:
        *streams, told = descriptors
        pid = os.fork()
        if pid == 0:
            self._forget(told)
            _become(streams, **json.loads(data))
            return True
        for descriptor in streams:
            os.close(descriptor)
        self._told[pid] = told
        _tell(told, pid)
        return False

    def _forget(self, told: int) -> None:
        """Keep nothing of what is the parent's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for mine in (self._control, self._woken, self._waker):
            mine.close()
        for descriptor in (told, *self._told.values()):
            os.close(descriptor)

    def _tell_of_the_dead(self) -> None:
        for pid in list(self._told):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                told = self._told.pop(pid)
                _tell(told, os.waitstatus_to_exitcode(status))
                os.close(told)


def _tell(told: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody is interested any more
        os.write(told, NUMBER.pack(number))


def _become(
    streams: Sequence[int], *, arguments: list[str], environment: dict[str, str], folder: str
) -> None:
    """Be what a new process of the program is."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = arguments


def main() -> None:
    """Serve the socket whose descriptor is the last argument; in each fork, be the program."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # imports leave almost no garbage, and what was never looked at stays shared
    load()
    if Nursery(socket.socket(fileno=int(sys.argv[-1]))).run():
        from slurper import cli

        gc.enable()
        cli.main()


if __name__ == "__main__":
    main()
