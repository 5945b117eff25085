"""Starts the program in a process that has loaded it already, which costs much less CPU.

What forks such processes is started once, when it is first needed. See `loaded.py`.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock

from tests.e2e import loaded

POSSIBLE = sys.platform == "linux"
"""Elsewhere the system's own libraries may not survive a fork."""

_LOADED = Path(loaded.__file__)
_starting = Lock()


class Forked:
    """A process of the program. It is used as a `subprocess.Popen` is."""

    def __init__(
        self, arguments: Sequence[str], env: Mapping[str, str], streams: Sequence[int]
    ) -> None:
        request = {"arguments": arguments, "environment": {**env}, "folder": os.getcwd()}
        self._told, told = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with told, _starting:
            socket.send_fds(_nursery(), [json.dumps(request).encode()], [*streams, told.fileno()])
        self.returncode: int | None = None
        self.pid = self._number()

    def _number(self) -> int:
        data = self._told.recv(loaded.NUMBER.size)
        assert data, "what forks the program has ended"
        number: int = loaded.NUMBER.unpack(data)[0]
        return number

    def poll(self) -> int | None:
        """How it has ended; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("slurper", timeout or 0)
            self.returncode = self._number()
            self._told.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


@cache
def _nursery() -> socket.socket:
    """Start what forks the program. It ends when this process does."""
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", _LOADED, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end() -> None:
        control.close()
        process.wait()

    atexit.register(end)
    return control
