"""Answers that show a job. It may have ten thousand keys, which make 10 MB.

Such an answer is made in a thread, and sent in pieces: the event loop serves others meanwhile.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator

from fastapi import Response
from fastapi.responses import StreamingResponse

from slurper import offload
from slurper.api import translate
from slurper.api.schemas import Success
from slurper.job import model

_FEW_KEYS = 100
_PIECE_BYTES = 64 << 10
_JSON = "application/json"


async def of_job(job: model.Job) -> Response:
    """Return the answer that shows a job."""
    is_long = len(job.spec.keys or ()) > _FEW_KEYS
    document = await offload.run(functools.partial(_document, job), is_long=is_long)
    if not is_long:
        return Response(document, media_type=_JSON)
    length = {"content-length": str(len(document))}
    return StreamingResponse(_pieces(document), media_type=_JSON, headers=length)


def _document(job: model.Job) -> bytes:
    view = Success(result=translate.job_view(job))
    return view.model_dump_json(by_alias=True).encode()


async def _pieces(document: bytes) -> AsyncIterator[bytes]:
    for begin in range(0, len(document), _PIECE_BYTES):
        yield document[begin : begin + _PIECE_BYTES]
        await asyncio.sleep(0)
