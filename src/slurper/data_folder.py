"""The data folder. It holds the database and the sealing key if the settings name no others."""

from __future__ import annotations

from slurper import errors
from slurper.secrets import Sealer
from slurper.settings import Settings

KEY_FILE = "secret.key"


def prepare(settings: Settings) -> Sealer:
    """Make the data folder if it is needed, and return the sealer of credentials.

    The folder is made with mode 0700, the key file in it with 0600. Neither is touched when both
    `database_url` and `secret_key` are set.

    Raises:
        ConfigurationError: the folder or key cannot be used. The message says how to mend that.
    """
    key = settings.secret_key
    if settings.database_url is None or key is None:
        _make_folder(settings)
    if key is None:
        return Sealer.from_file(settings.data_dir / KEY_FILE)
    return Sealer(tuple(text.strip() for text in key.get_secret_value().split(",") if text.strip()))


def _make_folder(settings: Settings) -> None:
    folder = settings.data_dir
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise errors.ConfigurationError(
            f"cannot make the data folder {folder}: {error.strerror}; "
            "set SLURPER_DATA_DIR to a folder this user may write to"
        ) from error
