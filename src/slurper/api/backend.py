"""What stands behind the routes, opened and closed as one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from slurper.database.tokens import TokenStore
from slurper.jobs.service import JobService
from slurper.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """Everything a request may need."""

    service: JobService
    tokens: TokenStore
    settings: Settings
    registry: CollectorRegistry
    check_health: Callable[[], Awaitable[None]]
    """Returns when the service can work; raises what is in its way."""
