"""Sends requests to one bucket of Google Cloud Storage: adds a token, and judges the answers.

The requests themselves are in the modules that `store` imports.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from typing_extensions import override

from slurper import errors
from slurper.http.client import ClientStatistics, HttpClient, TransportOptions
from slurper.http.messages import Request, Response, header_lines
from slurper.objectstore import documents, error_answers, urls
from slurper.objectstore.base import ObjectMeta, ProbedStore, StoreAddress
from slurper.objectstore.dialects import Dialect
from slurper.objectstore.gcs import resources
from slurper.objectstore.gcs.resources import Resource
from slurper.objectstore.gcs.tokens import Accounts
from slurper.objectstore.presence import BucketPresence
from slurper.objectstore.texts import cleaned
from slurper.objectstore.urls import canonical_query
from slurper.objectstore.witness import SERVED, Witness
from slurper.secrets import GcsCredentials

_NO_SUCH_OBJECT = "No such object"
_DAMAGED = "match calculated"
"""From `Provided CRC32C "..." doesn't match calculated CRC32C "..."`."""

_MAX_RESOURCE_BYTES = 128 << 10
"""Far more than an object's description needs: its metadata has at most 8 KiB."""

_MOST_REMEMBERED = 4096
"""The tasks of a process list about this many objects before they copy them."""


