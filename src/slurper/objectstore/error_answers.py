"""Tells what an error answer means: from its status and code to one of `slurper.errors`."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from slurper import errors
from slurper.http.client import retry_after_seconds
from slurper.http.dates import http_date
from slurper.http.messages import Response
from slurper.objectstore import documents, strangers, texts

TOKEN_OPERATION = "GetAccessToken"  # noqa: S105 - a name
"""The operation that errors of Google's token endpoint name. It asks for no object."""

_MAX_ADDRESS_CHARACTERS = 200
_USER = re.compile("//[^/]*@")
_ORIGIN = re.compile(r"https?://[\w.:\[\]-]+", re.ASCII | re.IGNORECASE)

_ERROR_DOCUMENT = re.compile(
    r"\ufeff?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?<(?:\w+:)?Error(?:Response)?[\s/>]", re.DOTALL
)
"""How S3's error documents begin."""
_GOOGLE_ERROR = re.compile(r'\s*\{\s*"error"\s*:\s*\{')
"""How those of Google's JSON API begin."""

_BY_CODE: dict[str, type[errors.StoreError]] = {
    code: kind
    for kind, codes in {
        errors.NoSuchBucket: ("NoSuchBucket", "PermanentRedirect", "TemporaryRedirect"),
        errors.NotFound: ("NoSuchKey", "NoSuchUpload", "NoSuchVersion", "NotFound"),
        errors.CredentialsRejected: (
            "AuthorizationHeaderMalformed",
            "ExpiredToken",
            "InvalidAccessKeyId",
            "InvalidSecurity",
            "InvalidToken",
            "NotSignedUp",
            "RequestExpired",
            "RequestTimeTooSkewed",
            "SignatureDoesNotMatch",
            "TokenRefreshRequired",
            "Unauthorized",
            "authError",
        ),
        errors.AccessDenied: (
            "AccessDenied",
            "AccountProblem",
            "AllAccessDisabled",
            "forbidden",
            "insufficientPermissions",
        ),
        errors.PreconditionFailed: ("PreconditionFailed", "conditionNotMet"),
        errors.RequiresRetrieval: ("InvalidObjectState",),
        errors.Throttled: (
            "BandwidthLimitExceeded",
            "RequestLimitExceeded",
            "RequestThrottled",
            "SlowDown",
            "SlowDownRead",
            "SlowDownWrite",
            "ThrottledException",
            "Throttling",
            "ThrottlingException",
            "TooManyRequests",
            "rateLimitExceeded",
            "userRateLimitExceeded",
        ),
        errors.UnavailableStore: (
            "ConditionalRequestConflict",
            "IncompleteBody",
            "InternalError",
            "OperationAborted",
            "RequestTimeout",
            "ServiceUnavailable",
            "backendError",
            "internalError",
        ),
    }.items()
    for code in codes
}

_BY_STATUS: dict[int, type[errors.StoreError]] = {
    **dict.fromkeys((300, 301, 302, 303, 307, 308), errors.NoSuchBucket),
    401: errors.CredentialsRejected,
    402: errors.AccessDenied,  # for one object or for all: that is found out later
    403: errors.AccessDenied,
    404: errors.NotFound,
    408: errors.UnavailableStore,
    412: errors.PreconditionFailed,
    429: errors.Throttled,
    501: errors.StoreError,
    503: errors.Throttled,
}

_DAMAGED = frozenset({"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch"})
"""The store says that the bytes it got do not match their checksum."""

REPEATABLE = frozenset(
    {"ConditionalRequestConflict", "IncompleteBody", "OperationAborted", "RequestTimeout"}
)
"""Codes that ask for the same request once more, whatever their status."""

GOOGLE_LIMITS = frozenset({"rateLimitExceeded", "userRateLimitExceeded"})
"""Reasons by which Google's JSON API asks to slow down, also with status 403."""


_GOOGLE_LACKS_BUCKET = "The specified bucket does not exist"
"""A message of Google's JSON API. Its reason is the same as for an absent object."""

