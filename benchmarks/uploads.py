"""Multipart uploads of an nginx endpoint: nginx stores each part as a file, this joins them."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from pathlib import Path

PARTS_FOLDER = ".parts"
"""Below the folder of buckets: part 7 of upload `u` is the file `.parts/u/7`."""

_NUMBER = re.compile(rb"<PartNumber>(\d+)</PartNumber>")


class Uploads:
    """The uploads of the endpoint whose buckets are the folders of `data`."""

    def __init__(self, data: Path) -> None:
        """Begin with none."""
        self._data = data

    def create(self) -> bytes:
        """Answer CreateMultipartUpload."""
        upload_id = secrets.token_hex(8)
        self._folder(upload_id).mkdir(parents=True)
        return (
            "<InitiateMultipartUploadResult>"
            f"<UploadId>{upload_id}</UploadId></InitiateMultipartUploadResult>"
        ).encode()

    def complete(self, path: str, upload_id: str, document: bytes) -> bytes:
        """Answer CompleteMultipartUpload: the named parts become the object at `path`.

        Raises:
            OSError: a part is missing.
        """
        folder = self._folder(upload_id)
        numbers = [int(number) for number in _NUMBER.findall(document)]
        first, *others = (folder / str(number) for number in numbers)
        with first.open("r+b") as joined:
            joined.seek(0, os.SEEK_END)
            for part in others:
                _append(part, joined.fileno())
        target = self._data / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        first.replace(target)
        shutil.rmtree(folder)
        return (
            "<CompleteMultipartUploadResult>"
            f"<ETag>&quot;{upload_id}-{len(numbers)}&quot;</ETag></CompleteMultipartUploadResult>"
        ).encode()

    def abort(self, upload_id: str) -> None:
        """Answer AbortMultipartUpload."""
        shutil.rmtree(self._folder(upload_id), ignore_errors=True)

    def _folder(self, upload_id: str) -> Path:
        return self._data / PARTS_FOLDER / upload_id


def _append(part: Path, joined: int) -> None:
    """Let the kernel copy a part to the end of the joined file, and give its memory back."""
    with part.open("rb") as file:
        while os.sendfile(joined, file.fileno(), None, 1 << 30):
            pass
    part.unlink()