class GcsClient(ProbedStore):
    """Sends requests to one bucket, and judges their answers."""

    def __init__(
        self,
        address: StoreAddress,
        options: TransportOptions,
        *,
        accounts: Accounts | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open a store; no request is sent yet.

        Stores with the same `accounts` share tokens. `clock` gives Unix time, for the tokens.
        """
        if not isinstance(address.credentials, GcsCredentials):
            raise errors.ConfigurationError("Google Cloud Storage needs a service account")
        self._bucket = address.bucket
        self._origin = address.origin
        self._dialect = address.dialect
        self._options = options
        self._clock = clock
        self._remembered = _RememberedResources()
        self._presence = BucketPresence(self._list_one)
        self._accounts = Accounts() if accounts is None else accounts
        self._tokens = self._accounts.join(
            address.credentials,
            address.token_uri,
            options,
            owner=address.owner,
            clock=clock,
        )
        self._client = HttpClient(
            address.origin,
            options,
            sign=self._authorized,
            trusted=address.trusted,
            owner=address.owner,
            should_retry=_should_retry,
            asks_to_slow_down=error_answers.asks_to_slow_down,
            serves_others=self._serves_others,
        )
        self._witness = Witness(self._serves_read, None)  # an upload as a test would cost money
        bucket = urls.segment(self._bucket)
        self._listing_path = f"/storage/v1/b/{bucket}/o"
        self._upload_path = f"/upload/storage/v1/b/{bucket}/o"
        self._xml_path = f"/{bucket}"

    @property
    @override
    def dialect(self) -> Dialect:
        return self._dialect

    @property
    @override
    def statistics(self) -> ClientStatistics:
        """Requests for tokens are not counted."""
        return self._client.statistics

    @override
    async def close(self) -> None:
        await self._accounts.leave(self._tokens)
        await self._client.close()

    # Addresses

    def _resource_target(self, key: str, **parameters: str) -> str:
        """A target of the JSON API. A key is one path segment, so its slashes are encoded."""
        path = f"{self._listing_path}/{urls.segment(urls.not_empty(key))}"
        return f"{path}?{canonical_query(parameters.items())}"

    def _rewrite_target(self, key: str, bucket: str, source: str, **parameters: str) -> str:
        """The target that copies the object `source` of `bucket` to `key` of this bucket."""
        path = (
            f"/storage/v1/b/{urls.segment(bucket)}/o/{urls.segment(source)}"
            f"/rewriteTo/b/{urls.segment(self._bucket)}/o/{urls.segment(urls.not_empty(key))}"
        )
        return f"{path}?{canonical_query(parameters.items())}"

    def _xml_target(self, key: str, *parameters: tuple[str, str]) -> str:
        """A target of the XML API. A key is the rest of the path."""
        path = f"{self._xml_path}/{urls.path(urls.not_empty(key))}"
        return f"{path}?{canonical_query(parameters)}"

    # Sending

    def _authorized(self, _: Request) -> str:
        return header_lines({"authorization": f"Bearer {self._tokens.current}"})

    async def _send(
        self,
        operation: str,
        request: Request,
        key: str | None,
        *,
        max_body_bytes: int | None = documents.MAX_ANSWER_BYTES,
    ) -> Response:
        await self._tokens.ready()
        token = self._tokens.current
        try:
            response = await self._client.send(request, max_body_bytes=max_body_bytes)
        except errors.MalformedAnswer as malformed:
            raise error_answers.of_object(malformed, operation, key) from malformed
        if response.status == 401:
            # The token was revoked, or expired early. If a new token is refused too, that counts.
            self._tokens.forget(token)
            await self._tokens.ready()
            response = await self._client.send(request, max_body_bytes=max_body_bytes)
        if 200 <= response.status < 300:
            return response
        error = self._error(response, operation, key)
        if isinstance(error, errors.NotFound) and not error.detail.startswith(_NO_SUCH_OBJECT):
            await self._presence.confirm()
        raise error

    async def _resource(self, key: str, if_match: str | None = None) -> Resource:
        parameters = {"fields": resources.FIELDS}
        if if_match:
            parameters["ifGenerationMatch"] = resources.generation_of(if_match)
        request = Request("GET", self._resource_target(key, **parameters), {})
        response = await self._send("objects.get", request, key, max_body_bytes=_MAX_RESOURCE_BYTES)
        resource = resources.read_object(b"".join(response.body))
        self._remembered.add([resource])
        return resource

    async def _serves_others(self, request: Request, since: float, retries: int) -> bool:
        if request.target.partition("?")[0] == self._listing_path:
            return False  # a listing cannot be given up as one object can
        return await self._witness.serves_others(request, since, retries)

    async def _serves_read(self, target: str) -> bool:
        try:
            response = await self._client.send_once(
                Request("GET", target, {"range": "bytes=0-0"}),
                max_body_bytes=documents.MAX_ANSWER_BYTES,
            )
        except (errors.TransportError, errors.IntegrityError):
            return False
        return response.status in SERVED

    async def _list_one(self) -> None:
        question = canonical_query([("maxResults", "1"), ("fields", "nextPageToken")])
        await self._send(
            "objects.list", Request("GET", f"{self._listing_path}?{question}", {}), None
        )

    def _error(self, response: Response, operation: str, key: str | None) -> errors.SlurperError:
        error = error_answers.to_error(
            response,
            operation,
            bucket=self._bucket,
            key=key,
            origin=self._origin,
            hidden=[self._tokens.current],
        )
        if response.status == 400 and _DAMAGED in str(error):
            return errors.BytesRefused(f"{operation}: the store refused the bytes: {error}")
        return error

    def _unusable(self, response: Response, operation: str, key: str, what: str) -> Exception:
        return errors.StoreError(
            operation, status=response.status, detail=what, bucket=self._bucket, key=key
        )


def _should_retry(response: Response) -> bool:
    """Whether to repeat a request, beyond the usual statuses: some limits are answered with 403."""
    return (
        response.status == 403
        and error_answers.read_failure(response).code in error_answers.GOOGLE_LIMITS
    )


class _RememberedResources:
    """Resources of listed objects by key, kept until the objects are copied.

    The oldest are dropped when there are too many.
    """

    def __init__(self) -> None:
        self._resources: OrderedDict[str, Resource] = OrderedDict()

    def add(self, items: Sequence[Resource]) -> list[ObjectMeta]:
        """Remember resources; return what a listing says of them. Raises ListingError."""
        try:
            objects = [resources.to_meta(item) for item in items]
        except (ValueError, TypeError, LookupError) as error:
            text = f"the listing holds what is no object: {cleaned(str(error))}"
            raise errors.ListingError(text) from error
        for item in items:
            self._resources[item["name"]] = item
        while len(self._resources) > _MOST_REMEMBERED:
            self._resources.popitem(last=False)
        return objects

    def find(self, key: str, etag: str | None) -> Resource | None:
        """The resource of the version `etag`; None if it is not remembered, or `etag` is empty."""
        resource = self._resources.get(key)
        if resource is None or not etag:
            return None
        return resource if resources.etag_of(resource.get("generation")) == etag else None
