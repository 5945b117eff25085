"""`slurper token`: when a token expires, and what its list says."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from slurper.cli import commands, job_view, token


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("99999d", timedelta(days=99_999)),
        ("2030-12-31", datetime(2030, 12, 31, tzinfo=UTC)),
    ],
)
def test_a_time_from_now_or_a_date(text: str, expected: timedelta | datetime) -> None:
    assert token._expiry(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "0d", "-1d", "30", "30m", "1.5h", "100000d", "30 d", "٣d", "2030-02-30", "d", "tomorrow"],
)
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="12h, 30d or 2030-12-31"):
        token._expiry(text)


@given(st.text() | st.from_regex(r"[0-9]+[hd]", fullmatch=True))
def test_no_text_is_a_surprise(text: str) -> None:
    try:
        found = token._expiry(text)
    except typer.BadParameter:
        return
    if isinstance(found, timedelta):
        assert found > timedelta()
        datetime.now(UTC) + found  # it is in the range of times


def run(folder: Path, *arguments: str) -> str:
    """Run the command; return what it prints."""
    done = CliRunner().invoke(commands.app, ["token", *arguments, "--data-dir", str(folder)])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_list_tells_what_each_token_may_do(tmp_path: Path) -> None:
    run(tmp_path, "create", "all")
    accounts = ("--account", "b", "--account", "a")
    run(tmp_path, "create", "some", *accounts, "--scope", "read", "--expires", "2999-12-31")
    every, some = json.loads(run(tmp_path, "list", "--json"))
    assert every | {"created": ""} == {
        "name": "all",
        "accounts": None,
        "scope": "write",
        "created": "",
        "expires": None,
        "expired": False,
        "lastUsed": None,
    }
    assert (some["accounts"], some["scope"]) == (["a", "b"], "read")
    assert some["expires"] == "2999-12-31T00:00:00+00:00"
    shown = run(tmp_path, "list")
    assert "every account" in shown
    assert "a, b" in shown
    assert "2999-12-31 00:00 UTC" in shown
    assert run(tmp_path, "revoke", "all", "--abort-jobs") == "revoked all, and aborted 0 jobs\n"
    assert run(tmp_path, "revoke", "some") == "revoked some\n"


def test_a_job_tells_who_made_it_without_moving_the_cursor() -> None:
    side = {"vendor": "s3", "bucket": "b"}
    job = {"id": "j", "status": "completed", "overwrite": True, "createdAt": "t"}
    job |= {"source": side, "target": side}
    counts = ("objects", "transferredObjects", "skippedObjects", "failedObjects")
    progress = {"status": "completed", **dict.fromkeys(counts, 0)}
    assert "created by" not in dict(job_view.description(job, progress))
    named = dict(job_view.description(job | {"createdBy": "a\x1b[2J"}, progress))
    assert named["created by"] == '"a\\u001b[2J"'
