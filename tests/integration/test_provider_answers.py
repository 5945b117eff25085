"""What providers, programs and what stands before them answer, and what people are told of it.

Each row plays an answer from a server that knows nothing else. The real check of a job must point
at the right field, and name the cause and what to do.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from slurper import errors
from slurper.demo.servers import S3Server
from slurper.http import resolver
from slurper.http.places import Owner
from slurper.http.resolver import Address
from slurper.job.model import Jurisdiction, Location, Vendor
from slurper.objectstore import advice
from slurper.objectstore.base import StoreAddress
from slurper.objectstore.dialects import GENERIC
from slurper.planning.keyspace import KeyRange
from slurper.secrets import Credentials, S3Credentials
from slurper.service.precheck import Precheck, Side
from slurper.settings import Settings
from slurper.transfer.task import RangeReport, RangeTask
from slurper.transfer.worker import Worker
from tests.e2e import program
from tests.servers.gcs.tokens import ACCOUNT as GOOGLE_ACCOUNT
from tests.servers.seaweedfs import TlsFiles
from tests.unit.http.scripted import Peer, Received, Script, ScriptedServer, answer

ACCOUNT = "d" * 32
PAIR = S3Credentials(access_key_id="AKIDEXAMPLE", secret_access_key="hunter2hunter2")
S3 = Location(vendor=Vendor.S3, bucket="photos", endpoint="set by the test")
R2 = Location(vendor=Vendor.R2, bucket="photos")
R2_EU = replace(R2, jurisdiction=Jurisdiction.EU)
GOOGLE = Location(vendor=Vendor.GCS, bucket="photos")


@dataclass(frozen=True)
class Row:
    """An answer, and what is to be told of it."""

    name: str
    answer: bytes
    field: str
    cause: str
    advice: str
    location: Location = S3


def xml(status: str, code: str, message: str = "", *headers: str, more: str = "") -> bytes:
    text = f"<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
    return answer(text.encode(), "Content-Type: application/xml", *headers, status=status)


def page(status: str, title: str, text: str = "", *headers: str) -> bytes:
    html = f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body>{text}</body></html>"
    return answer(html.encode(), "Content-Type: text/html", *headers, status=status)


def plain(status: str, text: str = "", *headers: str) -> bytes:
    return answer(text.encode(), "Content-Type: text/plain", *headers, status=status)


def google(status: int, reason: str, message: str) -> bytes:
    row = {"message": message, "domain": "global", "reason": reason}
    about = {"error": {"code": status, "message": message, "errors": [row]}}
    body = json.dumps(about).encode()
    return answer(body, "Content-Type: application/json", status=f"{status} X")


def moved(status: str, to: str) -> bytes:
    return answer(b"", f"Location: {to}", status=status)


FORBIDDEN, BAD = "403 Forbidden", "400 Bad Request"
CONSOLE = "the S3 API: usually 9000 for MinIO (its console has 9001 or 9090), 8333 for SeaweedFS"

ROWS = [
    # Credentials
    Row(
        "keys of Amazon given to R2",
        xml(BAD, "InvalidArgument", "Credential access key has length 20, should be 32"),
        "secret",
        "this access key id does not belong to this provider",
        "give the Access Key ID and the Secret Access Key of an R2 API token",
        R2,
    ),
    Row(
        "the secret of an R2 token given as its key id, in R2's endpoint",
        xml(BAD, "InvalidArgument", "Credential access key has length 64, should be 32"),
        "secret",
        "this access key id does not belong to this provider",
        "the id has 32 characters, the secret 64",
    ),
    Row(
        "a blank in the access key id",
        xml(
            BAD,
            "AuthorizationHeaderMalformed",
            "The authorization header is malformed; the Credential is mal-formed; expecting "
            '"&lt;YOUR-AKID&gt;/YYYYMMDD/REGION/SERVICE/aws4_request".',
        ),
        "secret",
        "the access key id holds characters that no id holds",
        "for blanks, line breaks and slashes",
    ),
    Row(
        "an unknown access key id",
        xml(
            FORBIDDEN,
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
        ),
        "secret",
        "the access key id is not known there",
        "belongs to this provider, account and endpoint",
    ),
    Row(
        "another secret",
        xml(FORBIDDEN, "SignatureDoesNotMatch", "The request signature we calculated differs."),
        "secret",
        "the secret is not that of the access key id",
        "check the access key id and secret",
    ),
    Row(
        "credentials that have ended",
        xml(BAD, "ExpiredToken", "The provided token has expired."),
        "secret",
        "the temporary credentials have expired",
        "access key id, secret and session token",
    ),
    Row(
        "a session token of other credentials",
        xml(FORBIDDEN, "InvalidToken", "The provided token is malformed or otherwise invalid."),
        "secret",
        "the session token belongs to others",
        "renew the credentials",
    ),
    Row(
        "no permission",
        xml(FORBIDDEN, "AccessDenied", "Access Denied"),
        "secret",
        "",
        "give these credentials permission to list the bucket",
    ),
    # The region
    Row(
        "a region that R2 does not know",
        xml(BAD, "InvalidRegionName", "The region name 'eu-west-1' is not valid."),
        "region",
        "",
        "give the region the bucket is in (none was given)",
    ),
    Row(
        "the region of another bucket, at an endpoint that names no other",
        xml(
            BAD,
            "AuthorizationHeaderMalformed",
            "The authorization header is malformed; the region 'us-east-1' is wrong; expecting "
            "'eu-west-1'",
        ),
        "region",
        "",
        "give the region the bucket is in",
    ),
    Row(
        "a location that a request in this region cannot reach",
        xml(BAD, "IllegalLocationConstraintException", "The eu-west-1 location is incompatible."),
        "region",
        "",
        "give the region the bucket is in",
    ),
    Row(
        "a redirect that names no place",
        answer(b"", status="301 Moved Permanently"),
        "region",
        "",
        "give the region the bucket is in",
    ),
    Row(
        "another jurisdiction",
        xml("301 Moved Permanently", "PermanentRedirect", "Use the endpoint of the bucket."),
        "jurisdiction",
        "",
        "give the jurisdiction the bucket was made in",
        R2_EU,
    ),
    # The clock
    Row(
        "clocks that differ",
        xml(
            FORBIDDEN,
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            "Date: Thu, 01 Jan 2015 00:00:00 GMT",
        ),
        "endpoint",
        "the clock of this machine and that of the store differ",
        "set this machine's clock (NTP)",
    ),
    # Other ports and other programs
    Row(
        "MinIO's console, in its own words",
        xml(BAD, "InvalidArgument", "S3 API Requests must be made to API port."),
        "endpoint",
        "this is the port of MinIO's console",
        "give the port of its API, usually 9000",
    ),
    Row(
        "a console's page, with 403",
        page(FORBIDDEN, "MinIO Console", "You need to enable JavaScript."),
        "endpoint",
        "a web page answers at 127.0.0.1:",
        f"{CONSOLE}",
    ),
    Row(
        "a console's page, as a success",
        page("200 OK", "MinIO Console", "You need to enable JavaScript."),
        "endpoint",
        "the answer is not a store's but a web page; a store never answers with a web page",
        CONSOLE,
    ),
    Row(
        "a page of a web server that has nothing under this name",
        page("404 Not Found", "404 Not Found", "<center>nginx/1.24.0</center>"),
        "endpoint",
        "HTTP 404: a web page answers at 127.0.0.1:",
        "check the endpoint's host and port",
    ),
    Row(
        "a page that refuses the method",
        page("405 Not Allowed", "405 Not Allowed"),
        "endpoint",
        "a web page",
        CONSOLE,
    ),
    Row(
        "SeaweedFS's master",
        answer(b'{"error":"volume id photos not found"}', status="404 Not Found"),
        "endpoint",
        "this is not the answer of an S3 store",
        "its filer has 8888, its master 9333",
    ),
    Row(
        "SeaweedFS's filer",
        answer(b"", "Server: SeaweedFS 8000GB 4.48", status="404 Not Found"),
        "endpoint",
        "this is not the answer of an S3 store",
        "8333 for SeaweedFS",
    ),
    Row(
        "SeaweedFS's volume server",
        answer(b"", "Server: SeaweedFS Volume 8000GB 4.48", status=BAD),
        "endpoint",
        "this is not the answer of an S3 store",
        "8333 for SeaweedFS",
    ),
    Row(
        "a load balancer without a back end of that name",
        plain("404 Not Found", "default backend - 404"),
        "endpoint",
        "but of a proxy or another program",
        "check the endpoint's host and port",
    ),
    Row(
        "a program that knows no such request",
        plain("501 Not Implemented", "Unsupported method"),
        "endpoint",
        "the server cannot list a bucket",
        "check the endpoint's host and port",
    ),
    Row(
        "a store that knows no such request",
        xml("405 Method Not Allowed", "MethodNotAllowed", "Not allowed."),
        "endpoint",
        "the server cannot list a bucket",
        "check the endpoint's host and port",
    ),
    Row(
        "a login of another kind",
        plain("401 Unauthorized", "", 'WWW-Authenticate: Basic realm="Restricted"'),
        "endpoint",
        "wants another kind of login than S3's",
        "check the endpoint's host and port",
    ),
    Row(
        "a proxy that wants a login",
        plain("407 Proxy Authentication Required"),
        "endpoint",
        "wants another kind of login than S3's",
        "check the endpoint's host and port",
    ),
    Row(
        "WebDAV",
        answer(
            b'<?xml version="1.0"?><d:error xmlns:d="DAV:" xmlns:s="http://sabredav.org/ns">'
            b"<s:exception>Sabre\\DAV\\Exception\\NotAuthenticated</s:exception></d:error>",
            'WWW-Authenticate: Basic realm="Nextcloud"',
            status="401 Unauthorized",
        ),
        "endpoint",
        "this is a WebDAV server",
        "give the address of an S3 interface",
    ),
    Row(
        "Azure's own interface",
        xml(
            BAD,
            "InvalidAuthenticationInfo",
            "Authentication information is not given in the correct format.",
        ),
        "endpoint",
        "Azure's own interface answers",
        "put a gateway before this one",
    ),
    # http and https
    Row(
        "http to an https port, in Go's words",
        plain(BAD, "Client sent an HTTP request to an HTTPS server.\n"),
        "endpoint",
        "http is spoken to an https port",
        "begin the endpoint with https://",
    ),
    Row(
        "http to an https port, in nginx's words",
        page(BAD, "400 The plain HTTP request was sent to HTTPS port", "<h1>400 Bad Request</h1>"),
        "endpoint",
        "http is spoken to an https port",
        "begin the endpoint with https://",
    ),
    Row(
        "http to an https port, in Apache's words",
        page(
            BAD,
            "400 Bad Request",
            "Reason: You're speaking plain HTTP to an SSL-enabled server port.",
        ),
        "endpoint",
        "http is spoken to an https port",
        "begin the endpoint with https://",
    ),
    Row(
        "http to an https port that answers in TLS",
        b"\x15\x03\x03\x00\x02\x02\x46",
        "endpoint",
        "http is spoken to an https port",
        "begin the endpoint with https://",
    ),
    Row(
        "a redirect to https",
        moved("301 Moved Permanently", "https://127.0.0.1:9000/photos?list-type=2"),
        "endpoint",
        "the endpoint wants https",
        "begin the endpoint with https://",
    ),
    # Redirects
    Row(
        "a login page",
        moved("302 Found", "https://login.example/oauth2/authorize?client_id=x&state=s3cr3t"),
        "endpoint",
        "it redirects from http to https, to https://login.example; "
        "a login stands before the store",
        "give the address of the store's API itself",
    ),
    Row(
        "a login page of the same host",
        moved("303 See Other", "/login?next=/photos"),
        "endpoint",
        "a login stands before the store",
        "give the address of the store's API itself",
    ),
    Row(
        "another address",
        moved("307 Temporary Redirect", "http://other.example:8333/photos"),
        "endpoint",
        "it redirects, to http://other.example:8333; no redirect is followed",
        "give the address it leads to",
    ),
    # Accounts
    Row(
        "an account without S3",
        xml(FORBIDDEN, "NotSignedUp", "Your account is not signed up for the S3 service."),
        "secret",
        "the account has not switched on its object storage",
        "sign up for it at the provider",
    ),
    Row(
        "an account without R2",
        xml(FORBIDDEN, "AccessDenied", "Please enable R2 through the Cloudflare Dashboard."),
        "secret",
        "the account has not switched on its object storage",
        "sign up for it at the provider",
        R2,
    ),
    Row(
        "a suspended user",
        xml(FORBIDDEN, "UserSuspended"),
        "secret",
        "the account is suspended, or its bill is not paid",
        "see the account's billing",
    ),
    Row(
        "an account with a problem",
        xml(FORBIDDEN, "AccountProblem", "There is a problem with your AWS account."),
        "secret",
        "the account is suspended, or its bill is not paid",
        "see the account's billing",
    ),
    Row(
        "a bill",
        plain("402 Payment Required", "Payment required"),
        "secret",
        "the account is suspended, or its bill is not paid",
        "see the account's billing",
    ),
    Row(
        "requester pays",
        xml(FORBIDDEN, "AccessDenied", "Bucket is a requester pays bucket."),
        "bucket",
        "the requester has to pay for requests to this bucket",
        "SLURPER_REQUESTER_PAYS=true",
    ),
    # The bucket
    Row(
        "no such bucket",
        xml("404 Not Found", "NoSuchBucket", "The specified bucket does not exist."),
        "bucket",
        "",
        "check its name, and that it is at this endpoint and in this region",
    ),
    Row(
        "a name that no bucket has",
        xml(BAD, "InvalidBucketName", "The specified bucket is not valid."),
        "bucket",
        "",
        "check its name",
    ),
    Row(
        "a bucket that nobody may use",
        xml(FORBIDDEN, "AllAccessDisabled", "All access to this object has been disabled."),
        "bucket",
        "",
        "check its name",
    ),
    # Encryption
    Row(
        "no permission for a key",
        xml(
            FORBIDDEN,
            "AccessDenied",
            "User: arn:aws:iam::1:user/x is not authorized to perform: kms:GenerateDataKey",
        ),
        "secret",
        "the store encrypts with a key of a key service",
        "kms:Decrypt at a source, kms:GenerateDataKey and kms:Decrypt at a target",
    ),
    Row(
        "a key that is switched off",
        xml(BAD, "KMS.DisabledException", "arn:aws:kms:eu-west-1:1:key/2 is disabled."),
        "secret",
        "the key that encrypts it is switched off or gone",
        "enable the key at its key service",
    ),
    # Listings
    Row(
        "JSON",
        answer(b'{"Path": "/photos"}', "Content-Type: application/json"),
        "endpoint",
        "this is not the answer of an S3 store",
        CONSOLE,
    ),
    Row(
        "a listing of another interface",
        answer(b'<?xml version="1.0"?><d:multistatus xmlns:d="DAV:"/>'),
        "endpoint",
        "this is a WebDAV server",
        "give the address of an S3 interface",
    ),
    Row(
        "noise",
        answer(b"\xff\xfe\x00noise"),
        "endpoint",
        "this is not the answer of an S3 store",
        CONSOLE,
    ),
    Row(
        "a listing that is cut off",
        answer(b"<ListBucketResult><IsTruncated>false</IsTr"),
        "endpoint",
        "not complete XML",
        "check that this is an S3-compatible endpoint",
    ),
    # Bytes that are no HTTP
    Row(
        "a header that no parser takes",
        answer(b"", "X-Odd: a\x01b"),
        "endpoint",
        "(header 'X-Odd')",
        "the answer breaks the rules of HTTP",
    ),
    # Google
    Row(
        "Google: an account without a bill",
        google(
            403,
            "accountDisabled",
            "The billing account for the owning project is disabled in state absent",
        ),
        "secret",
        "the account is suspended, or its bill is not paid",
        "see the account's billing",
        GOOGLE,
    ),
    Row(
        "Google: a project with a problem",
        google(403, "forbidden", "The project 123 has been suspended."),
        "secret",
        "the account is suspended, or its bill is not paid",
        "see the account's billing",
        GOOGLE,
    ),
    Row(
        "Google: a project that has not switched it on",
        google(403, "accessNotConfigured", "Cloud Storage API has not been used in project 1."),
        "secret",
        "the account has not switched on its object storage",
        "sign up for it",
        GOOGLE,
    ),
    Row(
        "Google: requester pays",
        google(
            400,
            "required",
            "Bucket is a requester pays bucket but no user project provided.",
        ),
        "bucket",
        "the requester has to pay for requests to this bucket",
        "it is not supported at Google",
        GOOGLE,
    ),
    Row(
        "Google: the authorization got lost",
        google(401, "required", "Login Required"),
        "bucket",
        "the authorization did not arrive",
        "drops the Authorization header",
        GOOGLE,
    ),
    Row(
        "Google: no permission",
        google(403, "forbidden", "sa@x does not have storage.objects.list access."),
        "secret",
        "",
        "give these credentials permission to list the bucket",
        GOOGLE,
    ),
    Row(
        "Google: no such bucket",
        google(404, "notFound", "The specified bucket does not exist."),
        "bucket",
        "",
        "check its name",
        GOOGLE,
    ),
]

TOKEN = answer(b'{"access_token": "t0ken", "expires_in": 3600}')
GRANT = '{{"error": "invalid_grant", "error_description": "{}"}}'
TOKENS = [
    ("Invalid JWT Signature.", "secret", "check privateKey"),
    ("Invalid grant: account not found", "secret", "check clientEmail"),
    (
        "Invalid JWT: Token must be a short-lived token and in a reasonable timeframe.",
        "bucket",
        "set this machine's clock (NTP)",
    ),
    ("Bad Request", "secret", "check clientEmail and privateKey"),
]
"""What Google's token endpoint says of a service account, the field, and advice."""


