"""The key file is replaced as a whole, by one process at a time, and a sealer notices it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from slurper import errors
from slurper.key_file import KeyFile
from slurper.secrets import JobSecrets, S3Credentials, Sealer, new_key

PAIR = S3Credentials(access_key_id="AKIDEXAMPLE", secret_access_key="hunter2")
SECRETS = JobSecrets(source=PAIR, target=PAIR)


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "secret.key")


def _running(file: KeyFile) -> Sealer:
    """The sealer of another process that has read the file."""
    own = KeyFile(file.path)
    return Sealer(own.read(), newer=own.changed)


def test_a_new_key_comes_first_and_older_ones_go(file: KeyFile) -> None:
    (old,) = file.read()
    new = new_key()
    file.put_first(new)
    assert file.read() == (new, old)
    assert file.drop_all_but_first() == 1
    assert file.read() == (new,)
    assert file.drop_all_but_first() == 0
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [each.name for each in file.path.parent.iterdir()] == ["secret.key"]


def test_a_running_sealer_seals_with_the_new_key_at_once(file: KeyFile) -> None:
    running = _running(file)
    sealed = running.seal(SECRETS)
    new = new_key()
    file.put_first(new)
    assert Sealer((new,)).open(running.seal(SECRETS)) == SECRETS
    assert not running.is_newest(sealed)
    assert Sealer((new,)).open(running.resealed(sealed)) == SECRETS


def test_a_running_sealer_opens_what_another_has_sealed_with_the_new_key(file: KeyFile) -> None:
    running = _running(file)
    new = new_key()
    file.put_first(new)
    file.drop_all_but_first()
    assert running.open(Sealer((new,)).seal(SECRETS)) == SECRETS


def test_a_running_sealer_opens_what_it_read_before_the_old_key_went(file: KeyFile) -> None:
    running = _running(file)
    sealed = running.seal(SECRETS)
    digest = running.digests([b"a request"])[0]
    file.put_first(new_key())
    file.drop_all_but_first()
    running.seal(SECRETS)
    assert running.open(sealed) == SECRETS
    assert digest in running.digests([b"a request"])[1:]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text(""),
        lambda path: path.write_text("no key"),
        lambda path: path.write_bytes(b"\xff"),
    ],
    ids=["missing", "empty", "no key", "no text"],
)
def test_a_file_that_is_damaged_now_stops_no_running_sealer(
    file: KeyFile, spoil: Callable[[Path], object]
) -> None:
    running = _running(file)
    sealed = running.seal(SECRETS)
    spoil(file.path)
    for _ in range(2):
        assert running.open(sealed) == SECRETS
        assert running.open(running.seal(SECRETS)) == SECRETS


def test_one_process_at_a_time_changes_the_keys(file: KeyFile) -> None:
    with (
        file.alone(),
        pytest.raises(errors.ConfigurationError, match="another process changes the keys"),
        KeyFile(file.path).alone(),
    ):
        pass
    with file.alone():
        pass


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real = KeyFile(tmp_path / "real.key")
    (tmp_path / "secret.key").symlink_to(real.path)
    linked = KeyFile(tmp_path / "secret.key")
    new = new_key()
    linked.put_first(new)
    assert linked.path.is_symlink()
    assert real.read()[0] == new


def test_what_goes_wrong_leaves_the_file_as_it_was(
    file: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = file.read()

    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.ConfigurationError, match="No space left"):
        file.put_first(new_key())
    assert file.read() == keys
    assert [each.name for each in file.path.parent.iterdir()] == ["secret.key"]
