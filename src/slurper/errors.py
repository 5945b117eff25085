"""Every exception Slurper raises, as one tree.

    SlurperError
    ├── ConfigurationError      a setting or argument that cannot work
    ├── InvalidField            a field of a request is wrong; `pointer` names it
    ├── KeyReused               an idempotency key came with two requests that differ
    ├── JobNotFound             no such job in this account
    ├── JobConflict             the job's status does not allow the command
    │   └── JobLimitReached     one active job too many for the account
    ├── PrecheckFailed          a side of a new job cannot be reached with what was given
    ├── WorkerLost              the process that ran a task died; the task may be run again
    ├── LeaseLost               another process drives the jobs now; this one may write no more
    ├── LeaseHeld               another process drives the jobs, and it was not to be waited for
    ├── DatabaseUnavailable     the database is locked, full, read-only or away
    ├── StoreError              the object store answered, and the answer is an error
    │   ├── NotFound            the key (or upload) does not exist
    │   ├── NoSuchBucket        the bucket does not exist
    │   ├── Refused             the store will not do it: for one object, or for all
    │   │   ├── AccessDenied    signed correctly, not allowed
    │   │   ├── CredentialsRejected  wrong, expired or skewed credentials, or another signature
    │   │   └── Misdirected     asked for one object, it redirects or does not know the bucket
    │   ├── PreconditionFailed  If-Match or If-None-Match did not hold
    │   ├── RequiresRetrieval   archived; must be restored before it can be read
    │   ├── Throttled           503 SlowDown or 429
    │   └── UnavailableStore    5xx and time-outs the provider reports itself
    ├── TransportError          no complete answer: DNS, connect, TLS, reset, time-out, bad HTTP
    │   ├── EndpointRefused     the endpoint policy forbids the address
    │   ├── TlsRefused          the server's certificate or TLS cannot be accepted
    │   └── MalformedAnswer     what came breaks the rules of HTTP
    ├── NotStorable             the target cannot hold the object as it is; nothing was sent
    │   ├── KeyNotKept          it would keep it under another key, or without its bytes
    │   └── HeadersNotKept      it would lose a header that the job requires
    ├── CopyUnfinished          a store takes longer over a copy of its own than one object may
    ├── IntegrityError          bytes or checksum differ from what was announced
    │   ├── ChecksumDisagrees   the source tells another checksum than that of the bytes it sent
    │   └── BytesRefused        the target says that its bytes do not have their checksum
    └── ListingError            a listing that cannot be trusted or cannot go on
        ├── OutOfOrder          keys come in another order than the store is known to list in
        └── NotAListing         what came in its place: a web page, another interface's answer

Two questions are answered by the error itself, so that no caller has to know status codes:

`retryable`    may the same request succeed if it is simply sent again?
`blocks_job`   would every other object of the job fail for the same cause? Then the job is paused
               instead of failing its objects one by one (design rule 7).

`advice` is what the user can do about it, for log entries and command-line output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


class SlurperError(Exception):
    """Base of all errors raised on purpose."""

    retryable: ClassVar[bool] = False
    blocks_job: ClassVar[bool] = False
    advice: ClassVar[str] = ""


class ConfigurationError(SlurperError):
    """A setting or command-line argument cannot work; the message names it and the fix."""


FieldKind = Literal["bucket_name", "object_key", "value"]
"""What a wrong field should hold. It decides the error code of the API."""


class InvalidField(SlurperError):
    """A field of a request is wrong.

    `pointer` is a JSON pointer (RFC 6901) into the request body, or `/query/<name>`.
    """

    def __init__(self, pointer: str, message: str, kind: FieldKind = "value") -> None:
        super().__init__(message)
        self.pointer = pointer
        self.message = message
        self.kind = kind


class KeyReused(SlurperError):
    """A request carries the idempotency key of another one; nothing was done."""


class JobNotFound(SlurperError):
    """No job with this id in this account."""


class JobConflict(SlurperError):
    """The job's status does not allow the command."""


