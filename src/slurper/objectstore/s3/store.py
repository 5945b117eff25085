"""The S3 REST interface over our own HTTP client: pages and parts, byte-exact keys.

A store is one bucket. Its requests are in `listing`, `reading`, `writing`, `streaming`, `uploads`
and `copying`. `client` sends them. What differs between providers comes from the `Dialect`.
"""

from __future__ import annotations

from typing_extensions import override

from slurper import errors
from slurper.http.messages import Request
from slurper.objectstore import documents, error_answers
from slurper.objectstore.s3.client import NOT_KNOWN
from slurper.objectstore.s3.copying import Copying
from slurper.objectstore.s3.listing import Listing
from slurper.objectstore.s3.streaming import Streaming
from slurper.objectstore.urls import canonical_query


class S3ObjectStore(Listing, Streaming, Copying):
    """One bucket of an S3-compatible store."""

    @override
    async def keeps_versions(self) -> bool:
        target = f"{self._bucket_path}?{canonical_query([('versioning', '')])}"
        try:
            response = await self._send("GetBucketVersioning", Request("GET", target, {}), None)
        except errors.StoreError as error:
            if error.status not in NOT_KNOWN and error.code not in error_answers.NOT_UNDERSTOOD:
                raise
            return False
        return documents.element(documents.text_of(response), "Status") != ""

    @override
    async def delete(self, key: str) -> None:
        try:
            await self._send("DeleteObject", Request("DELETE", self._target(key), {}), key)
        except errors.NotFound:
            return
