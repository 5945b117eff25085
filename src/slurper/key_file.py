"""The file of the keys that seal credentials: one key per line, the newest first.

It is never changed in place. A new version is written beside it and takes its name, so a reader
sees the old keys or the new ones. A running service reads the file again when it has changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slurper import errors
from slurper.secrets import Keys, new_key

_Version = tuple[int, int, int]


class KeyFile:
    """The key file at a path. It is made with mode 0600 if it is missing."""

    def __init__(self, path: Path) -> None:
        """Make the file if it is missing.

        Raises:
            ConfigurationError: it cannot be made.
        """
        self.path = path
        self._seen: _Version | None = None
        with _explained(path):
            if not path.exists():
                _create(path)

    def read(self) -> Keys:
        """Return the keys, the newest first.

        Raises:
            ConfigurationError: the file cannot be read, or is empty.
        """
        with _explained(self.path):
            seen = _version(self.path)  # before it is read: a later change is then noticed
            keys = tuple(self.path.read_text().split())
        if not keys:
            raise errors.ConfigurationError(
                f"the key file {self.path} is empty; restore it, or remove it to begin with a new "
                "key (credentials sealed with the old one are then lost)"
            )
        self._seen = seen
        return keys

    def changed(self) -> Keys | None:
        """Return the keys if the file was replaced since it was read; else None.

        A file that is missing or damaged now counts as not changed: the keys read before still
        open what they have sealed.
        """
        try:
            return None if _version(self.path) == self._seen else self.read()
        except (OSError, errors.ConfigurationError):
            return None

    def put_first(self, key: str) -> None:
        """Add a key that seals from now on. Those that are there still open.

        Raises:
            ConfigurationError: the file cannot be replaced.
        """
        self._replace((key, *self.read()))

    def drop_all_but_first(self) -> int:
        """Leave only the key that seals; return how many others there were.

        Raises:
            ConfigurationError: the file cannot be replaced.
        """
        first, *others = self.read()
        if others:
            self._replace((first,))
        return len(others)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other process change the keys during the block.

        Files of keys that a killed process has not finished are removed.

        Raises:
            ConfigurationError: another process changes them now.
        """
        with _explained(self.path):
            folder = os.open(self.path.resolve().parent, os.O_RDONLY)
        try:
            _lock(folder, self.path)
            path = self.path.resolve()
            for unfinished in path.parent.glob(f".{path.name}-*"):
                unfinished.unlink(missing_ok=True)
            yield
        finally:
            os.close(folder)

    def _replace(self, keys: Keys) -> None:
        """Write the file completely or not at all, with the owner and mode that it has."""
        with _explained(self.path):
            path = self.path.resolve()  # a link stays a link
            before = path.stat()
            with tempfile.NamedTemporaryFile(
                "w", dir=path.parent, prefix=f".{path.name}-", delete=False
            ) as file:
                try:
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                    os.fchmod(file.fileno(), before.st_mode & 0o777)
                    file.write("\n".join(keys) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                    Path(file.name).rename(path)
                except BaseException:
                    Path(file.name).unlink()
                    raise
            _sync(path.parent)


def _create(path: Path) -> None:
    """Make the file completely or not at all. If several processes try, one of them makes it."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-") as file:
        file.write(new_key() + "\n")
        file.flush()
        os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first; its key counts
            os.link(file.name, path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Make sure that the names in a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(folder: int, path: Path) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise errors.ConfigurationError(
            f"another process changes the keys in {path} now; wait for its end"
        ) from error


def _version(path: Path) -> _Version:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise errors.ConfigurationError(
            f"cannot use the key file {path}: {reason}; check the space and permissions of its "
            "folder, or set SLURPER_SECRET_KEY"
        ) from error
