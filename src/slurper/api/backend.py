"""What the routes use to answer requests."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from slurper.api.attempts import Attempts
from slurper.database.reading import JobReader
from slurper.database.tokens import TokenStore
from slurper.service.jobs import JobService
from slurper.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """Everything that a request may need. It is the application's `state.backend`."""

    jobs: JobReader
    service: JobService
    tokens: TokenStore
    """The tokens that are accepted, beside the static token of the settings."""
    settings: Settings
    registry: CollectorRegistry
    """The metrics that `/metrics` shows."""
    attempts: Attempts = field(default_factory=Attempts)
    """The failures to authenticate, at the API and at the metrics."""