def playing(reply: Callable[[Received], bytes]) -> Script:
    """Answer every request of a connection."""

    async def script(peer: Peer) -> None:
        while True:
            data = reply(await peer.request())
            await peer.send(data)
            if not data.startswith(b"HTTP/"):
                return

    return script


@asynccontextmanager
async def served(
    reply: Callable[[Received], bytes], tls: ssl.SSLContext | None = None
) -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer(playing(reply))
    await server.start(tls)
    try:
        yield server
    finally:
        await server.stop()
    assert server.failures == []


async def problem(side: Side, location: Location, origin: str, **given: object) -> tuple[str, str]:
    """Pointer and message of what keeps a side from being used."""
    credentials: Credentials = PAIR
    if location.vendor is Vendor.GCS:
        credentials = GOOGLE_ACCOUNT
        given |= {"gcs_endpoint": origin, "gcs_token_uri": f"{origin}/token"}
    elif location.vendor is Vendor.R2:
        given |= {"r2_endpoint": origin}
    else:
        location = replace(location, endpoint=origin)
    settings = Settings.model_validate(
        {"allow_http": True, "allow_private_endpoints": True, "data_dir": Path("unused"), **given}
    )
    checks = Precheck(settings)
    address = checks.resolve(side, Owner(ACCOUNT), location, credentials)
    run = checks.source if side is Side.SOURCE else checks.target
    (found,) = (await run(location, address)).problems
    assert found.blocks
    return found.pointer, found.message


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_a_check_names_cause_field_and_advice_of_what_a_provider_answers(
    row: Row, side: Side
) -> None:
    def reply(request: Received) -> bytes:
        return TOKEN if request.line.startswith(b"POST /token") else row.answer

    async with served(reply) as server:
        pointer, message = await problem(side, row.location, server.origin)
    assert pointer == f"/{side}/{row.field}", message
    assert row.cause in message
    assert row.advice in message
    assert "s3cr3t" not in message


