"""Deterministic data sets as files of an nginx endpoint, with the LIST pages that describe them.

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
    """Write objects and LIST pages below an endpoint's `root`, unless they are there."""
    done = root / f"{dataset.name}.done"
    if done.exists():
        return
    for key in dataset.keys:
        path = root / "data" / dataset.bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_object(path, key, dataset.size)
    _write_pages(dataset, root / "pages" / dataset.bucket)
    done.touch()


def _write_object(path: Path, key: str, size: int) -> None:
    with path.open("wb") as file:
        for offset in range(0, size, PIECE):
            generator = random.Random(f"bench:{key}:{offset}")  # noqa: S311 - reproducible bytes
            file.write(generator.randbytes(min(PIECE, size - offset)))
    os.utime(path, (MODIFIED, MODIFIED))


def _write_pages(dataset: Dataset, folder: Path) -> None:
    """Pages by continuation token for some clients, by start-after for others."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = list(dataset.keys)
    for start in range(0, len(keys), PAGE):
        page = folder / (f"t{start}.xml" if start else "0.xml")
        page.write_text(_page(dataset, keys[start : start + PAGE], start + PAGE < len(keys), start))
        if start:
            prefix, _, rest = keys[start - 1].partition("/obj-")
            (folder / f"s{prefix[1:]}_{rest[:6]}.xml").symlink_to(page.name)


def _page(dataset: Dataset, keys: list[str], truncated: bool, start: int) -> str:
    token = f"<NextContinuationToken>t{start + PAGE}</NextContinuationToken>" if truncated else ""
    rows = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;{MODIFIED:x}-{dataset.size:x}&quot;</ETag><Size>{dataset.size}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for key in keys
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{dataset.bucket}</Name><Prefix></Prefix><KeyCount>{len(keys)}</KeyCount>"
        f"<MaxKeys>{PAGE}</MaxKeys><IsTruncated>{str(truncated).lower()}</IsTruncated>{token}{rows}"
        "</ListBucketResult>"
    )


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
