"""What other users may read or replace is refused, with the command that mends it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from slurper import data_folder, errors
from slurper.settings import Settings

OTHERS = [0o604, 0o602, 0o666, 0o644]
GROUP = [0o640, 0o660, 0o620]


def _settings(folder: Path, **more: object) -> Settings:
    return Settings.model_validate({"data_dir": folder, **more})


def _mended(error: errors.ConfigurationError) -> None:
    """Run the command that the message has."""
    command = str(error).partition(": chmod ")[2].partition(";")[0]
    subprocess.run(f"chmod {command}", shell=True, check=True)  # noqa: S602 - the user would


@pytest.mark.parametrize("mode", OTHERS + GROUP)
@pytest.mark.parametrize("name", ["secret.key", "slurper.db", "slurper.db-wal", "slurper.db-shm"])
def test_files_that_others_may_use_are_refused(tmp_path: Path, name: str, mode: int) -> None:
    data_folder.prepare(_settings(tmp_path))
    file = tmp_path / name
    file.touch(0o600)
    file.chmod(mode)
    with pytest.raises(errors.ConfigurationError, match=f"has mode {mode:04o}") as caught:
        data_folder.prepare(_settings(tmp_path))
    assert str(file) in str(caught.value)
    _mended(caught.value)
    data_folder.prepare(_settings(tmp_path))


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o702, 0o2770])
def test_a_folder_in_which_others_may_replace_files_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "data with a blank"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(errors.ConfigurationError, match="replace what is in it") as caught:
        data_folder.prepare(_settings(folder))
    _mended(caught.value)
    data_folder.prepare(_settings(folder))


def test_folders_that_are_made_on_the_way_can_be_used_too(tmp_path: Path) -> None:
    """A copy has a folder of its own in the data folder, and may be what makes both."""
    before = os.umask(0o002)
    try:
        data_folder.prepare(_settings(tmp_path / "data" / "copies" / "one"))
        data_folder.prepare(_settings(tmp_path / "data"))
    finally:
        os.umask(before)


def test_a_folder_may_be_listed_by_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    data_folder.prepare(_settings(tmp_path))


@pytest.mark.parametrize("mode", GROUP)
def test_the_group_may_be_allowed(tmp_path: Path, mode: int) -> None:
    """As Kubernetes makes the files of a volume that belongs to the pod's group."""
    data_folder.prepare(_settings(tmp_path))
    tmp_path.chmod(0o2770)
    (tmp_path / "secret.key").chmod(mode)
    with pytest.raises(errors.ConfigurationError, match="SLURPER_ALLOW_GROUP_ACCESS=true"):
        data_folder.prepare(_settings(tmp_path))
    data_folder.prepare(_settings(tmp_path, allow_group_access=True))


@pytest.mark.parametrize("mode", OTHERS)
def test_everybody_is_never_allowed(tmp_path: Path, mode: int) -> None:
    data_folder.prepare(_settings(tmp_path))
    (tmp_path / "secret.key").chmod(mode)
    with pytest.raises(errors.ConfigurationError, match="every user") as caught:
        data_folder.prepare(_settings(tmp_path, allow_group_access=True))
    assert "ALLOW_GROUP" not in str(caught.value)
    _mended(caught.value)
    data_folder.prepare(_settings(tmp_path, allow_group_access=True))


def test_a_link_is_judged_by_what_it_leads_to(tmp_path: Path) -> None:
    data_folder.prepare(_settings(tmp_path / "data"))
    elsewhere = tmp_path / "mounted"
    (tmp_path / "data" / "secret.key").rename(elsewhere)
    (tmp_path / "data" / "secret.key").symlink_to(elsewhere)
    data_folder.prepare(_settings(tmp_path / "data"))
    elsewhere.chmod(0o644)
    with pytest.raises(errors.ConfigurationError, match=r"chmod go-rwx .*mounted"):
        data_folder.prepare(_settings(tmp_path / "data"))


def test_a_database_elsewhere_is_checked_too(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    file.touch(0o644)
    settings = _settings(tmp_path / "data", database_url=f"sqlite:///{file}")
    with pytest.raises(errors.ConfigurationError, match=r"other\.db has mode"):
        data_folder.prepare(settings)
