"""`slurper demo` keeps its promise, and leaves nothing behind."""

from __future__ import annotations

import io
import itertools
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from rich.console import Console

from slurper.demo import compare, dataset, run
from slurper.demo.servers import S3Server
from tests.e2e import program

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.mark.slow
def test_the_demo_verifies_every_object(tmp_path: Path) -> None:
    ended = program.run("demo", env={"TMPDIR": str(tmp_path)}, anew=True)
    assert ended.code == 0, ended.out + ended.err
    last = ended.out.splitlines()[-1]
    found = re.fullmatch(
        r"demo: (\d+) objects, (\d+) transferred, 0 skipped, 0 failed, (\d+) verified", last
    )
    assert found is not None, last
    assert len(set(found.groups())) == 1
    assert int(found[1]) >= 2_000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_cleans_up(tmp_path: Path, number: signal.Signals) -> None:
    env = {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with program.started("demo", env=env, anew=True) as process:
        line = ""
        while "filling the source" not in line:
            line = process.stdout.readline()
            assert line, program.end(process)
        children = program.descendants(process)
        assert children
        program.interrupt(process, number)
        ended = program.end(process)
    assert ended.code == 130
    assert "Traceback" not in ended.err
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert list(tmp_path.iterdir()) == []


def test_the_referee_sees_every_kind_of_difference(
    ministack: S3Server,
    boto: Callable[[S3Server], S3Client],
    make_bucket: Callable[[S3Server], str],
) -> None:
    client = boto(ministack)
    source, target = (compare.Bucket(client, make_bucket(ministack)) for _ in range(2))
    same: dict[str, Any] = {"Body": b"body", "ContentType": "text/a", "Metadata": {"a": "1"}}
    altered: dict[str, dict[str, Any]] = {
        "bytes": {"Body": b"BODY"},
        "length": {"Body": b"longer"},
        "header": {"ContentType": "text/b"},
        "new header": {"CacheControl": "no-store"},
        "metadata": {"Metadata": {"a": "2"}},
    }
    for key in ("equal", "a//b", "missing", *altered):
        client.put_object(Bucket=source.name, Key=key, **same)
    for key in ("equal", "a//b", "extra", *altered):
        client.put_object(Bucket=target.name, Key=key, **{**same, **altered.get(key, {})})
    found = {result.key: result.difference for result in compare.compare(source, target)}
    assert {key for key, difference in found.items() if not difference} == {"equal", "a//b"}
    assert found["bytes"] == "the bytes differ"
    assert found["length"].startswith("Content-Length: '4' became '6'")
    assert found["header"] == "Content-Type: 'text/a' became 'text/b'"
    assert found["new header"] == "Cache-Control: None became 'no-store'"
    assert found["metadata"] == "metadata: {'a': '1'} became {'a': '2'}"
    assert found["missing"] == "missing at the target"
    assert found["extra"] == "not at the source"


def test_the_demo_fails_when_anything_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real servers and service; only the referee is told to see one object otherwise."""
    honest = compare.compare

    def unfair(source: compare.Bucket, target: compare.Bucket) -> Iterator[compare.Comparison]:
        for number, result in enumerate(honest(source, target)):
            yield compare.Comparison(result.key, "the bytes differ") if number == 0 else result

    few = itertools.islice(dataset.objects(), 20)
    monkeypatch.setattr("slurper.demo.dataset.objects", lambda: few)
    monkeypatch.setattr("slurper.demo.compare.compare", unfair)
    output = io.StringIO()
    assert not run.run(Console(file=output, width=200))
    *_, last = output.getvalue().splitlines()
    assert last == "demo: 20 objects, 20 transferred, 0 skipped, 0 failed, 19 verified"
    assert "DIFFERENT" in output.getvalue()
