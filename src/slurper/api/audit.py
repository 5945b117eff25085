"""Tells in the log who asked for which change, and who could not authenticate.

The lines come from the logger `slurper.audit`. A change and a failed authentication are always
logged, reads only at level `debug`.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from slurper import telemetry
from slurper.job.access import Scope

_log = telemetry.get_logger("slurper.audit")


@dataclass(slots=True, kw_only=True)
class Call:
    """What the log tells of a request. It is filled in while the request is answered."""

    address: str | None
    """Where it came from."""
    operation: str | None = None
    """None: it is none of the API's operations, and is not logged."""
    needs: Scope = Scope.ADMIN
    account_id: str | None = None
    job_id: str | None = None
    """The job that the request names."""
    made_job_id: str | None = None
    """The job that it has made."""
    who: str | None = None
    """The name of the token; None: not known."""
    refused: str | None = None
    """Why it was not let in."""
    unlogged: bool = False
    """It is one of too many that were not let in."""


class Audit:
    """Logs each request when its answer has begun. It wraps the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer a request, and then log it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        call = Call(address=client[0] if client else None)
        scope.setdefault("state", {})["call"] = call
        status: int | None = None

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            status = status or 500  # it is answered outside of this
            raise
        finally:
            if call.operation is not None:
                _tell(call, status)


def _tell(call: Call, status: int | None) -> None:
    """Log a call. Without a status, the client has gone before it was answered."""
    fields = {
        "who": call.who,
        "operation": call.operation,
        "account": call.account_id,
        "job": call.made_job_id or call.job_id,
        "address": call.address,
        "status": status,
    }
    if call.refused is not None:
        tell = _log.debug if call.unlogged else _log.warning
        tell("authentication failed", **fields, reason=call.refused)
    elif call.needs is Scope.READ:
        _log.debug("read", **fields)
    else:
        _log.info("change", **fields)
