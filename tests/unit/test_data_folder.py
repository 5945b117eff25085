"""The data folder is private, its key is made once, and what is wrong with either is named."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from slurper import data_folder, errors
from slurper.secrets import JobSecrets, S3Credentials, Sealer
from slurper.settings import Settings

PAIR = S3Credentials(access_key_id="AKIDEXAMPLE", secret_access_key="hunter2")
SECRETS = JobSecrets(source=PAIR, target=PAIR)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folder_and_key_are_made_for_their_owner_only(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "new" / "folder")
    sealed = data_folder.prepare(settings).seal(SECRETS)
    assert _mode(settings.data_dir) == 0o700
    assert [file.name for file in settings.data_dir.iterdir()] == ["secret.key"]
    assert _mode(settings.data_dir / "secret.key") == 0o600
    assert data_folder.prepare(settings).open(sealed) == SECRETS


def test_processes_that_start_together_agree_on_the_key(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    with ThreadPoolExecutor(16) as pool:
        sealers = list(pool.map(lambda _: data_folder.prepare(settings), range(16)))
    sealed = sealers[0].seal(SECRETS)
    assert all(sealer.open(sealed) == SECRETS for sealer in sealers)
    assert [file.name for file in tmp_path.iterdir()] == ["secret.key"]


def test_keys_of_the_settings_need_no_file_and_can_be_rotated(tmp_path: Path) -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    sealed = Sealer((old,)).seal(SECRETS)
    settings = Settings(
        data_dir=tmp_path / "unused",
        database_url="postgresql://host/slurper",
        secret_key=SecretStr(f"{new}, {old}"),
    )
    sealer = data_folder.prepare(settings)
    assert sealer.open(sealed) == SECRETS
    assert Sealer((new,)).open(sealer.seal(SECRETS)) == SECRETS
    assert not settings.data_dir.exists()


@pytest.mark.parametrize(("key", "message"), [("", "holds no key"), ("short", "must be one")])
def test_a_wrong_key_in_the_settings_is_named(tmp_path: Path, key: str, message: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=f"SLURPER_SECRET_KEY {message}"):
        data_folder.prepare(Settings(data_dir=tmp_path, secret_key=SecretStr(key)))


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty; restore it"), (b"\xff", "not text")]
)
def test_a_damaged_key_file_is_kept_and_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "secret.key"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(errors.ConfigurationError, match=message) as caught:
        data_folder.prepare(Settings(data_dir=tmp_path))
    assert str(file) in str(caught.value)
    assert file.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    with pytest.raises(errors.ConfigurationError, match="set SLURPER_DATA_DIR") as caught:
        data_folder.prepare(Settings(data_dir=in_the_way / "data"))
    assert str(in_the_way / "data") in str(caught.value)


def test_a_folder_that_cannot_be_written_is_named() -> None:
    # Even root makes no file here.
    with pytest.raises(errors.ConfigurationError, match="or set SLURPER_SECRET_KEY") as caught:
        data_folder.prepare(Settings(data_dir=Path("/proc/self/task")))
    assert "/proc/self/task/secret.key" in str(caught.value)
