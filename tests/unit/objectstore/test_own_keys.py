"""Which keys are Slurper's own, and no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper.objectstore import own_keys


def test_what_is_made_is_known_and_never_made_again() -> None:
    made = {own_keys.new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(map(own_keys.is_own, made))


@pytest.mark.parametrize(
    "key",
    [
        own_keys.PREFIX,
        f"{own_keys.PREFIX}notes.txt",
        f"{own_keys.PREFIX}{'0' * 31}",
        f"{own_keys.PREFIX}{'0' * 33}",
        f"//{own_keys.PREFIX}{'0' * 32}",
        f"{own_keys.PREFIX}{'0' * 32}\n",
        f"{own_keys.PREFIX}{'A' * 32}",
        f"a/{own_keys.PREFIX}{'0' * 32}",
    ],
)
def test_what_only_looks_like_one_is_somebodys(key: str) -> None:
    assert not own_keys.is_own(key)


@pytest.mark.parametrize("beginning", ["", "/"])
@pytest.mark.parametrize("rest", ["/", "//x", "/\n", "-b", "\\x", "/../x"])
def test_so_is_what_goes_on_behind_one(beginning: str, rest: str) -> None:
    assert own_keys.is_own(f"{beginning}{own_keys.new_key()}{rest}")


@given(st.text())
def test_nothing_else_is(key: str) -> None:
    name = key.removeprefix("/")
    digits, rest = name[len(own_keys.PREFIX) :][:32], name[len(own_keys.PREFIX) + 32 :]
    assert own_keys.is_own(key) is (
        name.startswith(own_keys.PREFIX)
        and len(digits) == 32
        and set(digits) <= set("0123456789abcdef")
        and rest[:1] in ("", "-", "/", "\\")
    )
