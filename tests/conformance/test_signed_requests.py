"""What only signed requests over a network can show of S3 stores."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from slurper import errors
from slurper.demo.servers import S3Server
from slurper.http.client import TransportOptions
from slurper.objectstore import dialects
from slurper.objectstore.base import Body, ObjectHeaders, StoreAddress
from slurper.objectstore.s3.store import S3ObjectStore
from tests.conformance.conftest import pair_of


@pytest.fixture(params=("ministack", "seaweedfs"))
def address(request: pytest.FixtureRequest, make_bucket: Callable[[S3Server], str]) -> StoreAddress:
    server: S3Server = request.getfixturevalue(request.param)
    return StoreAddress(
        origin=server.endpoint,
        bucket=make_bucket(server),
        region=server.region,
        dialect=dialects.GENERIC,
        credentials=pair_of(server),
        trusted=True,
    )


@pytest.mark.parametrize("hours", [-2, 2])
async def test_a_clock_that_is_off_is_corrected(address: StoreAddress, hours: int) -> None:
    store = S3ObjectStore(address, TransportOptions(), clock=lambda: time.time() + hours * 3600)
    with pytest.raises(errors.NotFound):
        await store.head("k")
    await store.put("k", Body([b"x"]), ObjectHeaders())
    assert (await store.get("k")).body.length == 1
    assert store.statistics.retries == 1
    await store.close()


@pytest.mark.parametrize(
    "value",
    ["a\tb", "a \t\t b", "a   b", "a\xa0b", "a\u3000\u3000b", "1\u202f000", "100% %20 %25", "ü\tü"],
)
async def test_white_space_is_signed_as_stores_sign_it_and_arrives_as_it_is(
    address: StoreAddress, request: pytest.FixtureRequest, value: str
) -> None:
    if not value.isascii() and "ministack" in request.node.callspec.id:
        pytest.skip("ministack keeps metadata beyond ASCII in its own way")
    store = S3ObjectStore(address, TransportOptions())
    sent = ObjectHeaders({"content-type": "text/x"}, {"v": value.encode().decode("latin-1")})
    await store.put("k", Body([b"x"]), sent)
    assert (await store.head("k")).headers.metadata == sent.metadata
    if value.isascii():
        await store.put("k", Body([b"x"]), ObjectHeaders({"content-type": f"text/x; a={value}"}))
        assert (await store.head("k")).headers.content["content-type"] == f"text/x; a={value}"
    await store.close()


async def test_an_untrusted_certificate_stops_the_job(
    seaweedfs_tls: S3Server, address: StoreAddress
) -> None:
    store = S3ObjectStore(replace(address, origin=seaweedfs_tls.endpoint), TransportOptions())
    with pytest.raises(errors.TlsRefused) as refused:
        await store.list_page()
    assert refused.value.blocks_job
    await store.close()
