"""The control plane's side of the template process and of the workers forked from it.

There are two ways to make a template. It may be forked from a program that has just begun, has one
thread and knows no secrets (`forked`). Or it is a new interpreter (`spawned`). Either way it loads
the data plane, and then does nothing until it is asked for a worker. See decision 0010.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from itertools import count
from typing import NoReturn

from slurper.engine import forking, shortage
from slurper.engine.forking import COMMAND, NOTICE, STOP_SIGNALS, Command, Notice
from slurper.settings import NOT_FOR_WORKERS, variable

_PROGRAM = "import gc; gc.disable(); from slurper.engine.forking import main; main()"
"""The imports make no garbage. `tune_process` enables the collector again in each worker."""

_END_SECONDS = 5.0
"""A template that has ended its workers ends within milliseconds."""


class Child:
    """What the template has told about a worker process."""

    def __init__(self, template: Template, number: int) -> None:
        self._template = template
        self._number = number
        self.pid = 0
        """The process id; 0 until the template has told it."""
        self.status: int | None = None
        """The exit status, or minus the signal that ended it; None: it has not ended."""
        self.refusal = 0
        """The error number of the system, if it refused to make the process. It may pass."""
        self.orphaned = False
        """Its template is lost. The worker may live, but we will not learn how it ends."""

    @property
    def over(self) -> bool:
        """Whether the template will tell nothing more about it."""
        return self.status is not None or self.refusal != 0 or self.orphaned

    def kill(self) -> None:
        """End it now, if it has not ended.

        The template knows whether the worker has ended. Until then no other process gets its id. An
        orphan is killed by its id. No other process gets that id so soon.
        """
        if not self.over:
            self._template.order(Command.KILL, self._number)
        if self.orphaned and self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> None:
        """Block until it is over, at most for `seconds`."""
        give_up = time.monotonic() + seconds
        while not self.over and (left := give_up - time.monotonic()) > 0:
            self._template.read(left)


class Template:
    """A template process. Call `read` when its `fileno` is readable."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.pid = pid
        self.lost = False
        """It has ended. Its workers may still live."""
        self._connection = connection
        self._buffer = bytearray()
        self._numbers = count(1)
        self._children: dict[int, Child] = {}

    @classmethod
    def forked(cls) -> Template | None:
        """Fork this process; None where that is not safe. Call it before anything else.

        Things that do not survive a fork must not have begun: threads, an event loop, macOS's own
        libraries. The program must not have read any secrets yet.
        """
        if sys.platform != "linux" or threading.active_count() > 1:
            return None
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            return None
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # until the fork ignores them
        try:
            pid = os.fork()
            if pid == 0:
                _serve_as_template(ours, theirs)
        except OSError:
            ours.close()
            return None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
        return cls(pid, ours)

    @classmethod
    def spawned(cls) -> Template:
        """Start a template in a new interpreter. Raises OSError: it could not be started."""
        ours, theirs = socket.socketpair()
        theirs.set_inheritable(True)
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno())],
                _environment(os.environ),
                file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
                setsigmask=STOP_SIGNALS,  # until it ignores them
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(pid, ours)

    def fileno(self) -> int:
        """The descriptor that is readable when there is something to `read`."""
        return self._connection.fileno()

    def fork(self, worker_socket: socket.socket) -> Child:
        """Fork a worker that serves the socket. `read` learns what becomes of it."""
        number = next(self._numbers)
        made = self._children[number] = Child(self, number)
        self.order(Command.FORK, number, worker_socket.fileno())
        return made

    def order(self, command: Command, number: int, *descriptors: int) -> None:
        """Send a command, unless the template is lost.

        The system may have no room for another command on its way. That refuses one worker. But a
        template that takes no commands out of its queue is lost.
        """
        try:
            socket.send_fds(self._connection, [COMMAND.pack(command, number)], descriptors)
        except BlockingIOError:
            self._lose()
        except OSError as error:
            refusal = shortage.number_of(error)
            if command == Command.FORK and refusal:
                self._children.pop(number).refusal = refusal
            else:
                self._lose()

    def read(self, seconds: float = 0.0) -> None:
        """Take in what the template tells; wait for it for at most `seconds`."""
        if self.lost or not _is_readable(self._connection, seconds):
            return
        try:
            data = self._connection.recv(4096)
        except OSError:
            data = b""
        if not data:
            self._lose()
        self._buffer += data
        while len(self._buffer) >= NOTICE.size:
            self._note(*NOTICE.unpack_from(self._buffer))
            del self._buffer[: NOTICE.size]

    def close(self) -> None:
        """End the template and all its workers. None is left when this returns."""
        self._connection.close()
        if not self.lost:
            self._end_of_process(_END_SECONDS)
            self._lose()

    def _note(self, notice: int, number: int, value: int) -> None:
        told = self._children[number]
        if notice == Notice.BORN:
            told.pid = value
            return
        del self._children[number]
        if notice == Notice.UNBORN:
            told.refusal = value
        else:
            told.status = value

    def _lose(self) -> None:
        """Give up a template that has ended or does not answer."""
        if self.lost:
            return
        self.lost = True
        lacked = shortage.told_by(os.waitstatus_to_exitcode(self._end_of_process(0)))
        for orphan in self._children.values():
            if lacked and not orphan.pid:  # it was not even begun
                orphan.refusal = lacked
            else:
                orphan.orphaned = True
        self._children.clear()

    def _end_of_process(self, seconds: float) -> int:
        """Wait for the end of a template whose socket is closed; kill it if it takes too long.

        Returns how it ended, as `os.waitpid` tells it; 0 if that cannot be found out.
        """
        give_up = time.monotonic() + seconds
        try:
            while (ended := os.waitpid(self.pid, os.WNOHANG)) == (0, 0):
                if time.monotonic() >= give_up:
                    os.kill(self.pid, signal.SIGKILL)
                    return os.waitpid(self.pid, 0)[1]
                time.sleep(0.001)
        except ChildProcessError:
            return 0
        return ended[1]


def _serve_as_template(ours: socket.socket, theirs: socket.socket) -> NoReturn:
    """Go on as the template, in the process that was just forked.

    Whatever happens, this process must not go on as the program that it was forked from.
    """
    try:
        ours.close()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        forking.serve(theirs)
    finally:
        os._exit(1)


def _is_readable(connection: socket.socket, seconds: float) -> bool:
    poll = select.poll()  # `select` cannot handle descriptors above 1,023
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    hidden = set(map(variable, NOT_FOR_WORKERS))
    return {name: value for name, value in ours.items() if name not in hidden}
