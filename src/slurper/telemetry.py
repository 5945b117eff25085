"""Sets up the logs and names the metrics.

Logs go to standard error: readable lines on a terminal, one JSON object per line elsewhere. Records
of the standard library's `logging` (uvicorn, SQLAlchemy, Alembic) are written in the same form. The
message of an event is always the same text, and the details are in fields. So logs can be searched.

Worker processes share the standard error of the control plane. They log in the same form and from
the same level on. They keep no metrics: they report to the driver, which counts.

structlog is loaded by the first record that is shown, prometheus-client by the first metric that is
kept. `slurper copy` needs neither, unless something goes wrong. To load them takes as long as to
copy 1,500 small objects.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    import structlog
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
    from structlog.typing import EventDict, Processor, WrappedLogger

MASK = "********"

_SECRET_WORDS = (
    "authorization",
    "cookie",
    "credential",
    "passphrase",
    "password",
    "private_key",
    "sealed",
    "secret",
    "signature",
    "token",
    "x-auth-key",
)
_MASK_DEPTH = 8


def configure_logging(
    level: str = "info", *, stream: TextIO | None = None, as_json: bool | None = None
) -> None:
    """Send every log record of the process to `stream`, with secrets masked.

    Args:
        level: the least severe level that is shown, such as `info`.
        stream: where to write; None means standard error.
        as_json: whether to write one JSON object per line; None: yes, except on a terminal.

    Raises:
        ValueError: `level` is not a level's name.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"{level!r} is not a log level; use debug, info, warning or error")
    output = sys.stderr if stream is None else stream
    readable = output.isatty() if as_json is None else not as_json
    handler = logging.StreamHandler(output)
    handler.setFormatter(_Formatter(readable=readable, colours=output.isatty()))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(number)


def shown_level() -> str:
    """Return the least severe level that is shown."""
    return logging.getLevelName(logging.getLogger().level)


class Logger:
    """Takes events with fields and hands them to the standard library's logger of the same name.

    So it obeys the settings of `logging`, even when they change later.
    """

    def __init__(self, name: str) -> None:
        self._gate = logging.getLogger(name)

    def debug(self, event: str, **fields: object) -> None:
        """Log what is of use only to somebody who looks for something."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Log what happened."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log something that should not happen, but needs no action."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Log something that an operator should look at."""
        self._log(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """Log an error, with the traceback of the exception being handled."""
        self._log(logging.ERROR, event, {"exc_info": True, **fields})

    def _log(self, level: int, event: str, fields: Mapping[str, object]) -> None:
        if self._gate.isEnabledFor(level):
            self._structured.log(level, event, **fields)

    @functools.cached_property
    def _structured(self) -> structlog.stdlib.BoundLogger:
        import structlog

        logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
            self._gate,
            wrapper_class=structlog.stdlib.BoundLogger,
            processors=[*_describing(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        )
        return logger


def get_logger(name: str) -> Logger:
    """Return the logger of a module."""
    return Logger(name)


class _Formatter(logging.Formatter):
    """Writes records of all libraries in the same form, with secrets masked."""

    def __init__(self, *, readable: bool, colours: bool) -> None:
        super().__init__()
        self._readable = readable
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        return self._structured.format(record)

    @functools.cached_property
    def _structured(self) -> structlog.stdlib.ProcessorFormatter:
        import structlog

        return structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _without_colours, *_describing()],
            processors=_rendering(readable=self._readable, colours=self._colours),
        )


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask the value of every field whose name looks like a secret's, nested fields as well."""
    return {name: _masked(name, value, _MASK_DEPTH) for name, value in event.items()}


def _without_colours(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event.pop("color_message", None)  # uvicorn's second copy of its message
    return event


def _masked(name: object, value: object, depth: int) -> object:
    if isinstance(name, str) and _is_secret(name) and value is not None:
        return MASK
    if depth == 0:
        return value
    if isinstance(value, Mapping):
        return {inner: _masked(inner, item, depth - 1) for inner, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(None, item, depth - 1) for item in value]
    return value


def _is_secret(name: str) -> bool:
    folded = name.lower().replace("-", "_")
    return any(word.replace("-", "_") in folded for word in _SECRET_WORDS)


def _rendering(*, readable: bool, colours: bool) -> list[Processor]:
    import structlog

    # Tracebacks are written without local variables, because those hold credentials.
    if readable:
        plain = structlog.dev.plain_traceback
        return [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain),
        ]
    return [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("message"),
        structlog.processors.JSONRenderer(default=str),
    ]


def _describing() -> tuple[Processor, ...]:
    """Return the steps that every record goes through, ours and those of libraries."""
    import structlog

    return (
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        mask_secrets,
    )


class _Unkept:
    """Takes the place of a metric when metrics are not kept."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def labels(self, *_: object) -> _Unkept:
        return self

    def inc(self, *_: object) -> None:
        pass

    set = observe = inc


def _kinds(
    registry: CollectorRegistry | None,
) -> tuple[Callable[..., Gauge], Callable[..., Counter], Callable[..., Histogram]]:
    """What makes the metrics of a registry, by kind."""
    if registry is None:
        unkept = cast("Any", _Unkept)
        return unkept, unkept, unkept
    import prometheus_client

    return (
        functools.partial(prometheus_client.Gauge, registry=registry),
        functools.partial(prometheus_client.Counter, registry=registry),
        functools.partial(prometheus_client.Histogram, registry=registry),
    )


class Metrics:
    """Every metric of the process, in a registry that the caller owns.

    Objects, bytes, retries and attempts are counted when their report is committed, so they agree
    with the jobs' own counters. Counters begin at zero when the process starts.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Register the metrics, once per registry. Without a registry they are not kept."""
        gauge, counter, histogram = _kinds(registry)
        if registry is not None:
            self.registry = registry
        self.jobs_running = gauge("slurper_jobs_running", "Jobs the driver is working on.")
        self.jobs_ended = counter(
            "slurper_jobs_ended",
            "Jobs that a commit completed, or paused because they could not go on.",
            ["status"],
        )
        self.objects = counter(
            "slurper_objects",
            "Settled objects by outcome: transferred, skipped, failed.",
            ["outcome"],
        )
        self.transferred_bytes = counter(
            "slurper_transferred_bytes", "Bytes of transferred objects."
        )
        self.retries = counter("slurper_request_retries", "HTTP requests that were sent again.")
        self.attempts = counter("slurper_object_attempts", "Objects that were begun again.")
        self.throttled = counter("slurper_throttled", "Answers that asked to slow down.")
        self.tasks = counter(
            "slurper_tasks",
            "Tasks that ended, by outcome: reported, lost, failed, cancelled.",
            ["outcome"],
        )
        self.task_seconds = histogram(
            "slurper_task_seconds",
            "Seconds from submitting a task to its report.",
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 7.5, 10, 15, 30, 60, 300),
        )
        self.tasks_under_way = gauge(
            "slurper_tasks_under_way", "Tasks submitted and not yet committed."
        )
        self.commits = counter(
            "slurper_commits",
            "Reports given to the database, by outcome: applied, stale, delayed (to be repeated).",
            ["outcome"],
        )
        self.worker_restarts = counter(
            "slurper_worker_restarts", "Worker processes that were replaced."
        )
