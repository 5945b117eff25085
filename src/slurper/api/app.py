"""The application: both base paths, every error in the envelope, health, metrics, OpenAPI."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from importlib import metadata
from typing import Any, TypeVar, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from slurper import errors, telemetry
from slurper.api import auth, delivery, metrics, problems, routes
from slurper.api.audit import Audit
from slurper.api.backend import Backend
from slurper.api.body_memory import BodyMemory
from slurper.api.envelope import Code, Problem, Refusal, failure, malformed

BASE_PATHS = ("/client/v4", "")
"""A user may set the `base_url` of a Cloudflare SDK with or without this path. Both must work."""

PRECONNECTIVITY_FAILED = "Preconnectivity failed, please verify tokens and try again"
"""The exact text of Cloudflare's service. Clients look for it."""

RETRY_CHECK_SECONDS = 5
"""When to try again after too many checks: the longest ones end within twice this time."""

_DESCRIPTION = (
    "Copies whole buckets between object stores. This is the API of Cloudflare's R2 Super Slurper, "
    "so the official Cloudflare SDKs drive it when their `base_url` points here."
)
_SECURITY_SCHEMES = {
    "api_token": {"type": "http", "scheme": "bearer"},
    "api_email": {"type": "apiKey", "in": "header", "name": "X-Auth-Email"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-Auth-Key"},
    "user_service_key": {"type": "apiKey", "in": "header", "name": "X-Auth-User-Service-Key"},
}
_SECURITY: list[dict[str, list[str]]] = [
    {"api_token": []},
    {"api_email": [], "api_key": []},
    {"user_service_key": []},
]

Kind = TypeVar("Kind", bound=Exception)

_log = telemetry.get_logger(__name__)


class SlurperApi(FastAPI):
    """FastAPI, with the ways to authenticate in its OpenAPI document.

    Authentication is no FastAPI dependency, because those run after the body has been read.
    """

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        schema = super().openapi()
        schema["components"]["securitySchemes"] = _SECURITY_SCHEMES
        schema["security"] = _SECURITY
        return schema


def create_app(backend: Backend) -> FastAPI:
    """Build the application. The caller has opened what the backend uses, and closes it later."""
    app = SlurperApi(
        title="Slurper",
        version=metadata.version("slurper"),
        description=_DESCRIPTION,
        # Many clients lose the body of a POST in a redirect. So a path with a slash more is a 404.
        redirect_slashes=False,
        redoc_url=None,
        servers=[{"url": base or "/"} for base in BASE_PATHS],
    )
    app.state.backend = backend
    app.state.gate = auth.Gate(backend.tokens, backend.settings.api_token, backend.attempts)
    app.state.body_memory = BodyMemory(backend.settings.request_memory_bytes)
    app.add_middleware(Audit)
    for base in BASE_PATHS:
        app.include_router(routes.router, prefix=base, include_in_schema=base == "")
    app.add_api_route("/healthz", healthz, include_in_schema=False)
    if backend.settings.metrics_port is None:
        app.add_api_route(metrics.PATH, metrics.metrics, include_in_schema=False)
    _answer_errors(app)
    return app


async def healthz(request: Request) -> Response:
    """200 when the database can be read, 503 otherwise; needs no token."""
    await routes.backend_of(request).jobs.list_jobs("healthz", limit=1, offset=0)
    return JSONResponse({"success": True, "errors": [], "messages": [], "result": {"status": "ok"}})


def _answer_errors(app: FastAPI) -> None:
    """Give every exception that may leave a route its status and problems."""

    def answer(kind: type[Kind], build: Callable[[Kind], Response]) -> None:
        async def handle(_request: Request, error: Exception) -> Response:
            assert isinstance(error, kind)  # noqa: S101 - Starlette picks handlers by type
            return build(error)

        app.add_exception_handler(kind, handle)

    answer(Refusal, lambda error: failure(error.status, [error.problem], error.headers))
    answer(errors.InvalidField, _invalid_field)
    answer(errors.TokenRevoked, _token_revoked)
    answer(errors.KeyReused, _key_reused)
    answer(errors.JobNotFound, _job_not_found)
    answer(errors.JobConflict, _job_conflict)
    answer(errors.PrecheckFailed, _precheck_failed)
    answer(errors.TooManyChecks, _too_many_checks)
    answer(errors.DatabaseUnavailable, _database_unavailable)
    answer(errors.TooManyOpenFiles, _too_many_open_files)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, _unexpected)


def _invalid_field(error: errors.InvalidField) -> Response:
    return failure(HTTPStatus.BAD_REQUEST, [problems.from_invalid_field(error)])


