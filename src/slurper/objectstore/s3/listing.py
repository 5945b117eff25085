"""Lists a bucket: pages of its objects, and the uploads under way."""

from __future__ import annotations

import functools
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from typing_extensions import override

from slurper import errors
from slurper.http.client import TransportOptions
from slurper.http.dates import http_date
from slurper.http.messages import Request, Response
from slurper.objectstore import dialects, documents, error_answers, listing_xml, listings
from slurper.objectstore.base import ListingPage, StoreAddress, UploadMeta
from slurper.objectstore.dialects import KeyOrder
from slurper.objectstore.s3 import pages
from slurper.objectstore.s3.client import BucketClient
from slurper.objectstore.s3.echoes import Asked, OtherBucketError
from slurper.objectstore.urls import canonical_query

Read = TypeVar("Read")

_RESTORES = {"x-amz-optional-object-attributes": "RestoreStatus"}

_PAGE_KEYS = 1000

_MOST_EMPTY_PAGES = 1000
"""In a row. After so many pages without a key, the listing fails."""

_AGAIN = {"cache-control": "no-cache"}
"""Sent when a page is asked for again: a cache may have mixed up the first answer."""


class Listing(BucketClient):
    """Requests for listings. `pages` and `listing_xml` read the answers."""

    def __init__(
        self,
        address: StoreAddress,
        options: TransportOptions,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(address, options, clock=clock)
        self._listed_as = self._bucket
        self._is_named = False
        """Whether a page has been read. From then on, `_listed_as` does not change."""
        self._tells_place = False
        """Whether a page has repeated the key after which it begins."""

    @override
    async def list_page(
        self, *, prefix: str = "", start_after: str | None = None, max_keys: int = 1000
    ) -> ListingPage:
        if self._dialect.normalises_keys:
            prefix = unicodedata.normalize("NFC", prefix)
        asked = Asked(prefix, start_after, max_keys)
        page = await self._page(asked)
        tokens = {""}
        while not (page.objects or page.finished):
            if page.token in tokens or len(tokens) > _MOST_EMPTY_PAGES:
                raise errors.ListingError(
                    f"the listing after {start_after!r} says that there is more, but shows no key"
                )
            tokens.add(page.token)
            page = await self._page(replace(asked, token=page.token))
        return page

    @override
    async def list_on(self, *, prefix: str = "", token: str = "") -> ListingPage:
        if self._dialect.normalises_keys:
            prefix = unicodedata.normalize("NFC", prefix)
        page = await self._page(Asked(prefix, None, _PAGE_KEYS, token))
        if not (page.finished or page.token):
            if not page.objects:
                raise errors.ListingError("the listing says that there is more, but not how")
            page.token = page.objects[-1].key  # in version 1 that is the marker
        return page

    async def _page(self, asked: Asked) -> ListingPage:
        """Ask for one page, and again if the answer is a bad page."""
        others: list[str] = []

        async def ask(again: bool) -> ListingPage:
            version = self._dialect.list_version
            named = replace(asked, bucket=self._listed_as, version=version)
            try:
                return await self._list(named, _AGAIN if again else {})
            except OtherBucketError as error:
                # If two answers give the same name, the bucket has that name too, as behind a
                # proxy.
                if not self._is_named and error.name in others:
                    self._listed_as = error.name
                others.append(error.name)
                raise

        page = await listings.asked_again(ask, may_wait=self._options.request_retries > 0)
        self._is_named = True
        if asked.start_after is not None:
            self._tells_place |= page.is_placed
        else:  # no key to repeat: a store that repeats it at other times is trusted
            page.is_placed |= self._tells_place
        return page

    async def _list(self, asked: Asked, headers: dict[str, str]) -> ListingPage:
        try:
            response = await self._ask_for_page(asked, headers)
        except errors.StoreError as error:
            is_told = asked.token or asked.version == 1  # a token means nothing to version 1
            if is_told or error.code not in error_answers.NOT_UNDERSTOOD:
                raise
            return await self._list_by_first_version(asked, error)
        first_version = "it answers ListObjectsV2 as ListObjects, and would begin anew each time"
        try:
            page = await self._read_page(response, asked)
            begins = asked.start_after is None and not asked.token
            if page.is_placed or begins or not self._is_old(response, asked):
                return page
            raise errors.ListingError(first_version)
        except errors.ListingError as error:
            if not self._is_old(response, asked):
                raise
            return await self._list_by_first_version(asked, error)

    async def _list_by_first_version(self, asked: Asked, cause: errors.SlurperError) -> ListingPage:
        """Try ListObjects, and stay with it if it works. Otherwise raise `cause`."""
        first = replace(asked, version=1)
        try:
            page = await self._read_page(await self._ask_for_page(first, {}), first)
        except (errors.StoreError, errors.ListingError):
            raise cause from None
        self._dialect = replace(self._dialect, list_version=1)
        return page

    async def _ask_for_page(self, asked: Asked, headers: dict[str, str]) -> Response:
        wishes = _RESTORES if self._dialect.lists_restores else {}
        query = canonical_query(self._listing_parameters(asked))
        request = Request("GET", f"{self._bucket_path}?{query}", wishes | headers)
        operation = "ListObjects" if asked.version == 1 else "ListObjectsV2"
        try:
            response = await self._send(
                operation, request, None, max_body_bytes=self._most_bytes(asked.max_keys)
            )
        except errors.IntegrityError as error:
            raise listings.too_large(asked.max_keys, error) from error
        if documents.holds_error(response):
            raise self._error(response, operation, None)
        return response

    def _listing_parameters(self, asked: Asked) -> list[tuple[str, str]]:
        first = asked.version == 1
        parameters = [("max-keys", str(asked.max_keys))]
        if not first:
            parameters.append(("list-type", "2"))
        if self._dialect.encoding_type_url:
            parameters.append(("encoding-type", "url"))
        if asked.prefix:
            parameters.append(("prefix", asked.prefix))
        if asked.token and first:
            parameters.append(("marker", asked.token))
        elif asked.start_after:
            parameters.append(("marker" if first else "start-after", asked.start_after))
        if asked.token and not first:
            parameters.append(("continuation-token", asked.token))
        return parameters

    async def _read_page(self, response: Response, asked: Asked) -> ListingPage:
        document = b"".join(response.body)
        listing_xml.refuse_coded(document, response.headers.get("content-encoding", ""))
        parse = functools.partial(
            pages.parse_page,
            document,
            asked,
            order=self._order_of(response),
            served_at=http_date(response.headers.get("date", "")),
            normalised=self._dialect.normalises_keys,
            list_version=asked.version,
            max_bytes=self._most_bytes(asked.max_keys),
        )
        try:
            return await self._read_document(parse, document)
        except errors.NotAListing as error:
            self._log_stranger(response, "ListObjects", error.said)
            raise

    async def _read_document(self, reader: Callable[[], Read], document: bytes) -> Read:
        size = listings.MAX_DOCUMENT_BYTES if listing_xml.is_zipped(document) else len(document)
        shared = self._options.answers_others
        return await listings.read(reader, size, answers_others=shared)

    def _most_bytes(self, max_keys: int | None = None) -> int:
        return listings.most_bytes(max_keys, answers_others=self._options.answers_others)

    def _is_old(self, response: Response, asked: Asked) -> bool:
        """Whether ListObjectsV2 was asked for, but the answer is one of ListObjects."""
        if asked.version != 2:
            return False
        document = listing_xml.unpacked(response, most=self._most_bytes(asked.max_keys))
        return pages.is_of_first_version(document)

    def _order_of(self, response: Response) -> KeyOrder:
        if self._dialect.own_order:
            return KeyOrder.NONE if self._dialect.no_order else KeyOrder.OWN
        return dialects.key_order(response.headers.get("server", ""))

    @override
    async def list_uploads(self, *, prefix: str = "") -> list[UploadMeta]:
        return await listings.every_upload(self._uploads_page, prefix)

    async def _uploads_page(self, parameters: Sequence[tuple[str, str]]) -> listings.UploadsPage:
        request = Request("GET", f"{self._bucket_path}?{canonical_query(parameters)}", {})
        limit = self._most_bytes()
        response = await self._send("ListMultipartUploads", request, None, max_body_bytes=limit)
        served_at = http_date(response.headers.get("date", ""))
        now = served_at or datetime.fromtimestamp(self._clock(), UTC)
        document = listing_xml.unpacked(response, most=limit)
        parse = functools.partial(listing_xml.parse_uploads, document, now=now)
        return await self._read_document(parse, document)
