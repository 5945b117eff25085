"""Describes a server's job in words, for people."""

from __future__ import annotations

from collections.abc import Iterator

from slurper.cli import console
from slurper.cli.console import JsonValue


def place(side: JsonValue) -> str:
    """Say where a side is."""
    where = f" at {side['endpoint']}" if side.get("endpoint") else ""
    prefix = side.get("pathPrefix") or ""
    return f"{side['vendor']}://{side['bucket']}/{console.shown(prefix)}{where}"


def description(job: JsonValue, progress: JsonValue) -> Iterator[tuple[str, str]]:
    """Yield the lines that describe a job, each as its name and its text."""
    yield "job", job["id"]
    yield "status", job["status"]
    yield "source", place(job["source"])
    yield "target", place(job["target"])
    keys = job["source"].get("keys")
    if job.get("retryOf"):
        yield "retries", f"what failed in job {job['retryOf']}"
    elif keys is not None:
        yield "keys", f"{len(keys):,} given"
    yield "overwrite", "yes" if job["overwrite"] else "no"
    yield "created", job["createdAt"]
    if job.get("createdBy"):
        yield "created by", console.shown(job["createdBy"])
    yield "finished", job.get("finishedAt") or "not yet"
    yield from limits(job.get("options") or {})
    if (job.get("options") or {}).get("require"):
        yield "requires", ", ".join(job["options"]["require"])
    yield from _capabilities(job.get("capabilities") or {})
    yield "progress", counters(progress)
    if progress["status"] == "running":
        yield from _pace(progress)


def _capabilities(found: JsonValue) -> Iterator[tuple[str, str]]:
    """Yield what the server found out about the stores, if its answer has that."""
    for side, known in found.items():
        said = ", ".join(_said_of(known))
        if said:
            yield f"{side} store", said


_UNUSUAL = (
    ("listVersion", 1, "knows ListObjects only"),
    ("keyOrder", "folders", "lists folder by folder"),
    ("conditionalReads", False, "refuses If-Match"),
    ("etagsAreMd5", False, "has ETags that are no MD5s"),
    ("md5Required", True, "wants Content-MD5"),
)


def _said_of(known: JsonValue) -> Iterator[str]:
    for name, value, text in _UNUSUAL:
        if known.get(name) == value:
            yield text
    ahead = known.get("clockAheadSeconds") or 0
    if abs(ahead) > 1:
        yield f"clock {abs(ahead):,} s {'ahead' if ahead > 0 else 'behind'}"
    if known.get("checksumVerified") is not None:
        verified = known["checksumVerified"] and known.get("checksum")
        yield f"verifies {verified.upper()}" if verified else "verifies no checksums"
    if known.get("conditionalWrites") is not None:
        yield "obeys If-None-Match" if known["conditionalWrites"] else "ignores If-None-Match"
    if known.get("conditionalWrites") and known.get("conditionalCompletions") is False:
        yield "ignores it when uploads are completed"
    if known.get("unkeptKeys"):
        yield f"does not keep every key ({', '.join(known['unkeptKeys'])})"
    if known.get("unkeptHeaders"):
        yield f"does not keep {', '.join(known['unkeptHeaders'])}"


def limits(options: JsonValue) -> Iterator[tuple[str, str]]:
    """Yield the limits of a job, each as its name and its text."""
    from rich import filesize

    if options.get("bandwidthLimit"):
        yield "bandwidth", f"at most {filesize.decimal(options['bandwidthLimit'])}/s"
    if options.get("requestRateLimit"):
        yield "requests", f"at most {options['requestRateLimit']:,}/s"


def _pace(progress: JsonValue) -> Iterator[tuple[str, str]]:
    """Yield how fast the job moves, if the server's answer has that."""
    from rich import filesize

    from slurper.cli.progress import duration, throttled

    if "objectsPerSecond" not in progress:
        return
    size = filesize.decimal(int(progress["bytesPerSecond"]))
    yield "pace", f"{progress['objectsPerSecond']:,.0f} objects/s, {size}/s"
    if progress["estimatedSecondsLeft"] is not None:
        total = f"{progress['totalObjects']:,} objects in all"
        yield "left", f"{duration(progress['estimatedSecondsLeft'])} ({total})"
    if progress["activeWorkers"] is not None:
        yield "workers", str(progress["activeWorkers"])
    shares = progress["throttledShare"].items()
    slowed = [text for side, share in shares if (text := throttled(side, share))]
    if slowed:
        yield "throttled", ", ".join(slowed)
    if progress.get("waitingFor"):
        yield "waiting for", ", ".join(progress["waitingFor"])


def counters(progress: JsonValue) -> str:
    """Say in one line how far a job is."""
    return (
        f"{progress['status']}: {progress['objects']:,} objects, "
        f"{progress['transferredObjects']:,} transferred, {progress['skippedObjects']:,} skipped, "
        f"{progress['failedObjects']:,} failed"
    )
