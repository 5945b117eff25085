"""Deterministic data sets as files of an nginx endpoint.

Content is a function of the key alone, so every run copies the same bytes.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MODIFIED = 1_767_225_600
"""Modification time of every file, seconds: nginx derives the ETag from it and the size."""

PIECE = 16 << 20


@dataclass(frozen=True)
class Dataset:
    """`count` objects of `size` bytes under ten prefixes."""

    count: int
    size: int

    @property
    def bucket(self) -> str:
        """The bucket that holds it at the source."""
        return f"bench-{self.count}-{self.size}"

    @property
    def bytes(self) -> int:
        """Bytes in all."""
        return self.count * self.size

    @property
    def keys(self) -> Iterator[str]:
        """Keys in listing order."""
        per_prefix = -(-self.count // 10)
        for number in range(self.count):
            yield f"p{number // per_prefix:02d}/obj-{number % per_prefix:06d}.bin"


def write(dataset: Dataset, root: Path) -> Path:
    """Write the objects below an endpoint's `root`, unless they are there; return the bucket."""
    folder = root / "data" / dataset.bucket
    done = root / f"{dataset.bucket}.done"
    if done.exists():
        return folder
    for key in dataset.keys:
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_object(path, key, dataset.size)
    done.touch()
    return folder


def _write_object(path: Path, key: str, size: int) -> None:
    with path.open("wb") as file:
        for offset in range(0, size, PIECE):
            generator = random.Random(f"bench:{key}:{offset}")  # noqa: S311 - reproducible bytes
            file.write(generator.randbytes(min(PIECE, size - offset)))
    os.utime(path, (MODIFIED, MODIFIED))