@pytest.mark.parametrize(("says", "field", "advice"), TOKENS)
async def test_a_check_names_what_google_has_against_a_service_account(
    says: str, field: str, advice: str
) -> None:
    refusal = answer(GRANT.format(says).encode(), status=BAD)
    async with served(lambda _: refusal) as server:
        pointer, message = await problem(Side.SOURCE, GOOGLE, server.origin)
    assert pointer == f"/source/{field}", message
    assert "invalid_grant" in message
    assert advice in message


async def test_a_check_names_https_that_is_spoken_to_an_http_port() -> None:
    async with served(lambda _: plain(BAD, "what?")) as server:
        origin = server.origin.replace("http:", "https:")

        async def deaf(peer: Peer) -> None:
            await peer.reader.read(1000)
            await peer.send(plain(BAD, "what?"))

        server._scripts = (deaf,)
        pointer, message = await problem(Side.SOURCE, S3, origin)
    assert pointer == "/source/endpoint"
    assert "https is spoken to an http port" in message
    assert "begin the endpoint with http://" in message


async def test_a_check_names_a_certificate_that_does_not_cover_a_name_with_a_dot(
    tls_files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(_host: str) -> list[Address]:
        return [Address(socket.AF_INET, ("127.0.0.1", 0))]

    # The name servers of the machine are not asked.
    monkeypatch.setattr(resolver, "_look_up", here)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls_files.certificate, tls_files.key)
    async with served(lambda _: plain(BAD), context) as server:
        origin = f"https://my.photos.s3.example:{server.port}"
        pointer, message = await problem(Side.SOURCE, S3, origin, ca_file=tls_files.ca)
    assert pointer == "/source/endpoint"
    assert "the certificate is for another host" in message
    assert "holds a dot, leave that name out of the endpoint" in message


