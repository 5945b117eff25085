"""Deterministic data sets as files of an nginx endpoint.

Content is a function of the key alone, so every run copies the same bytes.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MODIFIED = 1_767_225_600
"""Modification time of every file, seconds: nginx derives the ETag from it and the size."""

PAGE = 1000
PIECE = 16 << 20


@dataclass(frozen=True)
class Dataset:
    """`count` objects of `size` bytes under ten prefixes."""

    name: str
    count: int
    size: int

    @property
    def bucket(self) -> str:
        """The bucket that holds it at the source."""
        return f"bench-{self.name}"

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


SMALL = Dataset("small", 20_000, 4 << 10)
MEDIUM = Dataset("medium", 2_000, 1 << 20)
LARGE = Dataset("large", 4, 512 << 20)


def write(dataset: Dataset, root: Path) -> None:
    """Write the objects below an endpoint's `root`, unless they are there."""
    done = root / f"{dataset.name}.done"
    if done.exists():
        return
    for key in dataset.keys:
        path = root / "data" / dataset.bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_object(path, key, dataset.size)
    done.touch()


def _write_object(path: Path, key: str, size: int) -> None:
    with path.open("wb") as file:
        for offset in range(0, size, PIECE):
            generator = random.Random(f"bench:{key}:{offset}")  # noqa: S311 - reproducible bytes
            file.write(generator.randbytes(min(PIECE, size - offset)))
    os.utime(path, (MODIFIED, MODIFIED))


def verify(dataset: Dataset, source: Path, copy: Path, *, contents: bool) -> None:
    """Check that `copy` holds the data set: every size, and every byte when `contents` is set.

    Raises:
        SystemExit: it does not; a figure of an incomplete copy is worth nothing.
    """
    for key in dataset.keys:
        original, copied = source / key, copy / key
        if not copied.exists() or copied.stat().st_size != dataset.size:
            raise SystemExit(f"{key} is missing or has another size at the target")
        if contents and original.read_bytes() != copied.read_bytes():
            raise SystemExit(f"{key} differs at the target")


def clear(folder: Path) -> None:
    """Remove a copied bucket."""
    shutil.rmtree(folder, ignore_errors=True)
