"""The metrics, beside the API or on a port of their own."""

from __future__ import annotations

from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from slurper.api.auth import is_same, limited, presented_tokens
from slurper.api.backend import Backend
from slurper.api.envelope import Code, Problem, failure

PATH = "/metrics"


def create_metrics_app(backend: Backend) -> Starlette:
    """Build an application that has the metrics and nothing else."""
    app = Starlette(routes=[Route(PATH, metrics)])
    app.state.backend = backend
    return app


async def metrics(request: Request) -> Response:
    """The metrics in Prometheus' text format. They need a token if the settings have one."""
    backend: Backend = request.app.state.backend
    token = backend.settings.metrics_token
    if token is not None and not _is_presented(request, token):
        wait = backend.attempts.failed(request.client.host if request.client else None)
        if wait:
            refusal = limited(wait)
            return failure(refusal.status, [refusal.problem], refusal.headers)
        text = "Authentication error: send SLURPER_METRICS_TOKEN in Authorization: Bearer <token>"
        return failure(
            HTTPStatus.UNAUTHORIZED,
            [Problem(Code.AUTHENTICATION, text)],
            {"www-authenticate": "Bearer"},
        )
    return Response(generate_latest(backend.registry), media_type=CONTENT_TYPE_LATEST)


def _is_presented(request: Request, token: SecretStr) -> bool:
    return any(is_same(each, token) for each in presented_tokens(request.headers))
