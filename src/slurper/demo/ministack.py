"""Ministack, as the demonstration and the tests run it: the same answers for less CPU.

It is its own process: `python -m slurper.demo.ministack`. The environment says where it listens.
"""

from __future__ import annotations

import hashlib
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import uvicorn
from awscrt import checksums
from ministack import app as ministack  # type: ignore[import-untyped]
from ministack.services import s3  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from hashlib import _Hash

KEEP_ALIVE_SECONDS = 75
"""As long as ministack's own server keeps connections that are not used."""

_LARGE = 64 * 1024
_HASHES: dict[tuple[int, int], _Hash] = {}


def _md5(data: bytes = b"") -> _Hash:
    """Hash what was not hashed before.

    Half of the time that a large object takes is its MD5. An upload in parts takes it twice, and
    tests write the same objects again and again. A CRC of 64 bits tells them apart at a tenth of
    the cost.
    """
    if len(data) < _LARGE:
        return hashlib.md5(data)  # noqa: S324 - an ETag
    known = (len(data), checksums.crc64nvme(data))
    if known not in _HASHES:
        _HASHES[known] = hashlib.md5(data)  # noqa: S324
    return _HASHES[known]


def _md5_in_digits(data: bytes) -> str:
    return _md5(data).hexdigest()


def main() -> None:
    """Serve until SIGTERM."""
    # It would compute CRCs byte by byte in Python, in 8 s for 50 MB.
    s3._crc32c, s3._crc64nvme = checksums.crc32c, checksums.crc64nvme  # noqa: SLF001
    s3.md5_hash = _md5_in_digits
    s3.hashlib = SimpleNamespace(**{**vars(hashlib), "md5": _md5})
    # So a reset leaves users and their keys alone.
    ministack._registry_module_names = lambda: ["s3"]  # noqa: SLF001
    # Its own server, Hypercorn, parses HTTP in Python. Without the lifespan it starts none of what
    # S3 does not need: a broker of MQTT, schedulers, a search for containers.
    uvicorn.run(
        ministack.app,
        host=os.environ["BIND_HOST"],
        port=int(os.environ["GATEWAY_PORT"]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,  # ministack writes one
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )


if __name__ == "__main__":
    main()