# One object


@dataclass(frozen=True)
class Odd:
    """What is answered to the GET, or the PUT, of one object, and what its log entry says."""

    name: str
    answer: bytes
    says: str
    method: bytes = b"GET"


ODD = [
    Odd(
        "a header that no parser takes",
        answer(b"x", 'ETag: "e"', "x-amz-meta-note: a\x01b"),
        "GetObject of 'odd': 127.0.0.1:{port}: not HTTP/1.1: Invalid header value char "
        "(header 'x-amz-meta-note')",
    ),
    Odd(
        "a name of a header that no parser takes",
        answer(b"x", 'ETag: "e"', "x-amz-meta-my note: a"),
        "(header 'x-amz-meta-my note')",
    ),
    Odd(
        "a key that may not be used",
        xml(FORBIDDEN, "AccessDenied", "not authorized to perform: kms:Decrypt on the resource"),
        "permission to use the key: kms:Decrypt at a source",
    ),
    Odd(
        "a key that only its owner has",
        xml(
            BAD,
            "InvalidRequest",
            "The object was stored using a form of Server Side Encryption. The correct parameters "
            "must be provided to retrieve the object.",
        ),
        "a key that only its owner has (SSE-C): copy it by hand with its key",
    ),
    Odd(
        "a delete marker",
        xml("405 Method Not Allowed", "MethodNotAllowed", "", "x-amz-delete-marker: true"),
        "the newest version is a delete marker",
    ),
    Odd(
        "an archive",
        xml(FORBIDDEN, "InvalidObjectState", "The operation is not valid for the class."),
        "it is archived: restore the object at its provider, then copy it by key",
    ),
    Odd(
        "a page of a firewall",
        page(FORBIDDEN, "Blocked", "Our firewall does not like this file."),
        "a web page came for one object: see what stands before the store",
    ),
    Odd(
        "a target that does not know it",
        xml("501 Not Implemented", "NotImplemented", "A header you provided is not implemented."),
        "the store does not know this operation",
        b"PUT",
    ),
    Odd("no permission", xml(FORBIDDEN, "AccessDenied"), "grant these credentials the permission"),
]

