"""Answers that show a job. It may have ten thousand keys, which make 10 MB.

Such an answer is made in a thread, and sent in pieces: the event loop serves others meanwhile. It
counts as a large body (`api.body_memory`) from when the keys are read until the client has it all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace

from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from slurper import offload
from slurper.api import translate
from slurper.api.body_memory import FREE_BYTES, BodyMemory
from slurper.api.schemas import Success
from slurper.database.reading import MAX_KEYS_READ, JobReader
from slurper.http.places import Owner
from slurper.job import model, rules

_PIECE_BYTES = 64 << 10
_JSON = "application/json"


async def of_job(jobs: JobReader, job: model.Job, memory: BodyMemory, owner: Owner) -> Response:
    """Return the answer that shows a job, with its explicit keys.

    Raises:
        JobNotFound: it was deleted meanwhile.
        Refusal: 429 if there is no room for a long answer.
    """
    count = job.key_count or 0
    if not 0 < count <= MAX_KEYS_READ:
        return Response(_document(job), media_type=_JSON)
    with ExitStack() as stack:
        claim = stack.enter_context(memory.claim(owner))
        length = count * rules.MAX_KEY_BYTES
        await claim.grow(length, length=length)
        keys = await jobs.explicit_keys(job.account_id, job.id)
        whole = replace(job, spec=replace(job.spec, keys=keys))
        document = await offload.run(lambda: _document(whole), is_long=length > FREE_BYTES)
        claim.keep(len(document))
        return _ClaimedAnswer(document, stack.pop_all())


class _ClaimedAnswer(StreamingResponse):
    """An answer that is sent in pieces. `held` is given back when it has been sent, or given up."""

    def __init__(self, document: bytes, held: ExitStack) -> None:
        length = {"content-length": str(len(document))}
        super().__init__(_pieces(document), media_type=_JSON, headers=length)
        self._held = held

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await super().__call__(scope, receive, send)


def _document(job: model.Job) -> bytes:
    view = Success(result=translate.job_view(job))
    return view.model_dump_json(by_alias=True).encode()


async def _pieces(document: bytes) -> AsyncIterator[bytes]:
    for begin in range(0, len(document), _PIECE_BYTES):
        yield document[begin : begin + _PIECE_BYTES]
        await asyncio.sleep(0)
