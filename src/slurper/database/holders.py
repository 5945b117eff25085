"""Names a process so that another process can tell whether it still lives.

A name holds the process id. On Linux it also holds the time at which the process began, its process
namespace, the machine, and the last start of that machine. A process in the same namespace can tell
at once and for certain whether the named one lives. Any other process cannot tell.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

_HOST_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds something."""

    pid: int
    host: str
    """For people only: two machines may have the same name."""
    namespace: str = ""
    """Where `pid` means this process; empty when that is not known."""
    began: str = ""
    """As the kernel tells it. It tells apart two processes that had the same `pid`."""

    @classmethod
    def this_process(cls) -> Holder:
        """Return the calling process."""
        pid, host = os.getpid(), platform.node()[:_HOST_CHARACTERS]
        try:
            return cls(pid, host, _namespace(), _stat(pid).began)
        except OSError:  # not Linux
            return cls(pid, host)

    @classmethod
    def parse(cls, name: str) -> Holder:
        """Return the process that `encode` named; for any other text, an unknown process."""
        pid, _, rest = name.partition("@")
        host, _, place = rest.partition(" ")
        namespace, _, began = place.partition(" ")
        if not (pid.isascii() and pid.isdecimal()):
            return cls(0, name)
        return cls(int(pid), host, namespace, began)

    def encode(self) -> str:
        """Return the name that `parse` takes; it fits into 255 characters."""
        return f"{self.pid}@{self.host} {self.namespace} {self.began}".rstrip()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else self.host

    @property
    def lives(self) -> bool | None:
        """Whether the process is running; None when this process cannot know."""
        try:
            if not self.began or self.namespace != _namespace():
                return None
            os.kill(self.pid, 0)
            stat = _stat(self.pid)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):  # another user's process may be hidden
            return None
        return stat.began == self.began and not stat.ended


@dataclass(frozen=True, slots=True)
class _Stat:
    began: str
    ended: bool


def _stat(pid: int) -> _Stat:
    """Read what the kernel says of a process. Raises OSError."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    state, *rest = text.rpartition(")")[2].split()  # the name may hold any character
    return _Stat(began=rest[18], ended=state in "ZX")


def _namespace() -> str:
    """Name the namespace and the boot: inode numbers repeat on other machines and boots."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
