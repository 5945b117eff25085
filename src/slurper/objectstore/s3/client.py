"""Sends requests to one bucket: addresses and signs them, and judges the answers.

The requests themselves are in the modules that `store` names.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from typing_extensions import override

from slurper import errors
from slurper.http.client import ClientStatistics, HttpClient, TransportOptions
from slurper.http.dialer import Origin
from slurper.http.messages import Request, Response
from slurper.objectstore import checksums, documents, error_answers, strangers, urls
from slurper.objectstore.base import Body, ProbedStore, StoreAddress
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import Dialect
from slurper.objectstore.presence import BucketPresence
from slurper.objectstore.s3.signing import Signer
from slurper.objectstore.urls import canonical_query
from slurper.objectstore.witness import SERVED, Witness
from slurper.secrets import S3Credentials

_DNS_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{1,61})[a-z0-9]")
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_MOST_TURNS = 2
"""How often a store turns to another region: away, and back if only one object named that region.
"""

_SKEW_TOLERATED_SECONDS = 60.0
_SKEW_REFUSED_SECONDS = 300.0
"""Stores refuse requests whose date is some minutes off; 15 at AWS."""

NOT_KNOWN = frozenset({405, 501})
"""Statuses of a store that does not know the method or the request."""

_LATE_ERROR_BYTES = 64 * 1024
_SECRET_CHARACTERS = 8
"""Shorter secrets are only used in tests. They may be ordinary words, so they are not hidden."""


class BucketClient(ProbedStore):
    """Sends requests to one bucket, and judges their answers."""

    def __init__(
        self,
        address: StoreAddress,
        options: TransportOptions,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open a store; no request is sent yet. `clock` gives Unix time, for signatures."""
        if not isinstance(address.credentials, S3Credentials):
            raise errors.ConfigurationError("an S3 store needs an access key id and a secret")
        self._bucket = address.bucket
        self._dialect = address.dialect
        self._credentials = address.credentials
        self._trusted = address.trusted
        self._owner = address.owner
        self._requester_pays = address.requester_pays
        self._options = options
        self._clock = clock
        self._origin = address.origin
        self._retired: list[HttpClient] = []
        self._served_in: str | None = None
        """The region in which a request was served last."""
        self._taught_clock: Response | None = None
        self._presence = BucketPresence(lambda: self.list_page(max_keys=1))
        self._witness = Witness(self._serves_read, self._serves_write)
        self._connect(address.origin, address.region)

    def _connect(self, origin: str, region: str) -> None:
        parts = urlsplit(origin)
        authority, bucket = parts.netloc, urls.path(self._bucket)
        named = re.search("[A-Za-z]", (parts.hostname or "").rpartition(".")[2]) is not None
        if self._dialect.virtual_hosted and named and _DNS_LABEL.fullmatch(self._bucket):
            authority, self._bucket_path, self._key_path = f"{bucket}.{authority}", "/", "/"
        else:
            self._bucket_path, self._key_path = f"/{bucket}", f"/{bucket}/"
        self._origin = origin
        host = Origin.parse(f"{parts.scheme}://{authority}")
        self._signer = Signer(
            self._credentials,
            host=host.authority,
            region=region,
            requester_pays=self._requester_pays,
            clock=self._clock,
        )
        self._client = HttpClient(
            f"{parts.scheme}://{authority}",
            self._options,
            sign=self._signer,
            trusted=self._trusted,
            owner=self._owner,
            should_retry=self._should_retry,
            asks_to_slow_down=error_answers.asks_to_slow_down,
            serves_others=self._serves_others,
            headers={"accept-encoding": self._dialect.accept_encoding},
        )

    @property
    @override
    def dialect(self) -> Dialect:
        return self._dialect

    @property
    @override
    def statistics(self) -> ClientStatistics:
        return self._client.statistics

    @override
    async def close(self) -> None:
        for client in (*self._retired, self._client):
            await client.close()

    # Sending

    def _target(self, key: str, *parameters: tuple[str, str]) -> str:
        path = self._key_path + urls.path(urls.not_empty(key))
        return f"{path}?{canonical_query(parameters)}" if parameters else path

    async def _send(
        self,
        operation: str,
        request: Request,
        key: str | None,
        *,
        max_body_bytes: int | None = documents.MAX_ANSWER_BYTES,
    ) -> Response:
        region = self._signer.region
        try:
            response = await self._client.send(request, max_body_bytes=max_body_bytes)
        except errors.MalformedAnswer as error:
            raise error_answers.of_object(error, operation, key) from error
        if not 200 <= response.status < 300 and self._follow_region(response, region):
            region = self._signer.region
            response = await self._client.send(request, max_body_bytes=max_body_bytes)
        if 200 <= response.status < 300:
            self._served_in = region
            return response
        raise self._error(response, operation, key)

    def _error(self, response: Response, operation: str, key: str | None) -> errors.SlurperError:
        return error_answers.to_error(
            response,
            operation,
            bucket=self._bucket,
            key=key,
            origin=self._origin,
            hidden=self._hidden(),
        )

    def _hidden(self) -> list[str]:
        """What no text may repeat of the credentials."""
        secret, token = self._credentials.secret_access_key, self._credentials.session_token
        return [text for text in (secret, token) if text and len(text) >= _SECRET_CHARACTERS]

    def _unusable(
        self, response: Response, operation: str, key: str, detail: str
    ) -> errors.StoreError:
        return errors.StoreError(
            operation, status=response.status, detail=detail, bucket=self._bucket, key=key
        )

    def _unanswered(
        self, response: Response, operation: str, key: str, lack: str
    ) -> errors.SlurperError:
        """The error for a success that lacks what every store sends with a success.

        The answer is an error that came late, or the page of something between us and the store.
        """
        if documents.holds_error(response):
            return self._error(response, operation, key)
        text = documents.text_of(response)
        what = strangers.kind_of(text.encode()) or "nothing"
        self._log_stranger(response, operation, documents.words(text))
        return errors.TransportError(
            f"{operation} answered HTTP {response.status}, but names {lack}: it sends {what}"
        )

    def _log_stranger(self, response: Response, operation: str, begins: str) -> None:
        """Log how an answer begins that is no store's."""
        strangers.log(
            begins,
            operation=operation,
            place=self._origin,
            status=response.status,
            hidden=self._hidden(),
        )

    # What requests wait for

    async def _serves_others(self, request: Request, since: float, retries: int) -> bool:
        if request.target.partition("?")[0] == self._bucket_path:
            return False  # a listing cannot be given up as one object can
        return await self._witness.serves_others(request, since, retries)

    async def _serves_read(self, target: str) -> bool:
        return await self._is_served(Request("GET", target, {"range": "bytes=0-0"})) is not None

    async def _serves_write(self, target: str) -> bool:
        """Begin an upload for the key of an object, write one part, and abort the upload."""
        path = target.partition("?")[0]
        begin = Request("POST", f"{path}?{canonical_query([('uploads', '')])}", {})
        begun = await self._is_served(begin)
        upload_id = documents.element(documents.text_of(begun), "UploadId") if begun else ""
        if not upload_id:
            return False
        one_part = canonical_query([("partNumber", "1"), ("uploadId", upload_id)])
        body = Body([b"?"])
        sent = {checksums.header_of(Algorithm.MD5): body.checksum(Algorithm.MD5)}  # some need it
        written = await self._is_served(Request("PUT", f"{path}?{one_part}", sent, body.chunks))
        upload = canonical_query([("uploadId", upload_id)])
        await self._is_served(Request("DELETE", f"{path}?{upload}", {}))
        return written is not None

    async def _is_served(self, request: Request) -> Response | None:
        try:
            response = await self._client.send_once(
                request, max_body_bytes=documents.MAX_ANSWER_BYTES
            )
        except (errors.TransportError, errors.IntegrityError):
            return None
        return response if response.status in SERVED else None

    # Second chances

    def _should_retry(self, response: Response) -> bool:
        """Whether to repeat a request, beyond the usual statuses: see `HttpClient`."""
        status = response.status
        if status == 200:
            return self._failed_late(response)
        if status not in (400, 403, 409):
            return False
        code = error_answers.read_failure(response).code
        return code in error_answers.REPEATABLE or (
            status == 403 and self._corrected_clock(response, code)
        )

    def _failed_late(self, response: Response) -> bool:
        """Whether a 200 holds an error that may pass.

        An answer with an ETag is an object, which may hold anything, and is not looked at.
        """
        headers = response.headers
        return (
            "etag" not in headers
            and 0 < response.length <= _LATE_ERROR_BYTES
            and "last-modified" not in headers
            and documents.holds_error(response)
            and error_answers.to_error(response, "", bucket="", key="").retryable
        )

    def _corrected_clock(self, response: Response, code: str) -> bool:
        """Follow the store's clock from now on, if our clock is why the request was refused.

        The answer to HEAD says only 403. There, only a difference that no store tolerates counts.
        An answer may be judged more than once, always with the same result.
        """
        if response is self._taught_clock:
            return True
        skew = error_answers.skew_seconds(response, self._clock())
        if skew is None:
            return False
        if code != "RequestTimeTooSkewed":
            already = abs(skew - self._signer.skew_seconds) < _SKEW_TOLERATED_SECONDS
            if code or already or abs(skew) < _SKEW_REFUSED_SECONDS:
                return False
        elif abs(skew) < _SKEW_TOLERATED_SECONDS:
            return False
        self._signer.skew_seconds = skew
        self._taught_clock = response
        return True

    def _follow_region(self, response: Response, used: str) -> bool:
        """Turn to the region that the store names; True when sending again can help.

        A region in which a request was served is right. An answer that then names another region is
        about one object only.

        Rule 12: no redirect is followed. The name of a region goes into the signature, and into a
        host name only where that stays within the provider's own hosts.
        """
        if response.status not in (301, 307, 308, 400, 403):
            return False
        region = error_answers.read_failure(response).region
        if not region or region == used or not _REGION.fullmatch(region):
            return False
        if region == self._signer.region:
            return True  # another request has turned to it meanwhile
        if self._served_in == self._signer.region or len(self._retired) >= _MOST_TURNS:
            return False
        origin = self._origin_in(region)
        if origin is None:
            return False
        retired, skew = self._client, self._signer.skew_seconds
        self._connect(origin, region)
        self._signer.skew_seconds = skew
        self._client.statistics = retired.statistics
        self._client.statistics.delay = math.inf  # it was that of another server
        self._retired.append(retired)
        return True

    def _origin_in(self, region: str) -> str | None:
        """Where to send for `region`; None when this endpoint cannot be moved."""
        template = self._dialect.regional_host
        if not template:
            return self._origin
        parts = urlsplit(self._origin)
        own = (template.format(region=self._signer.region), self._dialect.global_host)
        if parts.netloc not in own:
            return None
        return f"{parts.scheme}://{template.format(region=region)}"
