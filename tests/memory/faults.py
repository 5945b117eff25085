"""Faults that a store in memory shows when it is told to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from slurper import errors


@dataclass(slots=True)
class _Fault:
    error: errors.SlurperError
    operation: str | None
    waits_for: int
    times: int
    takes_effect: bool


class Faults:
    """What goes wrong with a store's requests, in the order they come."""

    def __init__(self, *, latency_seconds: float = 0.0) -> None:
        self.latency_seconds = latency_seconds
        """Every request takes this long."""
        self.requests: dict[str, int] = {}
        """How often each operation of the protocol was asked for."""
        self._planned: list[_Fault] = []

    def fail(
        self,
        error: errors.SlurperError,
        *,
        operation: str | None = None,
        nth: int = 1,
        times: int = 1,
        takes_effect: bool = False,
    ) -> None:
        """Raise `error` from the `nth` request on, counted from now, `times` times.

        Args:
            error: Raised as it is.
            operation: Name of a method of the protocol; None means any.
            nth: 1 is the next request.
            times: How many requests in a row fail.
            takes_effect: The request is carried out first, as if only its answer was lost.
        """
        self._planned.append(_Fault(error, operation, nth - 1, times, takes_effect))

    async def begin(self, operation: str) -> errors.SlurperError | None:
        """Count a request; raise its fault, or return the one to raise after it took effect."""
        self.requests[operation] = self.requests.get(operation, 0) + 1
        await asyncio.sleep(self.latency_seconds)
        due: errors.SlurperError | None = None
        for fault in tuple(self._planned):
            if fault.operation not in (None, operation):
                continue
            if fault.waits_for > 0:
                fault.waits_for -= 1
                continue
            if due is None:
                due = self._use(fault)
        return due

    def _use(self, fault: _Fault) -> errors.SlurperError | None:
        fault.times -= 1
        if fault.times == 0:
            self._planned.remove(fault)
        if fault.takes_effect:
            return fault.error
        raise fault.error


def raise_if(error: errors.SlurperError | None) -> None:
    """Raise what `Faults.begin` returned, after the request took effect."""
    if error is not None:
        raise error
