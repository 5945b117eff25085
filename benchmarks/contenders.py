"""Who is measured, with the flags that serve each best (see docs/performance.md)."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ACCESS_KEY_ID = "benchkey"
SECRET_ACCESS_KEY = "benchsecret123"  # noqa: S105 - the endpoints check no signature


@dataclass(frozen=True)
class Copy:
    """One copy to be made: from where to where, with a scratch folder for state."""

    source_url: str
    source_bucket: str
    target_url: str
    target_bucket: str
    scratch: Path


@dataclass(frozen=True)
class Contender:
    """A tool with its flags; `verifies` says what it checks of each object."""

    label: str
    command: Callable[[Copy], list[str]]
    verifies: str
    environment: Callable[[Copy], dict[str, str]] = field(default=lambda _: {})


def _program(name: str) -> str:
    """The executable from this environment, else from PATH."""
    own = Path(sys.executable).with_name(name)
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is not installed; `make bench` installs it")
    return found


def _slurper(copy: Copy) -> list[str]:
    return [
        *(_program("slurper"), "copy"),
        *(f"s3://{copy.source_bucket}", f"s3://{copy.target_bucket}"),
        *("--source-endpoint", copy.source_url, "--target-endpoint", copy.target_url),
        *("--data-dir", str(copy.scratch), "--json"),
    ]


def _aws_environment(_: Copy) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        "AWS_REGION": "us-east-1",
    }


def _rclone(*flags: str) -> Callable[[Copy], list[str]]:
    def command(copy: Copy) -> list[str]:
        return [
            *(_program("rclone"), "copy"),
            *(f"src:{copy.source_bucket}", f"dst:{copy.target_bucket}"),
            *("--stats", "0", "--retries", "1", "--low-level-retries", "3", *flags),
        ]

    return command


def _rclone_environment(copy: Copy) -> dict[str, str]:
    remotes = {"SRC": copy.source_url, "DST": copy.target_url}
    environment = {"RCLONE_CONFIG": "/dev/null"}
    for name, url in remotes.items():
        prefix = f"RCLONE_CONFIG_{name}_"
        environment |= {
            f"{prefix}TYPE": "s3",
            f"{prefix}PROVIDER": "Other",
            f"{prefix}ENDPOINT": url,
            f"{prefix}ACCESS_KEY_ID": ACCESS_KEY_ID,
            f"{prefix}SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
            f"{prefix}REGION": "us-east-1",
            f"{prefix}LIST_VERSION": "2",
        }
    return environment


def _juicefs(copy: Copy) -> list[str]:
    def address(url: str, bucket: str) -> str:
        host = url.removeprefix("http://")
        return f"minio://{ACCESS_KEY_ID}:{SECRET_ACCESS_KEY}@{host}/{bucket}/"

    return [
        *(_program("juicefs"), "--no-agent", "-q", "sync", "--threads", "50"),
        address(copy.source_url, copy.source_bucket),
        address(copy.target_url, copy.target_bucket),
    ]


SLURPER = Contender(
    "slurper copy", _slurper, "length, If-Match, CRC32C checked by the target", _aws_environment
)
JUICEFS_50 = Contender("juicefs sync --threads 50", _juicefs, "nothing that the target checks")
JUICEFS_50_GOGC = Contender(
    "juicefs sync --threads 50, GOGC=400",
    _juicefs,
    "nothing that the target checks",
    lambda _: {"GOGC": "400"},
)
RCLONE_BEST = Contender(
    "rclone copy, best flags",
    _rclone(
        *("--transfers", "64", "--checkers", "64", "--fast-list", "--s3-no-head"),
        *("--s3-no-check-bucket", "--no-check-dest", "--s3-disable-checksum", "--ignore-checksum"),
    ),
    "nothing that this target checks",
    _rclone_environment,
)

SMALL_OBJECTS = (SLURPER, JUICEFS_50, JUICEFS_50_GOGC, RCLONE_BEST)
