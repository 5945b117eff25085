"""What is measured: a data set, a situation, and who takes part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from benchmarks import contenders
from benchmarks.contenders import Contender
from benchmarks.datasets import Dataset
from benchmarks.lines import Line

GB = 1_000_000_000
MANY, FEW = 20_000, 10


class Measure(StrEnum):
    """Which figure a set is about."""

    CPU_PER_OBJECT = "CPU µs/object"
    CPU_PER_GB = "CPU s/GB"
    RATE = "objects/s"
    THROUGHPUT = "MB/s"
    START = "CPU ms"


@dataclass(frozen=True)
class Set:
    """One table of the report, for each target."""

    name: str
    title: str
    dataset: Dataset
    field: tuple[Contender, ...]
    measure: Measure
    targets: tuple[str, ...] = ("nginx", "seaweedfs")
    tls: bool = False
    filled: bool = False
    """Everything is at the target already."""
    within_store: bool = False
    """The source is another bucket of the target's store, which tells MD5s."""
    line: Line | None = None
    """The one that source and target are at the other end of."""

    @property
    def quick(self) -> Set:
        """The same with fewer objects, to see that it runs; the figures say nothing."""
        count = max(FEW, self.dataset.count // 40) if self.dataset.count > FEW else 1
        size = min(self.dataset.size, 256 << 20)  # multipart for every tool
        return replace(self, dataset=Dataset(count, size))


_SMALL = Dataset(MANY, 4 << 10)
_SMALLER, _MEDIUM, _LARGE = Dataset(64, 16 << 20), Dataset(8, 96 << 20), Dataset(4, 512 << 20)


def _over_a_line(name: str, dataset: Dataset, milliseconds: int, megabytes: int | None) -> Set:
    """A set behind a line of a round trip and, unless it is None, of so many MB/s each way."""
    narrow = f"-{megabytes}MB" if megabytes else ""
    bandwidth = f"{megabytes} MB/s" if megabytes else "any bandwidth"
    objects = f"{dataset.count} objects of {dataset.size >> 20} MiB"
    return Set(
        f"line-{name}-{milliseconds}ms{narrow}",
        f"{objects}, over {milliseconds} ms and {bandwidth}",
        dataset,
        contenders.LINE,
        Measure.THROUGHPUT,
        targets=("nginx",),
        line=Line(milliseconds / 1e3, megabytes and megabytes * 1e6),
    )


_ALL = (
    Set("S", "20,000 objects of 4 KiB", _SMALL, contenders.SMALL, Measure.CPU_PER_OBJECT),
    Set(
        "M", "2,000 objects of 1 MiB", Dataset(2_000, 1 << 20), contenders.SMALL, Measure.CPU_PER_GB
    ),
    Set("L", "4 objects of 512 MiB", _LARGE, contenders.LARGE, Measure.CPU_PER_GB),
    Set(
        "S-TLS",
        "20,000 objects of 4 KiB, over TLS",
        _SMALL,
        contenders.SMALL,
        Measure.CPU_PER_OBJECT,
        tls=True,
    ),
    Set(
        "L-TLS",
        "4 objects of 512 MiB, over TLS",
        _LARGE,
        contenders.LARGE,
        Measure.CPU_PER_GB,
        tls=True,
    ),
    Set(
        "again",
        "20,000 objects of 4 KiB, all there already",
        _SMALL,
        contenders.AGAIN,
        Measure.CPU_PER_OBJECT,
        filled=True,
    ),
    Set(
        "end-to-end",
        "75,000 objects of 4 KiB",
        Dataset(75_000, 4 << 10),
        contenders.END_TO_END,
        Measure.CPU_PER_OBJECT,
    ),
    *(
        Set(
            name,
            f"{title}, from a store that tells MD5s to itself",
            dataset,
            contenders.LARGE,
            Measure.CPU_PER_GB,
            targets=("seaweedfs", "juicefs", "ceph"),
            within_store=True,
        )
        for name, title, dataset in (
            ("store-16M", "64 objects of 16 MiB", _SMALLER),
            ("store-96M", "8 objects of 96 MiB", _MEDIUM),
            ("store-512M", "4 objects of 512 MiB", _LARGE),
        )
    ),
    Set("start", "10 objects of 4 KiB", Dataset(FEW, 4 << 10), contenders.SMALL, Measure.START),
    Set(
        "latency",
        "8,000 objects of 4 KiB, source and target 30 ms away",
        Dataset(8_000, 4 << 10),
        contenders.SCALED,
        Measure.RATE,
        targets=("nginx",),
        line=Line(0.030),
    ),
    *(
        _over_a_line(name, dataset, milliseconds, megabytes)
        for name, dataset, lines in (
            ("96M", _MEDIUM, [(ms, mb) for ms in (1, 30, 100) for mb in (None, 200)]),
            # The line of a common move between providers, and the one that is hardest to fill.
            ("512M", _LARGE, [(30, 200), (100, None)]),
            ("16M", _SMALLER, [(30, 200), (100, None)]),
        )
        for milliseconds, megabytes in lines
    ),
)

SETS = {each.name: each for each in _ALL}
