from __future__ import annotations

from pathlib import Path

import pytest

from slurper import errors
from slurper.cli import configuration


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


def test_a_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURPER_WORKERS", "hush-hush")
    with pytest.raises(errors.ConfigurationError) as raised:
        configuration.load()
    assert "hush-hush" not in str(raised.value)


def test_a_settings_file_is_read_and_its_faults_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "slurper.toml"
    file.write_text("workers = 5\n")
    monkeypatch.setenv("SLURPER_CONFIG", str(file))
    assert configuration.load().workers == 5
    monkeypatch.setenv("SLURPER_WORKERS", "6")
    assert configuration.load().workers == 6
    assert configuration.load(workers=7).workers == 7
    file.write_text("workers = \n")
    with pytest.raises(errors.ConfigurationError, match="SLURPER_CONFIG"):
        configuration.load()
    monkeypatch.setenv("SLURPER_CONFIG", str(tmp_path / "absent.toml"))
    with pytest.raises(errors.ConfigurationError, match="SLURPER_CONFIG"):
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
