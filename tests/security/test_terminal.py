"""What a store says and names reaches the terminal of whoever looks, and can do nothing there."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from slurper.demo.servers import S3Server
from tests.chaos import faults, proxy
from tests.e2e import program
from tests.unit.cli.test_terminal import acts

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KEYS = ["a\x9b2Jb", "b\u202egpj", "c\u200bd", "d\x1b]0;owned\x07", "e\nerror: f"]
MESSAGES = {
    "that is XML": "no\u009b2J \u202eon \u200b\u0085\n\nerror: all is lost",
    "that is not": "no\x1b[2J\x1b]52;c;aGk=\x07\x9b\r\nerror: all is lost",
}


def _on_a_terminal(*arguments: str, env: Mapping[str, str]) -> str:
    """Run the program with a terminal, and return all that the terminal got."""
    here, there = pty.openpty()
    process = subprocess.Popen(
        [program.PROGRAM, *arguments],
        env={**os.environ, "TERM": "xterm-256color", **env},
        stdin=subprocess.DEVNULL,
        stdout=there,
        stderr=there,
    )
    os.close(there)
    got = bytearray()
    try:
        while piece := _read(here):
            got += piece
    finally:
        process.kill()
        process.wait()
        os.close(here)
    return got.decode("utf-8", "surrogateescape")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # on Linux, this is how a terminal says that nobody writes any more
        return b""


def _refusing(message: str) -> faults.Fault:
    body = f"<Error><Code>AccessDenied</Code><Message>{message}</Message></Error>"
    head = "403 Forbidden\r\nContent-Type: application/xml"
    return faults.answer(head, body.encode("utf-8", "surrogateescape"))


def _is_over(service: program.Service, job_id: str) -> bool:
    status: str = service.call("GET", f"/{job_id}/progress").json()["result"]["status"]
    return status != "running"


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES.keys())
def test_keys_and_messages_of_a_store_are_harmless(
    ministack: S3Server,
    make_bucket: Callable[[S3Server], str],
    boto: Callable[[S3Server], S3Client],
    tmp_path: Path,
    message: str,
) -> None:
    source, target = make_bucket(ministack), make_bucket(ministack)
    for key in [*KEYS, "good"]:
        boto(ministack).put_object(Bucket=source, Key=key, Body=b"x")
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(_refusing(message), "^(GET|HEAD) /[^? ]+/[a-e]")
        hostile = replace(ministack, endpoint=front.endpoint)
        env = program.both_sides(hostile, ministack, tmp_path / "copy")
        shown = [_on_a_terminal("copy", f"s3://{source}", f"s3://{target}", env=env)]
        with program.serving(tmp_path / "serve") as service:
            job_id = service.create_job(hostile, source, target)
            program.wait_until(lambda: _is_over(service, job_id), "the end of the job")
            for command in (("list",), ("show", job_id), ("logs", job_id)):
                shown += [
                    _on_a_terminal("jobs", *command, *more, env=service.env)
                    for more in ((), ("--json",))
                ]
        assert "AccessDenied" in shown[0]
        assert "AccessDenied" in shown[-1]
    for escape in ("\\u009b", "\\u202e", "\\u200b"):
        assert escape in shown[0], "the keys themselves did not arrive"
    for printed in shown:
        assert acts(printed) == []
        lines = printed.replace("\r", "").split("\n")
        assert not [line for line in lines if line.startswith("error: ")]