class JobLimitReached(JobConflict):
    """The account already has as many active jobs as the settings allow."""


@dataclass(frozen=True, slots=True)
class PrecheckProblem:
    """What is wrong with one side of a job. `pointer` names the request field to change."""

    pointer: str
    message: str
    blocks: bool = True
    """The side cannot be used. Otherwise it can, and this is worth knowing."""


class PrecheckFailed(SlurperError):
    """One or both sides of a job cannot be reached with what was given."""

    def __init__(self, problems: tuple[PrecheckProblem, ...]) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems


class WorkerLost(SlurperError):
    """The worker process that ran a task is gone; nothing of the task was committed."""

    retryable = True


class LeaseLost(SlurperError):
    """The lease that allowed a write has changed hands. Nothing was written, nor ever will be."""


class LeaseHeld(SlurperError):
    """Another process holds the lease; `holder` says which."""

    def __init__(self, message: str, *, holder: str) -> None:
        super().__init__(message)
        self.holder = holder


class DatabaseUnavailable(SlurperError):
    """The database is locked, full, read-only or away. Nothing is left half-done."""

    advice = "free disk space, make the data folder writable, or bring the database back"

    retryable = True


class StoreError(SlurperError):
    """An object store answered with an error.

    `status` is the HTTP status, `code` the provider's own code ("" when it sent none), `detail` its
    message. `retries` counts how often the request had been sent before this answer. `page` is the
    title of the web page that came instead of a store's answer, or None. `leads_to` is the address
    to which a redirect leads.
    """

    advice = "see what the provider says of this code, then try the object again by key"

    def __init__(
        self,
        operation: str,
        *,
        status: int,
        code: str = "",
        detail: str = "",
        bucket: str = "",
        key: str | None = None,
        request_id: str = "",
        retries: int = 0,
        page: str | None = None,
        leads_to: str = "",
    ) -> None:
        self.operation = operation
        self.status = status
        self.code = code
        self.detail = detail
        self.bucket = bucket
        self.key = key
        self.request_id = request_id
        self.retries = retries
        self.page = page
        self.leads_to = leads_to
        super().__init__(operation, status, code, detail)

    def __reduce__(self) -> tuple[object, ...]:
        # The keyword-only constructor cannot be replayed from `args` by pickle.
        return (_rebuild_store_error, (type(self), self.operation, self.__dict__))

    def __str__(self) -> str:
        text = f"{self.operation} answered HTTP {self.status}"
        if self.code:
            text += f" {self.code}"
        if self.detail:
            text += f": {self.detail}"
        if self.request_id:
            text += f" (request {self.request_id})"
        return text


def _rebuild_store_error(
    kind: type[StoreError], operation: str, fields: dict[str, object]
) -> StoreError:
    error = kind(operation, status=0)
    error.__dict__.update(fields)
    return error


class NotFound(StoreError):
    """The key, upload or version does not exist."""

    advice = (
        "it was removed after it was listed, or a list of keys names what is not there; nothing to "
        "do unless it should exist"
    )


class NoSuchBucket(StoreError):
    """The bucket does not exist, or not under this endpoint."""

    advice = "check the bucket name, endpoint and jurisdiction"
    blocks_job = True


class Refused(StoreError):
    """The store will not do this.

    For a request about one object, the answer may mean that object alone or everything. A copy
    finds out which by asking for something else (`transfer.diagnosis`).
    """


class AccessDenied(Refused):
    """The credentials are genuine but may not do this."""

    advice = "grant these credentials the permission, or restore access to the object"


class CredentialsRejected(Refused):
    """The credentials are wrong or expired, the clocks too far apart, or the signatures differ."""

    advice = "renew the credentials, or set the clock, and resume"
    blocks_job = True


class Misdirected(Refused):
    """A request about one object is redirected, or is told that its bucket does not exist.

    Requests for other objects may reach the bucket: a store, or a proxy before it, may send the
    requests for one key elsewhere, or read the name of another bucket in the key.
    """

    advice = "check the bucket's name, its endpoint and region, and what stands before the store"


