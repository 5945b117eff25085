"""Measure the sets and render what was measured.

    python -m benchmarks.run [--sets S,M] [--targets nginx] [--only slurper,rclone] [--runs 5]

Runs go into docs/performance.jsonl, from which `benchmarks.report` makes the page at the end. With
another results file, and in a quick run of few objects (--quick), the tables are printed instead.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import trustme
from tests.servers.seaweedfs import TlsFiles

from benchmarks import contenders, datasets, machine, report, results
from benchmarks.contenders import Contender, Copy
from benchmarks.delay import distant
from benchmarks.errors import MeasurementFailed
from benchmarks.measuring import measure
from benchmarks.results import Run
from benchmarks.sets import SETS, Set
from benchmarks.stores import ceph, juicefs, seaweedfs
from benchmarks.targets import Endpoint, nginx
from slurper.demo.servers import HOST

TARGETS: dict[str, Callable[[Path, TlsFiles | None], AbstractContextManager[Endpoint]]] = {
    "nginx": nginx,
    "seaweedfs": seaweedfs,
    "juicefs": juicefs,
    "ceph": ceph,
}
_MEMORY = Path("/dev/shm")  # noqa: S108 - the file system in memory
_NEEDED_BYTES = 12 << 30
"""Source, target, parts and a local folder of the largest set, and something to spare."""


@dataclass(frozen=True)
class Stage:
    """Running servers and what lies at the source."""

    source_url: str
    source: Path
    target_url: str
    target: Endpoint
    scratch: Path
    ca_file: Path | None

    def copy(self, bucket: str, each: Set, scratch: Path) -> Copy:
        """A copy of the set's data into `bucket`."""
        return Copy(
            *(self.source_url, each.dataset.bucket, self.target_url, bucket),
            *(self.target.access_key_id, self.target.secret_access_key),
            scratch,
            self.ca_file,
        )


@contextmanager
def staged(each: Set, target_name: str, scratch: Path) -> Iterator[Stage]:
    """Run source and target, and write the set's data."""
    with ExitStack() as stack:
        tls = _tls_files(scratch) if each.tls else None
        (scratch / target_name).mkdir(parents=True, exist_ok=True)
        target = stack.enter_context(TARGETS[target_name](scratch / target_name, tls))
        folder = datasets.write(each.dataset, scratch / "source")
        if each.within_store:
            target.fill(each.dataset.bucket, each.dataset, folder)
            # Under another name, so that no tool lets the store copy by itself.
            urls = [target.url.replace(HOST, "localhost"), target.url]
        else:
            source = stack.enter_context(nginx(scratch / "source", tls))
            source.settle(each.dataset.bucket)
            urls = [source.url, target.url]
        if each.line is not None:
            urls = stack.enter_context(distant(urls, each.line))
        yield Stage(urls[0], folder, urls[1], target, scratch, tls.ca if tls else None)


def _tls_files(scratch: Path) -> TlsFiles:
    authority = trustme.CA()
    certificate = authority.issue_cert(HOST)
    files = TlsFiles(
        certificate=scratch / "server.pem", key=scratch / "server.key", ca=scratch / "ca.pem"
    )
    authority.cert_pem.write_to_path(files.ca)
    files.key.write_bytes(certificate.private_key_pem.bytes())
    files.certificate.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    return files


def interleave(each: Set, field: list[Contender], stage: Stage, runs: int) -> Iterator[Run]:
    """Let every contender copy the set `runs` times, taking turns; check every copy."""
    shared = f"filled-{time.monotonic_ns()}"
    if each.filled:
        stage.target.fill(shared, each.dataset, stage.source)
    for turn in range(1, runs + 1):
        for contender in field:
            print(
                f"{each.name:20} {stage.target.name:9} {turn}/{runs} {contender.label:28}", end=""
            )
            try:
                run = _one(each, contender, stage, shared if each.filled else None)
            except MeasurementFailed as failure:
                print(f" FAILED: {failure}", flush=True)
                continue
            print(f" {run.cpu_seconds:8.2f} s CPU {run.wall_seconds:8.2f} s", flush=True)
            yield run
    if each.filled:
        stage.target.remove(shared)


