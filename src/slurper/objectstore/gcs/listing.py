"""Lists a bucket: pages of its objects by the JSON API, uploads under way by the XML API."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import UTC, datetime

from typing_extensions import override

from slurper import errors
from slurper.http.dates import http_date
from slurper.http.messages import Request, Response
from slurper.objectstore import listing_xml, listings
from slurper.objectstore.base import UNKNOWN_SIZE, ListingPage, ObjectMeta, UploadMeta
from slurper.objectstore.gcs import resources
from slurper.objectstore.gcs.client import GcsClient
from slurper.objectstore.urls import canonical_query

_MAX_KEYS = 1000


class Listing(GcsClient):
    """Requests for listings."""

    @override
    async def list_page(
        self, *, prefix: str = "", start_after: str | None = None, max_keys: int = 1000
    ) -> ListingPage:
        return await listings.asked_again(
            lambda _: self._page(prefix, start_after, max_keys),
            may_wait=self._options.request_retries > 0,
        )

    @override
    async def list_on(self, *, prefix: str = "", token: str = "") -> ListingPage:
        parameters = {"maxResults": str(_MAX_KEYS)}
        parameters["fields"] = f"nextPageToken,items({resources.FIELDS})"
        if prefix:
            parameters["prefix"] = prefix
        response = await self._listed(parameters, token, _MAX_KEYS)
        items, following = resources.read_page(b"".join(response.body))
        objects = self._remembered.add(items)
        listings.check_keys([meta.key for meta in objects], prefix, None)
        return ListingPage(
            objects=objects,
            finished=not following,
            served_at=http_date(response.headers.get("date", "")),
            token=following,
            lacks_sizes=any(meta.size == UNKNOWN_SIZE for meta in objects),
        )

    async def _page(self, prefix: str, start_after: str | None, max_keys: int) -> ListingPage:
        # startOffset is inclusive: the key `start_after` itself may come first, and must not count.
        asked = min(max_keys + (start_after is not None), _MAX_KEYS)
        parameters = {"maxResults": str(asked)}
        parameters["fields"] = f"nextPageToken,items({resources.FIELDS})"
        if prefix:
            parameters["prefix"] = prefix
        if start_after:
            parameters["startOffset"] = start_after
        token, objects, is_placed = "", list[ObjectMeta](), False
        while True:
            response = await self._listed(parameters, token, asked)
            items, following = resources.read_page(b"".join(response.body))
            if start_after and items and items[0].get("name") == start_after:
                is_placed = True
                del items[0]
            del items[asked + 1 :]  # a store may send more than it was asked for
            objects = self._remembered.add(items)
            if objects or not following:
                break
            if following == token:
                raise errors.ListingError("the listing goes on with the same page token")
            token = following
        listings.check_keys([meta.key for meta in objects], prefix, start_after)
        return ListingPage(
            objects=objects[:max_keys],
            finished=not following and len(objects) <= max_keys,
            served_at=http_date(response.headers.get("date", "")),
            is_placed=is_placed,
            lacks_sizes=any(meta.size == UNKNOWN_SIZE for meta in objects),
        )

    async def _listed(self, parameters: dict[str, str], token: str, max_keys: int) -> Response:
        asked = {**parameters, "pageToken": token} if token else parameters
        request = Request("GET", f"{self._listing_path}?{canonical_query(asked.items())}", {})
        try:
            return await self._send(
                "objects.list", request, None, max_body_bytes=self._most_bytes(max_keys)
            )
        except errors.IntegrityError as error:
            raise listings.too_large(max_keys, error) from error

    def _most_bytes(self, max_keys: int | None = None) -> int:
        return listings.most_bytes(max_keys, answers_others=self._options.answers_others)

    @override
    async def list_uploads(self, *, prefix: str = "") -> list[UploadMeta]:
        return await listings.every_upload(self._uploads_page, prefix)

    async def _uploads_page(self, parameters: Sequence[tuple[str, str]]) -> listings.UploadsPage:
        request = Request("GET", f"{self._xml_path}?{canonical_query(parameters)}", {})
        response = await self._send(
            "ListMultipartUploads", request, None, max_body_bytes=self._most_bytes()
        )
        served_at = http_date(response.headers.get("date", ""))
        now = served_at or datetime.fromtimestamp(self._clock(), UTC)
        document = b"".join(response.body)
        parse = functools.partial(listing_xml.parse_uploads, document, now=now)
        shared = self._options.answers_others
        return await listings.read(parse, len(document), answers_others=shared)