class PreconditionFailed(StoreError):
    """If-Match or If-None-Match did not hold."""


class RequiresRetrieval(StoreError):
    """The object is archived and must be restored before it can be read."""

    advice = "restore the object at its provider, then copy it by key"


class Throttled(StoreError):
    """The provider asked to slow down."""

    advice = "lower SLURPER_IN_FLIGHT_REQUESTS, or ask the provider for a higher limit"
    retryable = True


class UnavailableStore(StoreError):
    """The provider failed in a way that may pass: 5xx or a time-out it reported itself."""

    advice = "try again later"
    retryable = True


class TransportError(SlurperError):
    """No complete HTTP response arrived."""

    advice = "check endpoint, network and proxy"
    retryable = True


class EndpointRefused(TransportError):
    """The endpoint policy forbids this address (design rule 12)."""

    advice = "set SLURPER_ALLOW_PRIVATE_ENDPOINTS if the address is meant"
    retryable = False
    blocks_job = True


class TlsRefused(TransportError):
    """The server's certificate is not trusted, or there is no TLS both sides accept."""

    retryable = False
    blocks_job = True


class MalformedAnswer(TransportError):
    """What came breaks the rules of HTTP, such as a header with a control character."""


class NotStorable(SlurperError):
    """The target cannot hold the object as it is: its key or metadata breaks a limit.

    Raised before anything of the object is sent.
    """

    advice = "shorten it at the source, or copy the object by hand"


class KeyNotKept(NotStorable):
    """The target would keep the object under another key, or without its bytes, or refuse it."""

    advice = "give the object another key at the source, or copy it by hand under another"


class HeadersNotKept(NotStorable):
    """The target would lose a header that the job requires."""

    advice = "copy it to another target, or leave the header out of options.require (--require)"


class CopyUnfinished(SlurperError):
    """A store that copies an object by itself has not come to an end in time.

    Nothing of the copy can be seen. Another object may be copied at once.
    """


class IntegrityError(SlurperError):
    """Bytes, length or checksum differ from what was announced. Never counted as a copy."""

    advice = "the object is damaged at its source or on the way; try it again by key"
    retryable = True


class ChecksumDisagrees(IntegrityError):
    """The checksum that a source tells is not that of the bytes it has sent.

    `seen` is the checksum of the bytes. It is compared with that of the bytes that come when they
    are read again. `algorithm` is its kind.
    """

    advice = (
        "the object is damaged at its source or on the way, or the source keeps a wrong checksum, "
        "as some stores do after copies of their own; if the bytes are right, copy the object onto "
        "itself at the source, and then try it again by key"
    )

    def __init__(self, message: str, seen: str = "", algorithm: str = "") -> None:
        super().__init__(message)
        self.seen = seen
        self.algorithm = algorithm


class BytesRefused(IntegrityError):
    """The bytes that reached the target do not have the checksum that went with them."""


class ListingError(SlurperError):
    """The listing broke its own rules (order, paging, XML) and cannot be continued safely."""

    advice = "the store breaks the listing rules; report it with the name of the provider"
    blocks_job = True


class OutOfOrder(ListingError):
    """Keys come in another order than the store was taken to list in.

    The store may list in an order of its own; then it is listed in that order. `after` is a key
    that `then` followed in the listing, and `then` should have come before it.
    """

    def __init__(self, message: str, after: str = "", then: str = "") -> None:
        super().__init__(message)
        self.after = after
        self.then = then


class NoOrder(ListingError):
    """A store lists in no order that is known, nor goes on after a key in the order that it shows.

    It can be listed by the tokens of its pages, from the first to the last.
    """


class NotAListing(ListingError):
    """What came in place of a listing: a web page, the answer of another interface, noise."""

    advice = (
        "check the endpoint and its port: a console, a login page or a proxy may answer there "
        "instead of the store"
    )
