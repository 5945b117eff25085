"""Messages between the control plane and a worker process: pickles, each after its length.

Both ends are the same program on the same machine. They are joined by an anonymous socket pair,
which no other process can open. That is why pickle is acceptable here.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from slurper.engine.waits import Told
from slurper.settings import Settings
from slurper.transfer.task import Report, Task

LENGTH = struct.Struct("!I")
"""The length before each pickle. It allows 4 GiB, far more than any message."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The second message to a worker process. The first is the list `sys.path` for its imports."""

    settings: Settings
    worker_factory: str
    """`module:callable`, which makes the worker from the settings."""
    beat_seconds: float
    log_level: str
    """The least level that workers log, the same as in the control plane."""


@dataclass(frozen=True, slots=True)
class Run:
    """Run a task. Answered by exactly one `Reported` or `Raised` of the same number."""

    number: int
    task: Task[Any]


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a task early. An unknown number means that the task was answered meanwhile."""

    number: int


@dataclass(frozen=True, slots=True)
class JobEnded:
    """Close what is open only for this job. Tasks of it may still be under way."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End everything, close connections, exit."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker is made and takes tasks."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The worker could not be made; the process ends."""

    text: str


@dataclass(frozen=True, slots=True)
class Beat:
    """The worker's event loop is running."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the tasks under way wait for now. It replaces the earlier message."""

    told: Told


@dataclass(frozen=True, slots=True)
class Reported:
    """A task ended with its report."""

    number: int
    report: Report


@dataclass(frozen=True, slots=True)
class Raised:
    """A task ended with an exception."""

    number: int
    error: Exception


def encode(message: object) -> bytes:
    """Return a message in the form that is sent over the pipe."""
    pickled = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(pickled)) + pickled


def decode(pickled: bytes | bytearray | memoryview) -> object:
    """Return the message of a pickle."""
    message: object = pickle.loads(pickled)  # noqa: S301 - written by our own program, see the module's text
    return message


class Pipe(asyncio.Protocol):
    """One end of the pipe: passes every complete message to `received`, and calls `lost` once.

    `lost` is called in the event loop's next turn after the other end is gone, for any reason.
    """

    def __init__(self, received: Callable[[object], None], lost: Callable[[], None]) -> None:
        self._received = received
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()

    def send(self, message: object) -> None:
        """Queue a message. It is dropped if the pipe has ended: `lost` tells of that."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(message))

    def close(self) -> None:
        """Close this end; `lost` is called as for any other end."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of `asyncio.Protocol`."""
        # uvloop's transports are no subclasses of asyncio's
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Part of `asyncio.Protocol`."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(buffer)[0]
            if len(buffer) < end:
                return
            pickled = bytes(buffer[LENGTH.size : end])
            del buffer[:end]
            self._received(decode(pickled))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Part of `asyncio.Protocol`."""
        self._transport = None
        self._lost()
