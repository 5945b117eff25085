from __future__ import annotations

import asyncio

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from slurper.server.admission import Admission
from slurper.server.connections import Connections
from slurper.server.limits import Limits


def _waiting_for(may_end: asyncio.Event, began: asyncio.Queue[None]) -> ASGIApp:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        began.put_nowait(None)
        await may_end.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    return app


async def test_more_requests_than_may_be_under_way_get_503() -> None:
    may_end, began = asyncio.Event(), asyncio.Queue[None]()
    admission = Admission(Connections(Limits(connections=2)))
    transport = httpx.ASGITransport(admission.guarding(_waiting_for(may_end, began)))
    async with httpx.AsyncClient(transport=transport, base_url="http://slurper") as client:
        under_way = [asyncio.create_task(client.get("/")) for _ in range(4)]
        for _ in under_way:
            await began.get()
        refused = await client.get("/")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["errors"][0]["code"] == 10043
        may_end.set()
        assert [answer.status_code for answer in await asyncio.gather(*under_way)] == [204] * 4
        assert (await client.get("/")).status_code == 204