def _token_revoked(_error: errors.TokenRevoked) -> Response:
    refusal = auth.revoked()
    return failure(refusal.status, [refusal.problem], refusal.headers)


def _key_reused(error: errors.KeyReused) -> Response:
    problem = problems.named(Code.KEY_REUSED, f"/header/{delivery.KEY_HEADER}", str(error))
    return failure(HTTPStatus.UNPROCESSABLE_ENTITY, [problem])


def _job_not_found(error: errors.JobNotFound) -> Response:
    return failure(HTTPStatus.NOT_FOUND, [Problem(Code.JOB_NOT_FOUND, f"Job not found: {error}")])


def _job_conflict(error: errors.JobConflict) -> Response:
    limit = isinstance(error, errors.JobLimitReached)
    code = Code.JOB_LIMIT if limit else Code.JOB_CONFLICT
    return failure(HTTPStatus.CONFLICT, [Problem(code, str(error))])


def _precheck_failed(error: errors.PrecheckFailed) -> Response:
    causes = [
        problems.named(Code.PRECHECK_FAILED, problem.pointer, problem.message)
        for problem in error.problems
    ]
    first = Problem(Code.PRECHECK_FAILED, PRECONNECTIVITY_FAILED)
    return failure(HTTPStatus.FORBIDDEN, [first, *causes])


def _too_many_checks(error: errors.TooManyChecks) -> Response:
    """The SDKs wait as long as they are told, and send the request again."""
    problem = Problem(Code.TOO_MANY_REQUESTS, str(error))
    headers = {"retry-after": str(RETRY_CHECK_SECONDS)}
    return failure(HTTPStatus.TOO_MANY_REQUESTS, [problem], headers)


def _database_unavailable(error: errors.DatabaseUnavailable) -> Response:
    """Nothing was committed, so the client may try again. The SDKs do that."""
    _log.error("the database cannot be used", error=str(error), advice=error.advice)
    text = (
        "the service cannot use its database at present: it is full, locked, read-only or away, "
        "which the service's log tells; nothing was changed, try again later"
    )
    return failure(HTTPStatus.SERVICE_UNAVAILABLE, [Problem(Code.UNAVAILABLE, text)])


def _too_many_open_files(error: errors.TooManyOpenFiles) -> Response:
    """The stores could not be asked anything, and that says nothing about them."""
    _log.error("stores cannot be asked", error=str(error), advice=error.advice)
    text = (
        "the service has too many open files at present, which its log tells; nothing was changed, "
        "try again later"
    )
    return failure(HTTPStatus.SERVICE_UNAVAILABLE, [Problem(Code.UNAVAILABLE, text)])


async def _validation(request: Request, error: Exception) -> Response:
    """Say what is wrong with the fields of a request, and which names may be meant."""
    found = cast("RequestValidationError", error).errors()
    kind = routes.body_type(request.scope["route"])
    return failure(HTTPStatus.BAD_REQUEST, problems.from_validation(found, kind))


async def _http_exception(request: Request, error: Exception) -> Response:
    """Answer what Starlette and FastAPI themselves refuse: paths, methods, broken requests."""
    refused = cast("HTTPException", error)
    if refused.status_code == HTTPStatus.NOT_FOUND:
        return failure(refused.status_code, [Problem(Code.NO_ROUTE, "No route for the URI")])
    if refused.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        text = f"Method {request.method} not available for the URI"
        headers = {"allow": ", ".join(_allowed_methods(request.url.path))}
        problem = Problem(Code.METHOD_NOT_AVAILABLE, text)
        return failure(refused.status_code, [problem], headers)
    problem = malformed(str(refused.detail)).problem
    return failure(refused.status_code, [problem], refused.headers)


def _allowed_methods(path: str) -> list[str]:
    """Return the methods of all routes with this path. Starlette names only those of the first."""
    paths = {path.removeprefix(base) for base in BASE_PATHS}
    allowed: set[str] = set()
    for route in routes.router.routes:
        if isinstance(route, APIRoute) and any(map(route.path_regex.match, paths)):
            allowed |= route.methods or set()
    return sorted(allowed) or ["GET"]


async def _unexpected(request: Request, _error: Exception) -> Response:
    """Answer a fault of ours. Starlette raises it again after the answer, so the server logs it."""
    # A POST that is sent again could make a second job.
    headers = {"x-should-retry": "false"} if request.method == "POST" else {}
    text = "Internal Server Error: a fault of this server, not of the request; its log says more"
    return failure(HTTPStatus.INTERNAL_SERVER_ERROR, [Problem(Code.INTERNAL, text)], headers)
