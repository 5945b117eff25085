"""The program of the template process: everything is imported, and workers are forked when asked.

A fork of it takes a few milliseconds; a fresh interpreter spends a quarter of a second on imports.
It stays what makes forks safe: one thread, no event loop, no connections, no secrets.

It lives as long as its socket. When the control plane is gone, for any reason, the template ends
its workers at once: another control plane may already run the same slices again.
"""

from __future__ import annotations

import contextlib
import ctypes
import encodings.idna  # noqa: F401 - loaded by the first look-up of a host name
import gc
import os
import select
import signal
import socket
import struct
import sys
import traceback
from enum import IntEnum
from typing import NoReturn

import slurper.transfer.worker  # noqa: F401 - what workers run is loaded before they are forked
from slurper.engine import child

COMMAND = struct.Struct("!BI")
"""A `Command` and the number of the worker it is about."""
NOTICE = struct.Struct("!BIi")
"""A `Notice`, the number of the worker, and a value."""

NOT_FOR_WORKERS = ("SLURPER_API_TOKEN", "SLURPER_SECRET_KEY", "SLURPER_DATABASE_URL")
"""A worker gets no secrets but those inside its tasks (design rule 11)."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Sent to the whole group by a terminal or a service manager; only the control plane obeys."""

_PR_SET_NAME = 15


class Command(IntEnum):
    """What the control plane asks for."""

    FORK = 1
    """A worker; the socket it is to serve comes along."""
    KILL = 2
    """One that may have ended already."""


class Notice(IntEnum):
    """What the control plane is told."""

    BORN = 1
    """The value is its process id."""
    UNBORN = 2
    """The system refused; the value is the error number."""
    ENDED = 3
    """The value is its exit status, or minus the signal that ended it."""


def main() -> NoReturn:
    """Serve the socket whose descriptor is the last argument, in an interpreter of our own."""
    serve(socket.socket(fileno=int(sys.argv[-1])))


def serve(connection: socket.socket) -> NoReturn:
    """Fork workers until the socket ends. `STOP_SIGNALS` are blocked until they are ignored."""
    try:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        name_process("slurper-forks")
        forget_secrets()
        gc.freeze()  # what no collection touches stays shared; to collect first would touch it all
        _Forker(connection).run()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def name_process(name: str) -> None:
    """Give this process the name that `ps` and `top` show, where the system can: up to 15 bytes."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def forget_secrets() -> None:
    """Take secrets out of the environment, and out of the memory that shows it in /proc."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    for name in NOT_FOR_WORKERS:
        value = os.environ.get(name)
        if value is not None:
            ctypes.memset(libc.getenv(name.encode()), 0, len(os.fsencode(value)))
            del os.environ[name]


class _Forker:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._pids: dict[int, int] = {}
        """Of workers that have not ended, by their numbers."""
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only with a handler does it wake us
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
        if kind == Command.FORK:
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
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _tell_of_the_dead(self) -> None:
        for number, pid in list(self._pids.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._pids[number]
                self._tell(Notice.ENDED, number, os.waitstatus_to_exitcode(status))

    def _tell(self, notice: Notice, number: int, value: int) -> None:
        self._connection.sendall(NOTICE.pack(notice, number, value))
