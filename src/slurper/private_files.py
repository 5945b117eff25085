"""Which files and folders nobody else may use: the sealing key, the database, and their folder.

The file of the settings is one of them too. The mode decides, not the owner: volumes often show
owners that mean nothing where they are mounted. A symbolic link is followed, because what it leads
to is what others could read. That group members may read is a leak on a machine with several users.
But Kubernetes gives each file of a volume to the group of the pod (`fsGroup`), with mode 0660,
whenever it mounts the volume. So the group may be allowed by a setting. Everybody else never is.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from slurper import errors

_FOLDER = stat.S_IWGRP | stat.S_IWOTH
"""Who may write to a folder may replace what is in it. To list the names in it does no harm."""
_FILE = stat.S_IRWXG | stat.S_IRWXO


def check_file(path: Path, *, group_may: bool) -> None:
    """Refuse a file that others may read or write; a file that is missing is fine.

    Raises:
        ConfigurationError: its mode allows that. The message has the command that mends it.
    """
    _check(path, _FILE, "go-rwx", "read or change it", group_may=group_may)


def check_settings(path: Path, *, has_secrets: bool, group_may: bool) -> None:
    """Refuse a file of settings that every user may change, or that others may read the secrets of.

    Raises:
        ConfigurationError: as `check_file`.
    """
    if has_secrets:
        _check(path, _FILE, "go-rwx", "read the secrets in it", group_may=group_may)
    else:
        _check(path, stat.S_IWOTH, "o-w", "change the settings", group_may=True)


def check_folder(path: Path, *, group_may: bool) -> None:
    """Refuse a folder in which others may replace files.

    Raises:
        ConfigurationError: as `check_file`.
    """
    _check(path, _FOLDER, "go-w", "replace what is in it", group_may=group_may)


def _check(path: Path, forbidden: int, change: str, harm: str, *, group_may: bool) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # it is missing, or we may not look; the code that opens it tells
    open_to = stat.S_IMODE(mode) & forbidden
    if group_may:
        open_to &= ~stat.S_IRWXG
        change = change.replace("g", "")
    if not open_to:
        return
    who = "every user of this machine" if open_to & stat.S_IRWXO else "its group"
    or_else = (
        ""
        if group_may or open_to & stat.S_IRWXO
        else (
            "; if the group is meant to, as on a Kubernetes volume with fsGroup, set "
            "SLURPER_ALLOW_GROUP_ACCESS=true"
        )
    )
    named = shlex.quote(os.fspath(path.resolve()))
    raise errors.ConfigurationError(
        f"{path} has mode {stat.S_IMODE(mode):04o}, so {who} may {harm}: chmod {change} {named}"
        f"{or_else}"
    )
