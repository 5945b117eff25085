"""Google Cloud Storage over our own HTTP client: its JSON API, and its XML API for large objects.

One store is one bucket. What Google documents, and what follows from it here:

- The answer to a download has no custom metadata, and has content headers that were never set. The
  object's resource tells what is kept beside the bytes. The listing and HEAD return the resource.
  It is remembered for a while, and used if the download has the same generation and
  metageneration. So an object costs one request, or two if they differ.
- Without `Accept-Encoding: gzip`, Google unzips an object that is stored with gzip. If the type of
  the object is itself compressed (an image, a zip file), Google unzips it in any case, unless its
  Cache-Control says `no-transform` (https://cloud.google.com/storage/docs/transcoding). Such an
  object cannot be read as it is stored. Only this object fails, and its error says what helps.
- A generation names one version of the bytes: it is the identity token (`ObjectMeta.etag`).
- Google itself makes copies within Google. `rewrite` takes conditions on the source and on the
  target. It tells the CRC32C of the copy. The copy gets only the headers that the request holds.
- Only the XML API has uploads whose parts can be written at the same time. These uploads know no
  preconditions. So we check that the key is free right before an upload is completed. An object
  that somebody else writes in between is replaced. Uploads in one request have a precondition.
- Objects made of parts have a CRC32C of the whole, which is compared with that of the parts.
- In an upload of parts, metadata that no header can hold is packed into one header. The process
  that completes the object unpacks it.
"""

from __future__ import annotations

from typing_extensions import override

from slurper import errors
from slurper.http.messages import Request
from slurper.objectstore.gcs.listing import Listing
from slurper.objectstore.gcs.reading import Reading
from slurper.objectstore.gcs.uploads import Uploads
from slurper.objectstore.gcs.writing import Writing


class GcsObjectStore(Listing, Reading, Writing, Uploads):
    """One bucket of Google Cloud Storage."""

    @override
    async def keeps_versions(self) -> bool:
        """Soft delete keeps what is deleted. It is on unless it was turned off."""
        return True

    @override
    async def delete(self, key: str) -> None:
        try:
            await self._send(
                "objects.delete", Request("DELETE", self._resource_target(key), {}), key
            )
        except errors.NotFound:
            return
