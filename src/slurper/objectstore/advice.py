"""What an answer means for the user who set up the job: cause, field of the request, advice.

Providers, programs and proxies in front of them say one thing in many ways, and some of their
answers are misleading. One table holds them all. The check of a new job takes its pointer and its
message from it. The log of a job takes its advice from it.

The first row that fits counts. `KNOWN` rows know a cause. `KINDS` rows are for the rest: the kind
of an error tells at least which field it is about. Their advice is in `precheck`, which knows the
vendor, and in `errors`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from slurper import errors


class Field(Enum):
    """Which part of a side's description has to be changed."""

    SECRET = auto()
    PERMISSION = auto()
    """What the credentials may do."""
    BUCKET = auto()
    REGION = auto()
    """Or R2's jurisdiction."""
    ADDRESS = auto()
    """The endpoint, or another field that decided where the requests went."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """A row: what was seen, what it comes from, and what to do."""

    seen: Callable[[errors.SlurperError], bool]
    field: Field
    cause: str = ""
    """A clause; empty where the error itself says enough."""
    advice: str = ""
    """What to do; empty: the usual advice for the field."""


Seen = Callable[[errors.SlurperError], bool]


def find(error: errors.SlurperError) -> Meaning:
    """The first row that fits an error."""
    return next(row for row in (*KNOWN, *KINDS) if row.seen(error))


def advice_of(error: errors.SlurperError) -> str:
    """The advice for a log entry."""
    known = next((row for row in KNOWN if row.seen(error)), None)
    if known is None or not known.advice:
        return error.advice
    return f"{known.cause}: {known.advice}" if known.cause else known.advice


# What is seen


def _code(*codes: str) -> Seen:
    """The error has one of these codes of a provider."""
    return lambda error: isinstance(error, errors.StoreError) and error.code in codes


def _status(*statuses: int) -> Seen:
    return lambda error: isinstance(error, errors.StoreError) and error.status in statuses


def _says(pattern: str) -> Seen:
    """The words of the answer match the pattern."""
    words = re.compile(pattern, re.IGNORECASE)
    return lambda error: (
        isinstance(error, errors.StoreError)
        and words.search(f"{error.code} {error.detail} {error.said}") is not None
    )


def _reads(pattern: str, *kinds: type[errors.SlurperError]) -> Seen:
    """Our own words match the pattern. They describe an answer that does not come from a store."""
    words = re.compile(pattern, re.IGNORECASE)
    return lambda error: isinstance(error, kinds) and words.search(str(error)) is not None


def _is(*kinds: type[errors.SlurperError]) -> Seen:
    return lambda error: isinstance(error, kinds)


def _asks(*operations: str) -> Seen:
    return lambda error: isinstance(error, errors.StoreError) and error.operation in operations


def _all(*conditions: Seen) -> Seen:
    return lambda error: all(condition(error) for condition in conditions)


def _any(*conditions: Seen) -> Seen:
    return lambda error: any(condition(error) for condition in conditions)


def _without_code(error: errors.SlurperError) -> bool:
    """An answer without a code. A store names one, except to HEAD: that answer has no body."""
    is_store = isinstance(error, errors.StoreError) and not error.code
    return is_store and not _asks("HeadObject", "objects.get", "GetAccessToken")(error)


def _of_bucket(error: errors.SlurperError) -> bool:
    """An operation on the bucket. For a key, even a real store may answer without a code."""
    return isinstance(error, errors.StoreError) and error.key is None


def _is_page(error: errors.SlurperError) -> bool:
    return isinstance(error, errors.StoreError) and error.is_page


def _leads(pattern: str = "") -> Seen:
    """A redirect to an address that matches the pattern."""
    address = re.compile(pattern, re.IGNORECASE)
    return lambda error: (
        isinstance(error, errors.StoreError)
        and error.leads_to != ""
        and address.search(error.leads_to) is not None
    )


_TOKEN = _asks("GetAccessToken")
_LISTS = _asks("ListObjectsV2", "ListObjects", "objects.list")
_REDIRECTED = _status(300, 301, 302, 303, 307, 308)

_KMS = _says(r"kms:\w|kms\.\w|cloud ?kms|kms key|aws kms")

_PORTS = (
    "give the port of the S3 API: usually 9000 for MinIO (its console has 9001 or 9090), 8333 for "
    "SeaweedFS (its filer has 8888, its master 9333)"
)
_OTHER_PROGRAM = f"check the endpoint's host and port; {_PORTS}"
_HTTPS = "begin the endpoint with https://"

KNOWN = (
    # Where the requests went
    Meaning(
        _says("made to API port"),
        Field.ADDRESS,
        "this is the port of MinIO's console",
        "give the port of its API, usually 9000 (the console has 9001 or 9090)",
    ),
    Meaning(
        _any(
            _says("HTTP request to an HTTPS server|plain HTTP request|plain HTTP to an SSL"),
            _reads("answers in TLS", errors.MalformedAnswer),
        ),
        Field.ADDRESS,
        "http is spoken to an https port",
        _HTTPS,
    ),
    Meaning(
        _reads("wrong version number|http request|packet length", errors.TlsRefused),
        Field.ADDRESS,
        "https is spoken to an http port",
        "give the https port, or begin the endpoint with http:// if it is meant to be open",
    ),
    Meaning(
        _reads("it is not valid for", errors.TlsRefused),
        Field.ADDRESS,
        "the certificate is for another host",
        "correct the host name; if it begins with a bucket's name that holds a dot, leave that "
        "name out of the endpoint, because no certificate covers it; or name the certificate's "
        "authority in SLURPER_CA_FILE",
    ),
    Meaning(
        _is(errors.TlsRefused),
        Field.ADDRESS,
        advice="correct the host name, or name the certificate's authority in SLURPER_CA_FILE",
    ),
    Meaning(
        _reads("host name not found", errors.TransportError),
        Field.ADDRESS,
        advice="check how it is spelt, and the name server",
    ),
    Meaning(
        _is(errors.MalformedAnswer),
        Field.ADDRESS,
        "the answer breaks the rules of HTTP",
        "if only one object gets such an answer, correct its metadata at the source; otherwise "
        "check the endpoint, and the proxies before it",
    ),
    # Where the bucket is
    Meaning(
        _code("IllegalLocationConstraintException", "InvalidRegionName", "IllegalRegion"),
        Field.REGION,
    ),
    Meaning(_code("PermanentRedirect", "TemporaryRedirect"), Field.REGION),
    Meaning(_all(_code("AuthorizationHeaderMalformed"), _says(r"the region\b")), Field.REGION),
    Meaning(
        _leads("^https://.*(log-?in|sign-?in|sso|saml|oauth|oidc|/auth)|(log-?in|sign-?in)"),
        Field.ADDRESS,
        "a login stands before the store",
        "give the address of the store's API itself: no redirect is followed, and nobody logs in",
    ),
    Meaning(
        _all(_leads("^https://"), _says("from http to https")),
        Field.ADDRESS,
        "the endpoint wants https",
        _HTTPS,
    ),
    Meaning(
        _leads(),
        Field.ADDRESS,
        "no redirect is followed",
        "give the address it leads to, if that is the store's own",
    ),
    Meaning(_REDIRECTED, Field.REGION),
    # Other programs and other interfaces
    Meaning(
        _any(
            _code("InvalidAuthenticationInfo", "NoAuthenticationInformation"),
            _all(_code("AuthenticationFailed"), _says("Authorization header is formed")),
            _all(_code("InvalidQueryParameterValue"), _says("query parameter")),
        ),
        Field.ADDRESS,
        "Azure's own interface answers",
        "give a store that speaks S3, or put a gateway before this one",
    ),
    Meaning(
        _any(
            _all(_without_code, _says(r"\bDAV\b|WebDAV")),
            _reads("got 'multistatus'", errors.ListingError),
        ),
        Field.ADDRESS,
        "this is a WebDAV server",
        "give the address of an S3 interface; Nextcloud and its like have none",
    ),
    Meaning(
        _all(_is_page, lambda error: not _of_bucket(error)),
        Field.ADDRESS,
        "a web page came for one object",
        "see what stands before the store (a proxy, a firewall), then try the object again by key",
    ),
    Meaning(
        _any(_is_page, _reads("web page", errors.ListingError)),
        Field.ADDRESS,
        "a store never answers with a web page",
        _OTHER_PROGRAM,
    ),
    Meaning(
        _is(errors.NotAListing),
        Field.ADDRESS,
        "this is not the answer of an S3 store, but of a proxy or another program",
        _OTHER_PROGRAM,
    ),
    Meaning(
        _all(_code("required"), _status(401)),
        Field.ADDRESS,
        "the authorization did not arrive",
        "find the proxy before the store that drops the Authorization header",
    ),
    Meaning(
        _all(_without_code, _status(401, 407)),
        Field.ADDRESS,
        "the server wants another kind of login than S3's",
        _OTHER_PROGRAM,
    ),
    Meaning(
        _all(_without_code, _of_bucket, _status(400, 404, 410, 421)),
        Field.ADDRESS,
        "this is not the answer of an S3 store, but of a proxy or another program",
        _OTHER_PROGRAM,
    ),
    # Who asks
    Meaning(
        _says("access key has length"),
        Field.SECRET,
        "this access key id does not belong to this provider",
        "give the Access Key ID and the Secret Access Key of an R2 API token: the id has 32 "
        "characters, the secret 64; Amazon's have 20 and 40, and the token's own value is neither",
    ),
    Meaning(
        _any(
            _code("AuthorizationHeaderMalformed"),
            _says("credential is mal-?formed|malformed credential|invalid credential scope"),
        ),
        Field.SECRET,
        "the access key id holds characters that no id holds",
        "check the access key id and secret for blanks, line breaks and slashes",
    ),
    Meaning(
        _code("InvalidAccessKeyId", "InvalidAccessKey"),
        Field.SECRET,
        "the access key id is not known there",
        "check that it belongs to this provider, account and endpoint, or renew the credentials",
    ),
    Meaning(
        _code("SignatureDoesNotMatch"),
        Field.SECRET,
        "the secret is not that of the access key id, or something on the way changes requests",
        "check the access key id and secret, also for blanks at an end, or renew the credentials",
    ),
    Meaning(
        _any(_code("RequestTimeTooSkewed", "RequestExpired"), _says("reasonable timeframe")),
        Field.ADDRESS,
        "the clock of this machine and that of the store differ",
        "set this machine's clock (NTP), or find out what changes the Date header on the way",
    ),
    Meaning(
        _code("ExpiredToken", "TokenRefreshRequired", "InvalidToken"),
        Field.SECRET,
        "the temporary credentials have expired, or the session token belongs to others",
        "renew the credentials, all three together: access key id, secret and session token",
    ),
    Meaning(
        _all(_TOKEN, _says("account not found|invalid_client|disabled_client|deleted_client")),
        Field.SECRET,
        "Google knows no such service account",
        "check clientEmail, and that the account was not deleted or disabled",
    ),
    Meaning(
        _all(_TOKEN, _says("signature")),
        Field.SECRET,
        "the key does not belong to this service account",
        "check privateKey, and that the key was not deleted",
    ),
    # Who pays
    Meaning(
        _all(_says("requester.pays|UserProjectMissing"), _any(_code("required"), _status(400))),
        Field.BUCKET,
        "the requester has to pay for requests to this bucket",
        "have its owner switch that off: it is not supported at Google",
    ),
    Meaning(
        _says("requester.pays|request.payer"),
        Field.BUCKET,
        "the requester has to pay for requests to this bucket",
        "set SLURPER_REQUESTER_PAYS=true to agree to pay",
    ),
    Meaning(
        _any(
            _code("NotSignedUp", "AccountNotSignedUp", "accessNotConfigured", "SERVICE_DISABLED"),
            _says("not signed up|please enable R2|not entitled|has not been used in project"),
        ),
        Field.SECRET,
        "the account has not switched on its object storage",
        "sign up for it at the provider, or give credentials of an account that has",
    ),
    Meaning(
        _any(
            _code("AccountProblem", "AccountSuspended", "UserSuspended", "accountDisabled"),
            _code("PaymentRequired", "UserProjectAccountProblem", "userProjectAccountProblem"),
            _says(
                "billing account|billing disabled|enable billing|configured billing"
                "|(account|project) .*suspended|in arrears|overdue"
            ),
            _status(402),
        ),
        Field.SECRET,
        "the account is suspended, or its bill is not paid",
        "see the account's billing at the provider, then try again",
    ),
    # Encrypted, archived, deleted
    Meaning(
        _all(_KMS, _says("disabled|invalid ?state|not ?found|pending deletion")),
        Field.PERMISSION,
        "the key that encrypts it is switched off or gone",
        "enable the key at its key service, or copy without these objects",
    ),
    Meaning(
        _KMS,
        Field.PERMISSION,
        "the store encrypts with a key of a key service",
        "give these credentials permission to use the key: kms:Decrypt at a source, "
        "kms:GenerateDataKey and kms:Decrypt at a target",
    ),
    Meaning(
        _all(
            _asks("GetObject", "HeadObject", "CopyObject", "objects.get", "objects.rewrite"),
            _says("server.side encryption|SSE-C|customer.?encryption.?key|encrypted by a customer"),
        ),
        Field.BUCKET,
        "the object is encrypted with a key that only its owner has (SSE-C)",
        "copy it by hand with its key",
    ),
    Meaning(
        _is(errors.RequiresRetrieval),
        Field.BUCKET,
        "it is archived",
        "restore the object at its provider, then copy it by key",
    ),
    Meaning(
        _all(_asks("GetObject", "HeadObject"), _any(_code("MethodNotAllowed"), _status(405))),
        Field.BUCKET,
        "the newest version is a delete marker, or nobody may read the object",
        "nothing is to be done unless the object should exist",
    ),
    # What it cannot do
    Meaning(
        _all(_status(405, 501), _LISTS),
        Field.ADDRESS,
        "the server cannot list a bucket",
        _OTHER_PROGRAM,
    ),
    Meaning(
        _status(405, 501),
        Field.ADDRESS,
        "the store does not know this operation",
        "it is needed: update the store, or use another interface of it",
    ),
    Meaning(
        _code("InvalidBucketName", "AllAccessDisabled"),
        Field.BUCKET,
    ),
)
"""Causes that the text of an answer tells; the first that fits counts."""

KINDS = (
    Meaning(_is(errors.CredentialsRejected), Field.SECRET),
    Meaning(_is(errors.AccessDenied), Field.PERMISSION),
    Meaning(_is(errors.NoSuchBucket, errors.Misdirected, errors.NotFound), Field.BUCKET),
    Meaning(
        _is(errors.Throttled, errors.UnavailableStore),
        Field.ADDRESS,
        advice="try again in a moment",
    ),
    Meaning(_is(errors.StoreError, errors.ListingError, errors.IntegrityError), Field.ADDRESS),
    Meaning(lambda _: True, Field.ADDRESS),
)
"""What the kind of an error tells by itself."""
