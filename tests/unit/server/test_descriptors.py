from __future__ import annotations

import resource

import pytest

from slurper.server import descriptors


@pytest.mark.parametrize(
    ("limit", "allowed"), [(65_536, 512), (1_024, 512), (1_000, 500), (256, 128), (1, 1)]
)
def test_connections_leave_room_for_the_rest(limit: int, allowed: int) -> None:
    assert descriptors.for_connections(512, limit) == allowed


def test_fewer_may_be_asked_for() -> None:
    assert descriptors.for_connections(20, 65_536) == 20


def test_the_limit_is_raised_as_far_as_the_system_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1_024, 4_096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert descriptors.raise_limit() == 4_096
    assert asked == [(4_096, 4_096)]


def test_a_limit_that_cannot_be_raised_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert descriptors.raise_limit() == 256


def test_a_limit_is_never_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 20, 1 << 20))
    monkeypatch.delattr(resource, "setrlimit")
    assert descriptors.raise_limit() == 1 << 20
