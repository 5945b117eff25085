"""The operations. Twelve are upstream's and two are ours.

Each one parses the request, calls the service once, and puts the result into the envelope.

`SlurperRoute` fixes the order of the checks: first the account id, then the credentials and their
scope, then the size of the body and its JSON, and last the fields. So a caller without a token
cannot make the server read or parse anything large.

Each operation names the scope that it needs, as `x-scope` of its OpenAPI document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from slurper import errors
from slurper.api import answers, auth, members, request_body, schemas, translate
from slurper.api.audit import Call
from slurper.api.backend import Backend
from slurper.api.body_memory import BodyMemory
from slurper.api.delivery import OPENAPI_PARAMETERS, Delivery
from slurper.api.envelope import encodable
from slurper.api.schemas import ConnectivityStatus, ConnectivityView, Success
from slurper.http.places import Owner
from slurper.job import model
from slurper.job.access import Scope

PAGE_SIZE = 50
"""Default and maximum. The SDKs read only one page, so a shorter default would hide jobs."""

_JOB_ID = re.compile(r"[0-9a-f]{64}")
_DECIMAL = re.compile(r"-?[0-9]{1,18}")
"""Numbers of this length fit into a database's integer of 64 bits."""

CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"model": schemas.Failure, "description": "The job's status, or a limit, forbids it"}
}


READS: dict[str, Any] = {"x-scope": Scope.READ.value}
"""Said of an operation that only looks. Whatever else asks a store or changes a job, writes."""

WRITES: dict[str, Any] = {"x-scope": Scope.WRITE.value}


class SlurperRoute(APIRoute):
    """A route that authorizes its caller before it reads the body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that does the checks in this order.

        Raises:
            KeyError: no scope is named. So an operation without one cannot even be imported.
        """
        handle = super().get_route_handler()
        body = self.body_field
        needs = Scope((self.openapi_extra or {})["x-scope"])
        optional = body is not None and not body.field_info.is_required()
        max_bytes = request_body.MAX_KEYLESS_BODY_BYTES
        if members.may_have(body_type(self), "keys"):
            max_bytes = request_body.MAX_BODY_BYTES

        async def handle_in_order(request: Request) -> Response:
            owner = await _authorize(request, self.operation_id, needs)
            if body is None:
                return await handle(request)
            memory: BodyMemory = request.app.state.body_memory
            with memory.claim(owner) as claim:  # a create holds its keys while stores are checked
                request = await request_body.read_json(
                    request, claim, max_bytes=max_bytes, optional=optional
                )
                return await handle(request)

        return handle_in_order


def body_type(route: APIRoute) -> object:
    """Return the type of a route's body; None if the route takes no body."""
    return None if route.body_field is None else route.body_field.field_info.annotation


def backend_of(request: Request) -> Backend:
    """Return the application's backend."""
    backend: Backend = request.app.state.backend
    return backend


async def _authorize(request: Request, operation: str | None, needs: Scope) -> Owner:
    """Let a request in. Returns whose limits count for it. Raises Refusal."""
    account_id, job_id = request.path_params["account_id"], request.path_params.get("job_id")
    auth.check_account_id(account_id)
    call = call_of(request)
    call.operation, call.needs, call.account_id = operation, needs, account_id
    call.job_id = job_id if job_id and _JOB_ID.fullmatch(job_id) else None
    gate: auth.Gate = request.app.state.gate
    await gate.admit(call, request.headers)
    return Owner(account_id, call.who)


def call_of(request: Request) -> Call:
    """Return what the audit log will tell of the request."""
    call: Call = request.state.call
    return call


def _job_id(job_id: str) -> str:
    """Refuse an id of another form as that of a missing job: no job has such an id."""
    if _JOB_ID.fullmatch(job_id) is None:
        raise errors.JobNotFound("no job with this id in this account")
    return job_id


