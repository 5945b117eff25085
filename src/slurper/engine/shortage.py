"""What the system may lack for a moment when a process is started, and how that is told on.

File descriptors, processes and memory are shared with other programs. A start that lacks them says
nothing about the worker: it is tried again until it succeeds. If another start fails, that is a
fault.
"""

from __future__ import annotations

import errno

from slurper import descriptors, errors

_LIMITS = {
    errno.EMFILE: errors.TooManyOpenFiles.advice,
    errno.ENFILE: "raise `fs.file-max` of this machine, or end programs that have many files open",
    errno.EAGAIN: "raise `ulimit -u` for this program (TasksMax= of systemd, --pids-limit of "
    "Docker), or lower SLURPER_WORKERS",
    errno.ENOMEM: "give this program more memory, or lower SLURPER_WORKERS",
    errno.ENOBUFS: "give this machine more memory for its sockets",
    errno.ETOOMANYREFS: errors.TooManyOpenFiles.advice,
}
"""What the operator can do, by the error number of the system."""

_FIRST_STATUS = 64
FAULT = 1
"""The exit status of a process that could not begin for any other cause."""


def number_of(error: BaseException) -> int:
    """The error number of a shortage; 0 for any other error."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, errors.TooManyOpenFiles):
        return errno.EMFILE
    if isinstance(error, OSError) and error.errno in _LIMITS:
        return error.errno
    return 0


def advice(number: int) -> str:
    """What the operator can do about a shortage."""
    return _LIMITS[number]


def exit_status(error: BaseException) -> int:
    """The exit status of a process that could not begin. It tells a shortage from a fault.

    Not every error names its cause: a module cannot be found if its folder cannot be opened.
    """
    number = number_of(error)
    if not number and descriptors.none_left():
        number = errno.EMFILE
    return _FIRST_STATUS + number if number else FAULT


def told_by(status: int) -> int:
    """The error number of the shortage that an exit status tells of; 0: it tells of none."""
    number = status - _FIRST_STATUS
    return number if number in _LIMITS else 0