NOT_UNDERSTOOD = frozenset(
    {"InvalidArgument", "InvalidRequest", "MethodNotAllowed", "NotImplemented"}
)
"""Codes of stores that do not know a parameter."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What an error document says, cleaned."""

    code: str = ""
    message: str = ""
    """What may be shown: the store's message, or which kind of answer came instead."""
    said: str = ""
    """The beginning of what the answer says, to recognise its cause. It is not to be shown."""
    region: str = ""
    """Where the bucket is, when the store says so."""
    request_id: str = ""
    archive: str = ""
    """The archive tier or class of an object that must be restored first."""
    is_strange: bool = False
    """It says something, and is no document of a store."""
    is_page: bool = False
    """A web page came instead of a store's answer."""
    leads_to: str = ""
    """Address to which it redirects, without its query; empty if a region explains it."""


def read_failure(response: Response, hidden: Sequence[str] = ()) -> Failure:
    """Find what there is to find in an error answer, without the `hidden` secrets. Never raises."""
    text = texts.without(documents.text_of(response), hidden)
    read = _of_google if _GOOGLE_ERROR.match(text) is not None else _of_s3
    return read(response, text, functools.partial(texts.cleaned, hidden=hidden))


def _of_google(response: Response, text: str, cleaned: Callable[..., str]) -> Failure:
    message = documents.member(text, "message")
    return Failure(
        code=cleaned(documents.member(text, "reason")),
        message=cleaned(message),
        said=cleaned(message, documents.MAX_WORDS_CHARACTERS),
        request_id=cleaned(response.headers.get("x-guploader-uploadid", "")),
    )


def _of_s3(response: Response, text: str, cleaned: Callable[..., str]) -> Failure:
    headers, is_stores = response.headers, _ERROR_DOCUMENT.match(text) is not None

    def element(*names: str) -> str:
        found = (documents.raw_element(text, name) for name in names) if is_stores else ()
        return next(filter(None, found), "")

    code, message = cleaned(element("Code")), element("Message")
    region = headers.get("x-amz-bucket-region") or element("Region")
    is_unexplained = not (code or region) and response.status < 500
    redirects = is_unexplained and 300 <= response.status < 400
    said = message if is_stores else documents.words(text)
    return Failure(
        code=code,
        message=cleaned(message) if is_stores else strangers.kind_of(text.encode()),
        said=cleaned(said, documents.MAX_WORDS_CHARACTERS),
        region=cleaned(region),
        request_id=cleaned(headers.get("x-amz-request-id") or element("RequestId")),
        archive=cleaned(element("AccessTier", "StorageClass")),
        is_strange=not is_stores,
        is_page=is_unexplained and documents.is_web_page(text.encode()),
        leads_to=_leads_to(headers) if redirects else "",
    )


def _leads_to(headers: Mapping[str, str]) -> str:
    """Where a redirect leads, without its query and user, because these may hold a secret."""
    address = headers.get("location", "").partition("?")[0].partition("#")[0]
    return texts.cleaned(_USER.sub("//", address), _MAX_ADDRESS_CHARACTERS)


def asks_to_slow_down(response: Response) -> bool:
    """Whether an error answer says that requests come too fast.

    Its code tells. Answers to HEAD and answers of a proxy have no code. They ask to slow down if
    they have a Retry-After header. Without one they may still mean that. A rate limit holds for all
    requests. So if the store serves another request, it is probably something else.
    """
    code = read_failure(response).code
    if code:
        return _BY_CODE.get(code) is errors.Throttled
    return retry_after_seconds(response.headers) is not None


