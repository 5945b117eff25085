"""`slurper demo` keeps its promise, and leaves nothing behind."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import psutil
import pytest

from tests.e2e import program


@pytest.mark.slow
def test_the_demo_verifies_every_object(tmp_path: Path) -> None:
    ended = program.run("demo", env={"TMPDIR": str(tmp_path)})
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
    with program.started("demo", env=env) as process:
        assert process.stdout is not None
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
