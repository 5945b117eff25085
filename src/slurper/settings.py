"""One frozen Settings, read once from `SLURPER_*` environment variables or a TOML file.

Memory of a worker process is bounded by

    in_flight_bytes + one object or part larger than that + in_flight_requests * 64 KiB + 60 MiB
    + idle connections * 30 KiB

because a unit is read as a whole before it is written. A unit is an object up to
`multipart_threshold_bytes`, or a part of a larger one. It is admitted only when its bytes fit into
the rest of `in_flight_bytes`, or when nothing else is under way. An object that is streamed takes
2 MiB of it, however large it is.

All tasks of the process share that budget. It is also used to compare an object with one that is at
the target already. At first 16 MiB of it are used, and more if the stores are far away. After that
more is used only if the process becomes faster by it (`transfer/pacing.py`). The process keeps the
memory that it has used, for the next objects.

There are at most 4,096 idle connections, or three quarters of the file descriptors that the process
may have (`http/capacity.py`). Those of a job are closed when it ends.

A copy that a store makes by itself brings no bytes here. A task with a limited rate waits before it
reads, so it holds no bytes while it waits.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic_core import PydanticCustomError

from slurper import endpoints, errors, private_files

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

SMALLEST_REQUEST_MEMORY = 64 * MIB
"""One largest request fits into it, and some others."""

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
TlsLibrary = Literal["openssl", "stdlib"]


def _readable(allowed_endpoints: str) -> str:
    try:
        endpoints.parse(allowed_endpoints)
    except errors.ConfigurationError as error:
        raise PydanticCustomError("endpoint", "{reason}", {"reason": str(error)}) from error
    return allowed_endpoints


NOT_FOR_WORKERS = ("api_token", "database_url", "metrics_token", "secret_key")
"""Settings that may hold secrets of the control plane. A worker gets no secrets but those inside
its tasks (design rule 11)."""


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"SLURPER_{name.upper()}"


class Settings(BaseModel):
    """Every knob, with its default. Environment beats file; command-line options beat both."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    # The service
    api_token: SecretStr | None = None
    """A fixed token for every account, in addition to those made by `slurper token create`."""
    data_dir: Path = Path.home() / ".local" / "share" / "slurper"
    """Database and sealing key; created with mode 0700."""
    database_url: str | None = None
    """SQLAlchemy URL; default is SQLite in `data_dir`."""
    secret_key: SecretStr | None = None
    """Comma-separated Fernet keys that seal credentials, newest first; default: a key file."""
    allow_group_access: bool = False
    """Accept a data folder, key file and database file that members of their group may use."""
    secret_retention_seconds: Annotated[float, Field(ge=0)] = 86_400.0
    """How long a job keeps its sealed credentials after its end."""
    max_concurrent_jobs: Count = 10
    """Active (running or paused) jobs per account."""
    max_concurrent_jobs_total: Count = 1_000
    """Active jobs of all accounts together."""
    max_concurrent_checks: Count = 8
    """Checks of new jobs and prechecks at once, per account."""
    request_memory_bytes: Annotated[int, Field(ge=SMALLEST_REQUEST_MEMORY)] = 256 * MIB
    """What large bodies of requests take in memory together (`api/body_memory.py`)."""
    job_log_entries: Count = 1_000_000
    """A job whose log has so many entries pauses."""
    job_gathered_keys: Count = 10_000_000
    """A job for which so many keys were gathered pauses. Keys are gathered only from sources that
    list in no order."""
    job_retention_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Jobs that ended so long ago are deleted; None: they stay until somebody deletes them."""
    lease_seconds: Seconds = 10.0
    """How long the server that drives the jobs may be silent before a standby takes its place."""

    # Its clients
    tls_cert: Path | None = None
    """PEM file of the certificate that `serve` shows, with its chain. SIGHUP reads it again."""
    tls_key: Path | None = None
    """PEM file of the certificate's private key."""
    behind_proxy: str | None = None
    """Addresses and networks of proxies. `X-Forwarded-For` and `X-Forwarded-Proto` count only if
    they come from one of these."""
    max_connections: Count = 512
    """Open connections of clients. Together they hold at most 64 KiB for each, and at least
    32 MiB may be held (`server/limits.py`)."""
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """Serves `/metrics` on a port of its own, and not beside the API; 0 takes a free one."""
    metrics_token: SecretStr | None = None
    """A token that `/metrics` needs."""

    # Where stores are, and which may be reached
    r2_endpoint: str | None = None
    """Replaces `https://{account_id}.r2.cloudflarestorage.com` and its jurisdiction forms."""
    gcs_endpoint: str | None = None
    """Replaces `https://storage.googleapis.com`."""
    gcs_token_uri: str | None = None
    """Replaces Google's token endpoint, `https://oauth2.googleapis.com/token`."""
    requester_pays: bool = False
    """Agree to pay for requests and bytes read, in AWS buckets whose owners do not pay."""
    allow_http: bool = False
    """Accept `http://` endpoints from users."""
    allow_private_endpoints: bool = False
    """Accept user endpoints on loopback and private addresses."""
    allowed_endpoints: Annotated[str, AfterValidator(_readable)] = ""
    """Networks and hosts that users may name besides public ones, see `endpoints.parse`. Link-local
    and metadata addresses are accepted only if they are listed here one by one."""
    ca_file: Path | None = None
    """PEM certificates to trust in addition to the system's."""
    tls: TlsLibrary = "openssl"
    """What does TLS: the OpenSSL of `cryptography`, or Python's own `ssl`, which is slower."""

    # The engine
    engine: Literal["local"] = "local"
    """What runs the tasks. There is only one engine; other names are refused."""
    workers: Count = os.cpu_count() or 1
    """Worker processes of the local engine."""
    stop_grace_seconds: Seconds = 30.0
    """How long a stopping server waits for tasks under way."""

    # The data plane, per worker process
    in_flight_requests: Count = 64
    """Objects or parts copied at the same time."""
    in_flight_bytes: Annotated[int, Field(ge=16 * MIB)] = 256 * MIB
    """The most bytes in flight; see above."""
    multipart_threshold_bytes: Annotated[int, Field(ge=5 * MIB)] = 64 * MIB
    """Larger objects are written as multipart uploads, unless they are streamed."""
    part_bytes: Annotated[int, Field(ge=5 * MIB)] = 16 * MIB
    """Smallest part of a multipart upload. Very large objects get larger parts, because the number
    of parts is limited."""
    stream_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 15.0
    """An object of 4 MiB and more is passed on in one request as it comes in, if its source tells
    a checksum that the target verifies, and if it should arrive within this time; 0: never."""
    task_seconds: Seconds = 8.0
    """After this time a task begins no more objects, and reports."""
    server_side_copy: bool = True
    """Let a store that holds both buckets copy objects by itself."""
    store_idle_seconds: Seconds = 60.0
    """A worker keeps a store that no task uses, with its connections and credentials, for no longer
    than this."""
    object_attempts: Count = 3
    """How many attempts an object gets before it fails."""
    connect_timeout_seconds: Seconds = 10.0
    idle_timeout_seconds: Seconds = 60.0
    """A connection on which nothing moves for this long is given up."""
    min_bytes_per_second: Annotated[int, Field(ge=0)] = 128
    """A request whose body moves slower than this, averaged over `idle_timeout_seconds`, is given
    up and sent again; 0: never. The default is low, so that a slow line does not fall below it: all
    connections of 8 workers, 64 each, need half a megabit per second together."""
    request_retries: Annotated[int, Field(ge=0)] = 5
    """How often one HTTP request is sent again."""
    retry_deadline_seconds: Seconds = 120.0
    """No retry of a request begins later than this after the request began."""

    def __init__(self, **given: Any) -> None:  # noqa: ANN401 - what fields are given is validated
        """Take what is given, then the environment, then the file that `SLURPER_CONFIG` names.

        Raises:
            ValidationError: a value cannot work, or a name is unknown.
            ValueError: the file is not TOML.
            ConfigurationError: a variable's name is not in upper case, or other users may read the
                secrets in the file, or all may change it.
            OSError: the file cannot be read.
        """
        path = os.environ.get("SLURPER_CONFIG")
        in_file = _in_file(path)
        super().__init__(**in_file | _in_environment() | given)
        if path:
            private_files.check_settings(
                Path(path),
                has_secrets=not in_file.keys().isdisjoint(NOT_FOR_WORKERS),
                group_may=self.allow_group_access,
            )

    @property
    def resolved_database_url(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.data_dir / 'slurper.db'}"


def _in_file(path: str | None) -> dict[str, Any]:
    if not path:
        return {}
    import tomllib  # most have no file

    return tomllib.loads(Path(path).read_text(encoding="utf-8"))


def _in_environment() -> dict[str, Any]:
    """Return the variables that are set. An empty one, as from a compose file, is not set."""
    variables = {name: variable(name) for name in Settings.model_fields}
    for key in os.environ.keys() - set(variables.values()):
        if key.upper() in variables.values():
            raise errors.ConfigurationError(f"{key} is not read: call it {key.upper()}")
    return {name: os.environ[key] for name, key in variables.items() if os.environ.get(key)}
