"""What the headers of a request say of its being sent again."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from slurper import errors
from slurper.api import delivery
from slurper.api.envelope import Code
from slurper.job.model import Delivery
from tests.unit.api import bodies
from tests.unit.api.conftest import JOBS, Api
from tests.unit.api.test_app import failure

JOB = f"{JOBS}/{'0' * 64}"


def read(*headers: tuple[str, str]) -> Delivery:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return delivery.read(Request({"type": "http", "headers": raw}))


@pytest.mark.parametrize(
    ("value", "retries"),
    [("0", 0), ("1", 1), ("2", 2), ("17", 17), ("", 0), ("-1", 0), ("1.5", 0), ("x", 0), ("²", 0),
     ("9" * 40, 0)],
)  # fmt: skip
def test_the_count_of_the_sdks_is_read(value: str, retries: int) -> None:
    assert read(("X-Stainless-Retry-Count", value)) == Delivery(retries=retries)
    assert read() == Delivery()


@pytest.mark.parametrize(
    "key", ["k", '"quoted"', "8e03978e-40d5-43dd-bc93-6894a57f9324", "k" * 255, "two words"]
)
def test_a_key_is_taken_as_it_is(key: str) -> None:
    assert read(("Idempotency-Key", key)) == Delivery(key=key)


@pytest.mark.parametrize("key", ["", " ", " k", "k ", "k" * 256, "ü", "a\tb", "a\x7f"])
def test_what_cannot_be_a_key_is_refused(key: str) -> None:
    with pytest.raises(errors.InvalidField) as caught:
        read(("Idempotency-Key", key))
    assert caught.value.pointer == "/header/Idempotency-Key"


def test_two_keys_are_none() -> None:
    with pytest.raises(errors.InvalidField):
        read(("Idempotency-Key", "a"), ("idempotency-key", "b"))


@pytest.mark.parametrize(("method", "path"), [("POST", JOBS), ("PUT", f"{JOB}/retryFailed")])
async def test_a_bad_key_is_pointed_at(api: Api, method: str, path: str) -> None:
    headers = {"idempotency-key": "k" * 256}
    body = bodies.create() if method == "POST" else None
    answer = await api.client.request(method, path, json=body, headers=headers)
    assert "255" in failure(answer, 400, Code.INVALID_FIELD)
    assert answer.json()["errors"][0]["source"] == {"pointer": "/header/Idempotency-Key"}