def _one(each: Set, contender: Contender, stage: Stage, filled: str | None) -> Run:
    bucket = filled or f"copy-{time.monotonic_ns()}"
    began, load = datetime.now(UTC), os.getloadavg()[0]
    if filled is None:
        stage.target.create(bucket)
    try:
        with tempfile.TemporaryDirectory(dir=stage.scratch) as scratch:
            cost = measure(contender, stage.copy(bucket, each, Path(scratch)))
        stage.target.verify(bucket, each.dataset, stage.source)
    finally:
        if filled is None:
            stage.target.remove(bucket)
    return Run(
        set=each.name,
        target=stage.target.name,
        contender=contender.label,
        objects=each.dataset.count,
        bytes=each.dataset.bytes,
        user_seconds=cost.user_seconds,
        system_seconds=cost.system_seconds,
        wall_seconds=cost.wall_seconds,
        peaks_mib=cost.peaks_mib,
        version=_version(contender.tool),
        server=stage.target.version,
        machine=machine.description(),
        began=began.isoformat(timespec="seconds"),
        load=load,
    )


def _version(tool: str) -> str:
    version = contenders.version(tool)
    return f"{version} ({machine.commit()})" if tool == "slurper" else version


def main() -> None:
    """Measure what is asked for."""
    arguments = _arguments()
    # Python would end without a clean-up: servers would run on, and gigabytes stay in memory.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
    incomplete = False
    with scratch_folder(arguments.scratch) as scratch:
        path = scratch / "results.jsonl" if arguments.quick else arguments.results
        for name in arguments.sets:
            each = SETS[name].quick if arguments.quick else SETS[name]
            for target in (one for one in each.targets if one in arguments.targets):
                incomplete |= _measure_set(each, target, scratch, path, arguments)
            if arguments.scratch is None:
                shutil.rmtree(scratch / "source")
        if path == report.RESULTS:
            report.write(path)
        else:
            print(report.rendered(results.read(path)))
    sys.exit(incomplete)


def _measure_set(
    each: Set, target: str, scratch: Path, path: Path, arguments: argparse.Namespace
) -> bool:
    """Measure one set at one target; return whether a run failed."""
    field = [one for one in each.field if any(word in one.label for word in arguments.only)]
    with staged(each, target, scratch) as stage:
        if not arguments.add:
            results.drop(path, each.name, stage.target.name, (one.label for one in field))
        done = 0
        for run in interleave(each, field, stage, arguments.runs):
            results.append(path, run)
            done += 1
    shutil.rmtree(scratch / target)
    wanted: int = len(field) * arguments.runs
    return done < wanted


@contextmanager
def scratch_folder(given: Path | None) -> Iterator[Path]:
    """The folder given, which is kept; else a new one in memory, or on disk where that is small."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _NEEDED_BYTES
    with tempfile.TemporaryDirectory(prefix="bench-", dir=_MEMORY if roomy else None) as folder:
        yield Path(folder)


def _arguments() -> argparse.Namespace:
    def names(known: dict[str, object]) -> Callable[[str], list[str]]:
        def split(text: str) -> list[str]:
            given = text.split(",")
            if unknown := set(given) - known.keys():
                raise argparse.ArgumentTypeError(f"{unknown} not in {', '.join(known)}")
            return given

        return split

    width = max(map(len, SETS))
    sets = "\n".join(f"  {name:{width}}  {each.title}" for name, each in SETS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nsets:\n{sets}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--sets", type=names({**SETS}), default=list(SETS), metavar="NAME,...", help="else all"
    )
    parser.add_argument(
        "--targets", type=names({**TARGETS}), default=list(TARGETS), help=", ".join(TARGETS)
    )
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=[""], help="words in contenders' names"
    )
    parser.add_argument("--runs", type=int, help="of each contender; 5, or 1 of a quick run")
    parser.add_argument("--quick", action="store_true", help="few objects, once; prints only")
    parser.add_argument("--add", action="store_true", help="keep earlier runs of the same sets")
    parser.add_argument(
        "--results", type=Path, default=report.RESULTS, help="another file; prints only"
    )
    parser.add_argument("--scratch", type=Path, help="folder for data, best in memory; kept")
    arguments = parser.parse_args()
    arguments.runs = arguments.runs or (1 if arguments.quick else 5)
    return arguments


if __name__ == "__main__":
    main()