LISTED = b"".join(
    b'<Contents><Key>%s</Key><Size>1</Size><ETag>"e"</ETag></Contents>' % key
    for key in (b"fine", b"odd")
)
LISTING = answer(
    b"<ListBucketResult><Name>photos</Name><IsTruncated>false</IsTruncated>%s</ListBucketResult>"
    % LISTED
)
NOTHING = answer(b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
BEGUN = answer(
    b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
)
FINE = answer(b"x", 'ETag: "e"', "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT")


def both_buckets(odd: Odd) -> Callable[[Received], bytes]:
    """A source of two objects, and a target that takes everything except what is odd."""

    def reply(request: Received) -> bytes:
        line = request.line
        if b"/odd" in line and line.startswith(odd.method):
            return odd.answer
        if b" /target" in line:
            if line.startswith(b"GET"):
                return NOTHING
            return BEGUN if line.startswith(b"POST") else answer(b"", 'ETag: "e"')
        if b"list-type" in line:
            return NOTHING if b"start-after" in line else LISTING
        return FINE

    return reply


@pytest.mark.parametrize("odd", ODD, ids=[odd.name for odd in ODD])
async def test_the_entry_of_one_object_says_what_its_answer_means(odd: Odd) -> None:
    settings = Settings(object_attempts=1, request_retries=0)
    async with served(both_buckets(odd)) as server:
        port = server.port

        def address(bucket: str) -> StoreAddress:
            return StoreAddress(
                origin=server.origin,
                bucket=bucket,
                region="us-east-1",
                dialect=replace(GENERIC, server_side_copy=False, checksum=None),
                credentials=PAIR,
                trusted=True,
            )

        task = RangeTask(
            job_id="j",
            range_id=1,
            source=address("photos"),
            target=address("target"),
            slice=KeyRange(),
            budget_seconds=100.0,
        )
        worker = Worker(settings)
        report = await worker.run(task)
        await worker.close()
    assert isinstance(report, RangeReport)
    assert (report.halt, report.counts.transferred) == (None, 1)
    (event,) = report.events
    assert event.key == "odd"
    assert odd.says.format(port=port) in event.message
    assert "network and proxy" not in event.message


# The whole program


async def test_a_copy_says_at_its_begin_that_a_console_answers(
    ministack: S3Server, tmp_path: Path
) -> None:
    reply = xml(BAD, "InvalidArgument", "S3 API Requests must be made to API port.")
    async with served(lambda _: reply) as server:
        ended = await _copied(replace(ministack, endpoint=server.origin), ministack, tmp_path)
    assert ended.code != 0
    said = " ".join(ended.err.split())
    assert "this is the port of MinIO's console: give the port of its API" in said


async def _copied(source: S3Server, target: S3Server, folder: Path) -> program.Ended:
    env = program.both_sides(source, target, folder)
    return await asyncio.to_thread(program.run, "copy", "s3://photos", "s3://target", env=env)


# The table itself


@pytest.mark.parametrize("row", advice.KNOWN)
def test_a_row_that_names_a_cause_says_what_to_do(row: advice.Meaning) -> None:
    assert row.advice or not row.cause


@pytest.mark.parametrize(
    "error",
    [
        errors.NotFound("GetObject", status=404, code="NoSuchKey", detail="billing/kms/login.dav"),
        errors.AccessDenied(
            "GetObject", status=403, code="AccessDenied", detail="arn:aws:s3:::kms-b/billing/dav"
        ),
        errors.NotFound("HeadObject", status=404),
        errors.NotFound("GetObject", status=404, detail="not found", key="k"),
        errors.CredentialsRejected("HeadObject", status=401),
        errors.IntegrityError("read 3 bytes"),
        errors.NotStorable("its metadata"),
    ],
)
def test_names_of_objects_are_taken_for_no_cause(error: errors.SlurperError) -> None:
    assert advice.find(error) in advice.KINDS
    assert advice.advice_of(error) == error.advice
