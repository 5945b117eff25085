"""The data folder. It holds the database and the sealing key if the settings name no others."""

from __future__ import annotations

from pathlib import Path

from slurper import errors, private_files
from slurper.key_file import KeyFile
from slurper.secrets import Sealer
from slurper.settings import Settings

KEY_FILE = "secret.key"

_SQLITE = ("sqlite:///", "sqlite+aiosqlite:///")


def prepare(settings: Settings) -> Sealer:
    """Make the data folder if it is needed, and return the sealer of credentials.

    The folder is made with mode 0700, the key file in it with 0600. Neither is touched when both
    `database_url` and `secret_key` are set.

    Raises:
        ConfigurationError: the folder, key or database cannot be used, or other users may use them
            too. The message says how to mend that.
    """
    key = settings.secret_key
    if settings.database_url is None or key is None:
        _make_folder(settings)
    _check_database(settings)
    if key is not None:
        keys = (text.strip() for text in key.get_secret_value().split(","))
        return Sealer(tuple(text for text in keys if text))
    file = key_file(settings)
    return Sealer(file.read(), newer=file.changed)


def key_file(settings: Settings) -> KeyFile:
    """Return the file of the sealing keys. It is made if it is missing.

    Raises:
        ConfigurationError: it cannot be used, or other users may use it too.
    """
    path = settings.data_dir / KEY_FILE
    private_files.check_file(path, group_may=settings.allow_group_access)
    return KeyFile(path)


def _check_database(settings: Settings) -> None:
    """Refuse a SQLite file that others may use. One that is missing is made with mode 0600."""
    url = settings.resolved_database_url
    for prefix in _SQLITE:
        if url.startswith(prefix):
            path = url.removeprefix(prefix)
            for name in (path, f"{path}-wal", f"{path}-shm"):
                private_files.check_file(Path(name), group_may=settings.allow_group_access)


def _make_folder(settings: Settings) -> None:
    folder = settings.data_dir
    try:
        # One above may become the data folder of another command, so each that we make is private.
        for each in (*reversed(folder.parents), folder):
            each.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise errors.ConfigurationError(
            f"cannot make the data folder {folder}: {error.strerror}; "
            "set SLURPER_DATA_DIR to a folder this user may write to"
        ) from error
    private_files.check_folder(folder, group_may=settings.allow_group_access)
