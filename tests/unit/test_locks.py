"""What is installed for production: all that runs, each with hashes, and nothing of the tests."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCTION = (ROOT / "requirements-production.lock").read_text()
DEVELOPMENT = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _pinned(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE))


def _names(requirements: list[object]) -> set[str]:
    return {re.split(r"[\[<>=! ]", each)[0] for each in requirements if isinstance(each, str)}


def test_everything_that_runs_is_there_in_the_version_that_is_tested() -> None:
    wanted = _names(PROJECT["project"]["dependencies"])
    wanted |= _names(PROJECT["project"]["optional-dependencies"]["postgres"])
    pinned = _pinned(PRODUCTION)
    assert wanted <= pinned.keys()
    assert pinned.items() <= _pinned(DEVELOPMENT).items()


def test_nothing_of_tests_checks_and_demonstration_is_there() -> None:
    groups = PROJECT["dependency-groups"]
    others = _names([*groups["test"], *groups["check"], *groups["dev"]])
    others |= _names(PROJECT["project"]["optional-dependencies"]["demo"])
    assert not others & _pinned(PRODUCTION).keys()


def test_each_has_hashes_and_no_place_is_named() -> None:
    for lock in ROOT.glob("requirements*.lock"):
        text = lock.read_text()
        for entry in re.split(r"^(?=\S)", text, flags=re.MULTILINE):
            assert not entry or "--hash=sha256:" in entry, f"{lock.name}: {entry[:60]}"
        assert "://" not in text
