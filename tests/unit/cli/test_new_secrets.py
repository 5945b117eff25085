"""New credentials of a job, from options to the body that is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slurper import errors
from slurper.cli import new_secrets
from tests.unit.api.bodies import PEM

NOTHING: dict[str, Any] = {
    f"{side}_{name}": None
    for side in ("source", "target")
    for name in ("access_key_id", "secret_access_key", "credentials_file")
}


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "account.json"
    path.write_text(json.dumps({"client_email": "a@b", "private_key": PEM}))
    return path


def test_no_option_means_no_body() -> None:
    assert new_secrets.body(**NOTHING) is None


def test_each_side_has_its_own_kind(key_file: Path) -> None:
    given: dict[str, Any] = {
        "source_credentials_file": key_file,
        "target_access_key_id": "id",
        "target_secret_access_key": "secret",
    }
    assert new_secrets.body(**{**NOTHING, **given}) == {
        "source": {"secret": {"clientEmail": "a@b", "privateKey": PEM}},
        "target": {"secret": {"accessKeyId": "id", "secretAccessKey": "secret"}},
    }


def test_a_side_has_one_kind_only(key_file: Path) -> None:
    given: dict[str, Any] = {"target_credentials_file": key_file, "target_access_key_id": "id"}
    with pytest.raises(errors.ConfigurationError, match="give one of the two"):
        new_secrets.body(**{**NOTHING, **given})
