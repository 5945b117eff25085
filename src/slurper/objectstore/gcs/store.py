"""Google Cloud Storage over our own HTTP client: its JSON API, and its XML API for large objects.

One store is one bucket. What Google documents, and what follows from it here:

- The answer to a download tells no custom metadata and makes up content headers that were never
  set. The object's resource tells what is kept beside the bytes. The listing (and HEAD) brings it
  along. It is remembered for a while, and used if the download has the same generation and
  metageneration. So an object costs one request, or two if they differ.
- Without `Accept-Encoding: gzip` a gzip-stored object would be unzipped on its way. One whose type
  is itself compressed (an image, a zip file) is unzipped all the same, unless its Cache-Control
  says `no-transform` (https://cloud.google.com/storage/docs/transcoding): that object cannot be
  read as it is stored, fails alone, and says what helps.
- A generation names one version of the bytes: it is the identity token (`ObjectMeta.etag`).
- Copies within Google are made by Google: `rewrite` takes a condition on either side, tells the
  CRC32C of what it has made, and gives the copy what the request says and nothing else.
- Uploads in parts written side by side exist in the XML API only, and know no preconditions:
  whether the key is free is looked up right before an upload is completed, which leaves a moment
  in which somebody else's object can be replaced. Single uploads are exact.
- Objects made of parts have a CRC32C of the whole, which is compared with that of the parts.
- Metadata that no header can hold is packed into one that can, and unpacked when an object made of
  parts is complete, by whichever process that does.
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
        """Soft delete keeps what is deleted. It is on unless somebody has turned it off."""
        return True

    @override
    async def delete(self, key: str) -> None:
        try:
            await self._send(
                "objects.delete", Request("DELETE", self._resource_target(key), {}), key
            )
        except errors.NotFound:
            return
