from __future__ import annotations

from pathlib import Path

import pytest

from slurper import errors
from slurper.cli import configuration
from slurper.settings import NOT_FOR_WORKERS


def test_options_that_were_not_given_leave_the_environment_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLURPER_WORKERS", "3")
    monkeypatch.setenv("SLURPER_PART_BYTES", str(6 << 20))
    settings = configuration.load(workers=None, part_bytes=7 << 20, data_dir=tmp_path)
    assert (settings.workers, settings.part_bytes) == (3, 7 << 20)
    assert settings.data_dir == tmp_path


def test_every_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURPER_WORKERS", "none")
    monkeypatch.setenv("SLURPER_PART_BYTES", "1")
    with pytest.raises(errors.ConfigurationError) as raised:
        configuration.load()
    assert "SLURPER_WORKERS: " in str(raised.value)
    assert "SLURPER_PART_BYTES: " in str(raised.value)


def test_an_engine_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURPER_ENGINE", "local")
    assert configuration.load().engine == "local"
    monkeypatch.setenv("SLURPER_ENGINE", "tcp://scheduler:8786")
    with pytest.raises(errors.ConfigurationError, match="SLURPER_ENGINE: Input should be 'local'"):
        configuration.load()


def test_a_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURPER_WORKERS", "hush-hush")
    with pytest.raises(errors.ConfigurationError) as raised:
        configuration.load()
    assert "hush-hush" not in str(raised.value)


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The settings file, still to be written."""
    path = tmp_path / "slurper.toml"
    monkeypatch.setenv("SLURPER_CONFIG", str(path))
    return path


def test_options_beat_the_environment_that_and_the_file_the_defaults_of_a_command(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    defaults = {"workers": 4, "allow_http": True}
    file.write_text("")
    assert configuration.load(defaults, workers=None).workers == 4
    file.write_text("workers = 5\nallow_http = false\n")
    assert configuration.load(defaults, workers=None).workers == 5
    assert configuration.load(defaults, allow_http=None).allow_http is False
    monkeypatch.setenv("SLURPER_WORKERS", "6")
    assert configuration.load(defaults, workers=None).workers == 6
    assert configuration.load(defaults, workers=7).workers == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workers = ", ": "),
        ("workers = 0", ": workers: "),
        ("part_bytes = 1\nwrkers = 3", ": part_bytes: "),
        ("part_bytes = 1\nwrkers = 3", ": wrkers: no such setting; did you mean workers?"),
        ("request-retries = 1", ": request-retries: no such setting; did you mean request_retries"),
        ("SLURPER_WORKERS = 3", ": SLURPER_WORKERS: no such setting; did you mean workers?"),
        ("[slurper]\nworkers = 3", ": slurper: no such setting; settings stand at the top"),
    ],
)
def test_faults_of_the_file_are_named_with_it(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(errors.ConfigurationError) as raised:
        configuration.load()
    assert f"{file}{said}" in str(raised.value)
    assert "SLURPER_PART_BYTES" not in str(raised.value)


def test_a_fault_of_a_variable_is_not_put_down_to_the_file(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    file.write_text("workers = 0")
    monkeypatch.setenv("SLURPER_WORKERS", "-1")
    with pytest.raises(errors.ConfigurationError, match=r"^SLURPER_WORKERS: "):
        configuration.load()


def test_a_file_that_is_absent_is_named(file: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match=f"SLURPER_CONFIG {file}: No such file"):
        configuration.load()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666])
@pytest.mark.parametrize("name", NOT_FOR_WORKERS)
def test_a_file_whose_secrets_others_may_read_is_refused(file: Path, name: str, mode: int) -> None:
    file.write_text(f'{name} = "sqlite:///hush"')
    file.chmod(mode)
    with pytest.raises(errors.ConfigurationError, match=f"mode {mode:04o}.*chmod go-rwx") as raised:
        configuration.load()
    assert "hush" not in str(raised.value)
    file.chmod(0o600)
    configuration.load()


def test_the_group_may_be_allowed_to_read_secrets_in_the_file(file: Path) -> None:
    file.write_text('api_token = "hush"\nallow_group_access = true')
    file.chmod(0o640)
    configuration.load()
    file.chmod(0o644)
    with pytest.raises(errors.ConfigurationError, match="every user"):
        configuration.load()


def test_a_file_without_secrets_may_be_read_by_all_and_not_changed(file: Path) -> None:
    file.write_text("workers = 3")
    file.chmod(0o664)
    assert configuration.load().workers == 3
    file.chmod(0o646)
    with pytest.raises(errors.ConfigurationError, match=r"every user .* change the settings"):
        configuration.load()


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "WORKERS", "CA_FILE", "API_TOKEN", "R2_ENDPOINT"):
        monkeypatch.setenv(f"SLURPER_{name}", "")
    settings = configuration.load()
    assert (settings.ca_file, settings.api_token, settings.r2_endpoint) == (None, None, None)


def test_a_variable_that_would_not_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("slurper_database_url", "sqlite:////srv/slurper.db")
    with pytest.raises(errors.ConfigurationError, match="call it SLURPER_DATABASE_URL"):
        configuration.load()
