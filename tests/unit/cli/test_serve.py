from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import os, pathlib, socket, sys
from slurper import errors
from slurper.cli import serve

def look_up(*_asked, **_how):
    print(os.environ["RES_OPTIONS"])
    raise socket.gaierror(socket.EAI_NONAME, "not known")

socket.getaddrinfo = look_up
try:
    serve.serve(host="localhost", data_dir=pathlib.Path(sys.argv[1]))
except errors.ConfigurationError:
    pass
"""


def test_time_outs_of_names_are_set_before_the_name_to_listen_on_is_looked_up(
    tmp_path: Path,
) -> None:
    """The C library reads them with its first look-up, and then keeps them."""
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path)],
        env={**os.environ, "RES_OPTIONS": ""},
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert ended.stdout.split() == [b"timeout:2", b"attempts:2"]