def to_error(
    response: Response,
    operation: str,
    *,
    bucket: str,
    key: str | None,
    origin: str = "",
    hidden: Sequence[str] = (),
) -> errors.SlurperError:
    """Turn an error answer into the exception to raise.

    Args:
        response: An answer that is no success, or a 200 that holds an error document.
        operation: Name of the S3 operation, for the text.
        bucket: The bucket asked.
        key: The key asked; None for operations on the bucket.
        origin: Where the request went. The text names it if the answer does not come from a store.
        hidden: Secrets to hide, in case the store repeats them.
    """
    failure = read_failure(response, hidden)
    detail = _stranger(failure, origin) or failure.message
    if failure.is_strange:
        strangers.log(failure.said, operation=operation, place=origin, status=response.status)
    if failure.code in _DAMAGED:
        return errors.BytesRefused(f"{operation}: the store refused the bytes: {detail}")
    kind = _kind(failure, response.status, key)
    if failure.archive and kind is errors.RequiresRetrieval:
        detail = f"{detail} It is in {failure.archive}.".strip()
    if failure.region and kind in (errors.NoSuchBucket, errors.CredentialsRejected):
        detail = f"{detail} The bucket is in region {failure.region}: set that region.".strip()
    if failure.region and kind is errors.Misdirected:
        detail = f"{detail} It names the region {failure.region}.".strip()
    return kind(
        operation,
        status=response.status,
        code=failure.code,
        detail=detail,
        said=failure.said,
        bucket=bucket,
        key=key,
        request_id=failure.request_id,
        retries=response.retries,
        is_page=failure.is_page,
        leads_to=failure.leads_to,
    )


_UNKNOWN_OPERATION = frozenset(
    {"MethodNotAllowed", "NotImplemented", "NotSupported", "UnsupportedOperation"}
)


def lacks_uploads(error: Exception) -> bool:
    """Whether a store refused to begin a multipart upload because it has no such uploads."""
    return (
        isinstance(error, errors.StoreError)
        and error.operation == "CreateMultipartUpload"
        and (error.status in (405, 501) or error.code in _UNKNOWN_OPERATION)
    )


def wants_md5(error: errors.StoreError) -> bool:
    """Whether a write was refused because it came without Content-MD5.

    Buckets with a retention rule do that, in stores that know no other checksum.
    """
    said = f"{error.code} {error.said}".casefold()
    return error.status == 400 and ("content-md5" in said or "contentmd5" in said)


def _stranger(failure: Failure, origin: str) -> str:
    """The text for an answer that does not come from a store; empty for other answers."""
    scheme, _, place = origin.partition("://")
    if failure.leads_to:
        is_upgrade = scheme == "http" and failure.leads_to.lower().startswith("https:")
        upgrade = " from http to https" if is_upgrade else ""
        to = _ORIGIN.match(failure.leads_to)
        return f"it redirects{upgrade}, to {to[0] if to else 'another path'}"
    if not failure.is_page:
        return ""
    return f"a web page answers at {place}" if place else "a web page answers"


def of_object(
    error: errors.MalformedAnswer, operation: str, key: str | None
) -> errors.MalformedAnswer:
    """The same error, with the key: often the metadata of one object is the cause."""
    subject = "" if key is None else f" of {key!a}"
    return errors.MalformedAnswer(f"{operation}{subject}: {error}")


def _kind(failure: Failure, status: int, key: str | None) -> type[errors.StoreError]:
    kind = _BY_CODE.get(failure.code) or _by_status(status, key)
    if kind is errors.NotFound and failure.said.startswith(_GOOGLE_LACKS_BUCKET):
        kind = errors.NoSuchBucket
    if kind is errors.NoSuchBucket and key is not None:
        return errors.Misdirected  # other keys may have no such problem
    return kind


def _by_status(status: int, key: str | None) -> type[errors.StoreError]:
    if status == 404 and key is None:
        return errors.NoSuchBucket
    kind = _BY_STATUS.get(status)
    if kind is not None:
        return kind
    return errors.UnavailableStore if status >= 500 else errors.StoreError


def skew_seconds(response: Response, now: float) -> float | None:
    """How far the store's clock is ahead of `now` (Unix time); None if the answer has no date."""
    moment = http_date(response.headers.get("date", ""))
    return None if moment is None else moment.timestamp() - now
