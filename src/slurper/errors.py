"""The exceptions that Slurper raises, as one tree.

    SlurperError
    ├── ConfigurationError      a setting or argument that cannot work
    ├── InvalidField            a field of a request is wrong; `pointer` names it
    ├── TokenRevoked            the token of a request was revoked while it was carried out
    ├── KeyReused               an idempotency key came with two requests that differ
    ├── JobNotFound             no such job in this account
    ├── JobConflict             the job's status does not allow the command
    │   └── JobLimitReached     there are as many active jobs as there may be
    ├── TooManyChecks           no more checks of stores may be under way now
    ├── PrecheckFailed          a side of a new job cannot be reached with what was given
    ├── WorkerLost              the process that ran a task died; the task may be run again
    ├── LeaseLost               another process drives the jobs now; this one may write no more
    ├── LeaseHeld               another process drives the jobs, and the caller did not want to wait
    ├── DatabaseUnavailable     the database is locked, full, read-only or away
    ├── StoreError              the object store answered, and the answer is an error
    │   ├── NotFound            the key (or upload) does not exist
    │   ├── NoSuchBucket        the bucket does not exist
    │   ├── Refused             the store will not do it: for one object, or for all
    │   │   ├── AccessDenied    signed correctly, but not allowed
    │   │   ├── CredentialsRejected  wrong or expired credentials, wrong clock or signature
    │   │   └── Misdirected     a request for one object: redirected, or "no such bucket"
    │   ├── PreconditionFailed  If-Match or If-None-Match did not hold
    │   ├── RequiresRetrieval   archived; must be restored before it can be read
    │   ├── Throttled           503 SlowDown or 429
    │   └── UnavailableStore    5xx and time-outs that the provider itself reports
    ├── TransportError          no complete answer: DNS, connect, TLS, reset, time-out, bad HTTP
    │   ├── EndpointRefused     the endpoint policy forbids the address
    │   ├── TlsRefused          the server's certificate or TLS cannot be accepted
    │   ├── TooManyOpenFiles    no file descriptor is left for a connection; nothing was sent
    │   └── MalformedAnswer     the answer breaks the rules of HTTP
    ├── NotStorable             the target cannot hold the object as it is; nothing was sent
    │   ├── KeyNotKept          it would change the key or lose the bytes
    │   └── HeadersNotKept      it would lose a header that the job requires
    ├── CopyUnfinished          a store copies an object by itself and takes too long
    ├── IntegrityError          bytes or checksum differ from what was announced
    │   ├── ChecksumDisagrees   the source's checksum is not that of the bytes it sent
    │   └── BytesRefused        the target received bytes that do not have their checksum
    └── ListingError            a listing that cannot be trusted or cannot go on
        ├── OutOfOrder          keys come in another order than the store was known to list in
        ├── NoOrder             the store lists in no order that can be used
        └── NotAListing         another answer came: a web page, or that of another interface

Each error answers two questions, so that no caller has to know status codes:

`retryable`    may the same request succeed if it is simply sent again?
`blocks_job`   would every other object of the job fail for the same cause? Then the job is paused,
               and its objects do not fail one by one (design rule 7).

`advice` says what the user can do. It is for log entries and command-line output.
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
"""What the wrong field should hold. The API chooses its error code by this."""


class InvalidField(SlurperError):
    """A field of a request is wrong.

    `pointer` is a JSON pointer (RFC 6901) into the request body, or `/query/<name>`.
    """

    def __init__(self, pointer: str, message: str, kind: FieldKind = "value") -> None:
        super().__init__(message)
        self.pointer = pointer
        self.message = message
        self.kind = kind


class TokenRevoked(SlurperError):
    """The token of a request was revoked while the request was carried out. Nothing was done."""


class KeyReused(SlurperError):
    """A request has the idempotency key of another, different request. Nothing was done."""


class JobNotFound(SlurperError):
    """No job with this id in this account."""


class JobConflict(SlurperError):
    """The job's status does not allow the command."""


class JobLimitReached(JobConflict):
    """The account, or all accounts together, have as many active jobs as the settings allow."""


class TooManyChecks(SlurperError):
    """No place came free for a check in time. Nothing was asked, and nothing was changed."""

    retryable = True


@dataclass(frozen=True, slots=True)
class PrecheckProblem:
    """What is wrong with one side of a job. `pointer` names the request field to change."""

    pointer: str
    message: str
    blocks: bool = True
    """True: the side cannot be used. False: it can be used, and this is a remark."""

    @property
    def side(self) -> str:
        """The side that has the problem: `source` or `target`."""
        return self.pointer.split("/")[1]


class PrecheckFailed(SlurperError):
    """One or both sides of a job cannot be reached with what was given."""

    def __init__(self, problems: tuple[PrecheckProblem, ...]) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems


class WorkerLost(SlurperError):
    """The worker process that ran a task is gone. No result of the task was committed."""

    retryable = True


class LeaseLost(SlurperError):
    """Another process has the lease that a write needs. Nothing was written, and never will be."""


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

    `status` is the HTTP status, `code` the provider's own code ("" if it sent none), `detail` its
    message. `said` is more of what the answer says: the cause is recognised by it, and nobody is
    shown it, because it may not come from a store. `retries` counts how often the request was sent
    again before this answer. `is_page`: a web page came instead of a store's answer. `leads_to` is
    the address in a redirect.
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
        said: str = "",
        is_page: bool = False,
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
        self.said = said
        self.is_page = is_page
        self.leads_to = leads_to
        super().__init__(operation, status, code, detail)

    def __reduce__(self) -> tuple[object, ...]:
        # Pickle cannot call the constructor with `args`, because it has keyword-only parameters.
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

    The answer to a request for one object may be about that object alone, or about everything. A
    copy finds out by asking for something else (`transfer.diagnosis`).
    """


class AccessDenied(Refused):
    """The credentials are valid, but they may not do this."""

    advice = "grant these credentials the permission, or restore access to the object"


class CredentialsRejected(Refused):
    """The credentials are wrong or expired, a clock is wrong, or the signatures differ."""

    advice = "renew the credentials, or set the clock, and resume"
    blocks_job = True


class Misdirected(Refused):
    """A request for one object was redirected, or the answer was that its bucket does not exist.

    Requests for other objects may still reach the bucket. A store, or a proxy before it, may send
    the requests for one key elsewhere. It may also take a part of the key for a bucket's name.
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
    """The provider has a failure that may be temporary: 5xx, or a time-out that it reports."""

    advice = "try again later"
    retryable = True


class TransportError(SlurperError):
    """No complete HTTP response arrived."""

    advice = "check endpoint, network and proxy"
    retryable = True


class EndpointRefused(TransportError):
    """The endpoint policy forbids this address (design rule 12)."""

    advice = "if it is meant, the operator can add it to SLURPER_ALLOWED_ENDPOINTS"
    retryable = False
    blocks_job = True


class TlsRefused(TransportError):
    """The server's certificate is not trusted, or there is no TLS that both sides accept."""

    retryable = False
    blocks_job = True


class TooManyOpenFiles(TransportError):
    """No file descriptor is left, in this process or on this machine. Nothing was sent."""

    advice = (
        "raise `ulimit -n` for this program (LimitNOFILE= of systemd, --ulimit nofile= of Docker), "
        "or lower SLURPER_IN_FLIGHT_REQUESTS"
    )
    blocks_job = True


class MalformedAnswer(TransportError):
    """The answer breaks the rules of HTTP, for example by a control character in a header."""


class NotStorable(SlurperError):
    """The target cannot hold the object as it is, for example because a key breaks a limit.

    This is raised before any byte of the object is sent.
    """

    advice = "shorten it at the source, or copy the object by hand"


class KeyNotKept(NotStorable):
    """The target would store the object under another key or without its bytes, or refuse it."""

    advice = "give the object another key at the source, or copy it by hand under another"


class HeadersNotKept(NotStorable):
    """The target would lose a header that the job requires."""

    advice = "copy it to another target, or leave the header out of options.require (--require)"


class CopyUnfinished(SlurperError):
    """A store that copies an object by itself did not finish in time.

    The copy is not visible at the target. Another object may be copied at once.
    """


class IntegrityError(SlurperError):
    """Bytes, length or checksum are not as announced. The object does not count as copied."""

    advice = "the object is damaged at its source or on the way; try it again by key"
    retryable = True


class ChecksumDisagrees(IntegrityError):
    """The source's checksum of an object is not the checksum of the bytes it sent.

    `seen` is the checksum of the bytes, by `algorithm`. When the object is read again, the new
    bytes are compared with it.
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
    """The listing breaks the rules (order, paging, XML) and cannot be continued safely."""

    advice = "the store breaks the listing rules; report it with the name of the provider"
    blocks_job = True


class OutOfOrder(ListingError):
    """Keys come in another order than the store was known to list in.

    The store may have an order of its own; then it is listed in that order. In the listing, the key
    `then` came directly after the key `after`. It should have come before it.
    """

    def __init__(self, message: str, after: str = "", then: str = "") -> None:
        super().__init__(message)
        self.after = after
        self.then = then


class NoOrder(ListingError):
    """A store lists in no known order, and a listing cannot go on after a key in its own order.

    Such a store can only be listed from the first page to the last, by the tokens of its pages.
    """


class NotAListing(ListingError):
    """The answer is no listing: it is a web page, the answer of another interface, or noise.

    `said` is how it begins. That is for the program's own log alone.
    """

    advice = (
        "check the endpoint and its port: a console, a login page or a proxy may answer there "
        "instead of the store"
    )

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said