def _decimal(value: object) -> object:
    """Refuse texts such as `1_0`, ` 5` and `5.0`, which pydantic would take for whole numbers."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value) is None:
        raise PydanticCustomError("decimal", "must be a whole number of at most 18 digits")
    return value


OpenCall = Annotated[Call, Depends(call_of)]
OpenBackend = Annotated[Backend, Depends(backend_of)]
JobId = Annotated[str, Depends(_job_id)]
# The bounds must come before the validator. Otherwise they are missing from the schema.
PageLimit = Annotated[
    int, Query(ge=1, le=PAGE_SIZE, description="Entries in the page"), BeforeValidator(_decimal)
]
PageOffset = Annotated[
    int, Query(ge=0, description="Entries before the page"), BeforeValidator(_decimal)
]
# The type has no "or None", because generated clients cannot build a body with two types.
NewSecrets = Annotated[schemas.NewSecrets, Body(default_factory=schemas.NewSecrets)]

router = APIRouter(
    prefix="/accounts/{account_id}/slurper",
    tags=["R2 Super Slurper"],
    route_class=SlurperRoute,
    responses={"4XX": {"model": schemas.Failure, "description": "Any other client error"}},
)


@router.get(
    "/jobs",
    operation_id="slurper-list-jobs",
    summary="List the account's migration jobs, newest first",
    response_description="One page of jobs",
    openapi_extra=READS,
)
async def list_jobs(
    backend: OpenBackend, account_id: str, limit: PageLimit = PAGE_SIZE, offset: PageOffset = 0
) -> Success[list[schemas.JobView]]:
    """Raise `offset` by the number of jobs received until a page comes empty."""
    jobs = await backend.jobs.list_jobs(account_id, limit=limit, offset=offset)
    return Success(result=[translate.job_view(job) for job in jobs])


@router.post(
    "/jobs",
    operation_id="slurper-create-job",
    summary="Create and immediately start a migration job",
    status_code=HTTPStatus.CREATED,
    response_description="Job created",
    responses=CONFLICT,
    openapi_extra={**WRITES, "parameters": OPENAPI_PARAMETERS},
)
async def create_job(
    backend: OpenBackend,
    call: OpenCall,
    account_id: str,
    body: schemas.CreateJob,
    delivery: Delivery,
) -> Success[schemas.JobIdView]:
    """Both sides are checked first; when one cannot be used, no job is made (403)."""
    spec = translate.job_spec(body)
    secrets = translate.job_secrets(body)
    job_id = await backend.service.create(
        account_id, spec, secrets, delivery=delivery, created_by=call.who
    )
    call.made_job_id = job_id
    return Success(result=schemas.JobIdView(id=job_id))


@router.put(
    "/jobs/abortAll",
    operation_id="slurper-abort-all-jobs",
    summary="Abort every running or paused job",
    response_description="All jobs aborted",
    openapi_extra=WRITES,
)
async def abort_all_jobs(backend: OpenBackend, account_id: str) -> Success[str]:
    """Transfers under way finish; no new ones start."""
    await backend.service.abort_all(account_id)
    return Success(result="All jobs aborted")


@router.get(
    "/jobs/{job_id}",
    operation_id="slurper-get-job",
    summary="Read one job",
    response_description="Job details",
    openapi_extra=READS,
    response_model=Success[schemas.JobView],
)
async def get_job(
    request: Request, backend: OpenBackend, account_id: str, job_id: JobId
) -> Response:
    """A job stays readable after its end, until it is deleted."""
    return await _shown(request, await backend.jobs.get_job(account_id, job_id))


@router.delete(
    "/jobs/{job_id}",
    operation_id="slurper-delete-job",
    summary="Delete a finished job",
    response_description="Job deleted",
    responses=CONFLICT,
    openapi_extra=WRITES,
)
async def delete_job(backend: OpenBackend, account_id: str, job_id: JobId) -> Success[str]:
    """Forget a completed or aborted job, its counters and its log."""
    await backend.service.delete(account_id, job_id)
    return Success(result="Job deleted")


@router.patch(
    "/jobs/{job_id}",
    operation_id="slurper-change-job",
    summary="Change the limits of an unfinished job",
    response_description="Job changed",
    response_model=Success[schemas.JobView],
    responses=CONFLICT,
    openapi_extra={**WRITES, "x-extension": True},
)
async def change_job(
    request: Request,
    backend: OpenBackend,
    account_id: str,
    job_id: JobId,
    body: schemas.ChangeJob,
) -> Response:
    """Tasks under way keep the limits they began with, for some seconds."""
    changes = translate.limit_changes(body)
    return await _shown(request, await backend.service.change_limits(account_id, job_id, changes))


async def _shown(request: Request, job: model.Job) -> Response:
    """Return the answer that shows a job."""
    memory: BodyMemory = request.app.state.body_memory
    owner = Owner(job.account_id, call_of(request).who)
    return await answers.of_job(backend_of(request).jobs, job, memory, owner)


@router.put(
    "/jobs/{job_id}/abort",
    operation_id="slurper-abort-job",
    summary="Abort one job",
    response_description="Job aborted",
    responses=CONFLICT,
    openapi_extra=WRITES,
)
async def abort_job(
    backend: OpenBackend, account_id: str, job_id: JobId, delivery: Delivery
) -> Success[str]:
    """Transfers under way finish; no new ones start. An aborted job cannot be resumed."""
    await backend.service.abort(account_id, job_id, delivery=delivery)
    return Success(result="Job aborted")


@router.put(
    "/jobs/{job_id}/pause",
    operation_id="slurper-pause-job",
    summary="Pause a running job",
    response_description="Job paused",
    responses=CONFLICT,
    openapi_extra=WRITES,
)
async def pause_job(
    backend: OpenBackend, account_id: str, job_id: JobId, delivery: Delivery
) -> Success[str]:
    """Transfers under way finish; no new ones start."""
    await backend.service.pause(account_id, job_id, delivery=delivery)
    return Success(result="Job paused")


@router.put(
    "/jobs/{job_id}/resume",
    operation_id="slurper-resume-job",
    summary="Resume a paused job",
    response_description="Job resumed",
    responses=CONFLICT,
    openapi_extra={**WRITES, "requestBody": {"required": False, "x-extension": True}},
)
async def resume_job(
    backend: OpenBackend,
    call: OpenCall,
    account_id: str,
    job_id: JobId,
    body: NewSecrets,
    delivery: Delivery,
) -> Success[str]:
    """The job continues where it stopped. With new secrets, those sides are checked first (403)."""
    source, target = translate.new_credentials(body)
    await backend.service.resume(
        account_id,
        job_id,
        source_credentials=source,
        target_credentials=target,
        delivery=delivery,
        asked_by=call.who,
    )
    return Success(result="Job resumed")


@router.put(
    "/jobs/{job_id}/retryFailed",
    operation_id="slurper-retry-failed",
    summary="Start a job of exactly the objects that failed in an ended one",
    status_code=HTTPStatus.CREATED,
    response_description="Job created",
    responses=CONFLICT,
    openapi_extra={
        **WRITES,
        "parameters": OPENAPI_PARAMETERS,
        "requestBody": {"required": False},
        "x-extension": True,
    },
)
async def retry_failed(
    backend: OpenBackend,
    call: OpenCall,
    account_id: str,
    job_id: JobId,
    body: NewSecrets,
    delivery: Delivery,
) -> Success[schemas.JobIdView]:
    """Same settings, same secrets. Secrets must be given when those of the job are erased."""
    source, target = translate.new_credentials(body)
    new_id = await backend.service.retry_failed(
        account_id,
        job_id,
        source_credentials=source,
        target_credentials=target,
        delivery=delivery,
        created_by=call.who,
    )
    call.made_job_id = new_id
    return Success(result=schemas.JobIdView(id=new_id))


@router.get(
    "/jobs/{job_id}/progress",
    operation_id="slurper-get-job-progress",
    summary="Read the counters of one job",
    response_description="Job progress",
    openapi_extra=READS,
)
async def get_job_progress(
    backend: OpenBackend, account_id: str, job_id: JobId
) -> Success[schemas.JobProgressView]:
    """Counters are exact: an object counts once, when it is settled."""
    progress = await backend.service.progress(account_id, job_id)
    return Success(result=translate.progress_view(progress))


@router.get(
    "/jobs/{job_id}/logs",
    operation_id="slurper-get-job-logs",
    summary="List log entries of one job, oldest first",
    response_description="One page of log entries",
    openapi_extra=READS,
)
async def list_job_logs(
    backend: OpenBackend,
    account_id: str,
    job_id: JobId,
    limit: PageLimit = PAGE_SIZE,
    offset: PageOffset = 0,
) -> Success[list[schemas.JobLogView]]:
    """Every object that was not copied has an entry that says why, except those already there."""
    entries = await backend.jobs.logs(account_id, job_id, limit=limit, offset=offset)
    return Success(result=[translate.log_view(job_id, entry) for entry in entries])


@router.put(
    "/source/connectivity-precheck",
    operation_id="slurper-check-source-connectivity",
    summary="Try the given source credentials",
    response_description="Source checked",
    openapi_extra=WRITES,
)
async def check_source(
    backend: OpenBackend, call: OpenCall, account_id: str, body: schemas.Source
) -> Success[ConnectivityView]:
    """List the source with what is given. What is wrong is in `reasons`, and in `messages`."""
    with _relative_to("/source"):
        problems = await backend.service.precheck_source(
            account_id,
            translate.location(body),
            translate.credentials(body),
            prefix=body.path_prefix or "",
            keys=translate.selected_keys(body),
            asked_by=call.who,
        )
    return _connectivity(problems, "/source")


@router.put(
    "/target/connectivity-precheck",
    operation_id="slurper-check-target-connectivity",
    summary="Try the given target credentials",
    response_description="Target checked",
    openapi_extra=WRITES,
)
async def check_target(
    backend: OpenBackend, call: OpenCall, account_id: str, body: schemas.Target
) -> Success[ConnectivityView]:
    """List the target and begin an upload. What is wrong is in `reasons`, and in `messages`."""
    with _relative_to("/target"):
        problems = await backend.service.precheck_target(
            account_id, translate.location(body), translate.credentials(body), asked_by=call.who
        )
    return _connectivity(problems, "/target")


@contextmanager
def _relative_to(side: str) -> Iterator[None]:
    """Remove the side from the pointers of errors. The body of a precheck is the side itself."""
    try:
        yield
    except errors.InvalidField as error:
        pointer = error.pointer.removeprefix(side)
        raise errors.InvalidField(pointer, error.message, error.kind) from error


def _connectivity(
    problems: Sequence[errors.PrecheckProblem], side: str
) -> Success[ConnectivityView]:
    fails = any(problem.blocks for problem in problems)
    reasons = [
        schemas.ReasonView(
            pointer=problem.pointer.removeprefix(side),
            message=encodable(problem.message),
            blocks=problem.blocks,
        )
        for problem in problems
    ]
    view = ConnectivityView(
        connectivity_status=ConnectivityStatus.ERROR if fails else ConnectivityStatus.SUCCESS,
        reasons=reasons,
    )
    messages = [f"{one.pointer.lstrip('/')}: {one.message}" for one in reasons]
    return Success(result=view, messages=messages)
