"""The program of the template process: it imports everything, and forks workers on request.

A fork takes a few milliseconds. A new interpreter needs a quarter of a second for its imports. The
template keeps forks safe: it has one thread, no event loop, no connections, no secrets.

It lives as long as its socket. When the control plane is gone, for any reason, the template ends
its workers at once: another control plane may already run the same slices again.
"""

from __future__ import annotations

import contextlib
import ctypes
import encodings.idna  # noqa: F401 - else the first look-up of a host name loads it
import errno
import gc
import os
import select
import signal
import socket
import struct
import sys
from enum import IntEnum
from typing import NoReturn

import slurper.transfer.worker  # noqa: F401 - loads what workers run
from slurper import telemetry
from slurper.engine import child, shortage
from slurper.settings import NOT_FOR_WORKERS, variable

COMMAND = struct.Struct("!BI")
"""A `Command` and the number of its worker."""
NOTICE = struct.Struct("!BIi")
"""A `Notice`, the number of the worker, and a value."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""A terminal or service manager sends them to the whole group. Only the control plane obeys."""

_PR_SET_NAME = 15


class Command(IntEnum):
    """What the control plane asks for."""

    FORK = 1
    """Fork a worker. The socket that it will serve is sent along."""
    KILL = 2
    """Kill a worker, which may have ended already."""


class Notice(IntEnum):
    """What the template tells the control plane."""

    BORN = 1
    """The worker is forked; the value is its process id."""
    UNBORN = 2
    """The system refused the fork; the value is the error number."""
    ENDED = 3
    """The worker has ended; the value is its exit status, or minus the signal that ended it."""


def main() -> NoReturn:
    """Serve the socket whose descriptor is the last argument, as the program of an interpreter."""
    serve(socket.socket(fileno=int(sys.argv[-1])))


def serve(connection: socket.socket) -> NoReturn:
    """Fork workers until the socket ends. `STOP_SIGNALS` are blocked until they are ignored."""
    try:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        name_process("slurper-forks")
        forget_secrets()
        gc.freeze()  # memory stays shared if no collection touches it; so none runs first
        _Forker(connection).run()
    except BaseException as error:
        _end_with(error)
    os._exit(0)


def _end_with(error: BaseException) -> NoReturn:
    """End this process at once. Its exit status tells whether it lacked something for now."""
    status = shortage.FAULT
    try:
        status = shortage.exit_status(error)
        if status == shortage.FAULT:
            telemetry.print_traceback(type(error), error, None)
    finally:
        os._exit(status)


def name_process(name: str) -> None:
    """Set the name that `ps` and `top` show, up to 15 bytes, if the system can."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def forget_secrets() -> None:
    """Remove secrets from the environment, and from the memory that /proc shows of it."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    for name in map(variable, NOT_FOR_WORKERS):
        value = os.environ.get(name)
        if value is not None:
            ctypes.memset(libc.getenv(name.encode()), 0, len(os.fsencode(value)))
            del os.environ[name]


class _Forker:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._pids: dict[int, int] = {}
        """Process ids of workers that have not ended, by their numbers."""
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler it does not wake us
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        with contextlib.suppress(ConnectionError):
            while True:
                readable = {descriptor for descriptor, _ in poll.poll()}
                if self._woken.fileno() in readable:
                    self._woken.recv(4096)
                    self._tell_of_the_dead()
                if self._connection.fileno() in readable and not self._obey():
                    break
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)
        for pid in self._pids.values():
            os.waitpid(pid, 0)

    def _obey(self) -> bool:
        """Obey one command; False when there will be no more."""
        data, sockets, _, _ = socket.recv_fds(self._connection, COMMAND.size, 1)
        if not data:
            return False
        kind, number = COMMAND.unpack(data)
        if kind == Command.FORK and not sockets:
            self._tell(Notice.UNBORN, number, errno.EMFILE)  # there was none left to take it
        elif kind == Command.FORK:
            self._fork(number, sockets[0])
        elif number in self._pids:
            os.kill(self._pids[number], signal.SIGKILL)
        return True

    def _fork(self, number: int, worker_socket: int) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            self._tell(Notice.UNBORN, number, error.errno or 0)
        else:
            if pid == 0:
                self._become_a_worker(worker_socket)
            self._pids[number] = pid
            self._tell(Notice.BORN, number, pid)
        finally:
            os.close(worker_socket)

    def _become_a_worker(self, worker_socket: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for inherited in (self._connection, self._woken, self._waker):
                inherited.close()
            name_process("slurper-worker")
            child.run(socket.socket(fileno=worker_socket))
        except BaseException as error:
            _end_with(error)
        os._exit(1)

    def _tell_of_the_dead(self) -> None:
        for number, pid in list(self._pids.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._pids[number]
                self._tell(Notice.ENDED, number, os.waitstatus_to_exitcode(status))

    def _tell(self, notice: Notice, number: int, value: int) -> None:
        self._connection.sendall(NOTICE.pack(notice, number, value))
