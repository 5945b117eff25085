"""What `slurper jobs show` says of a job's stores."""

from __future__ import annotations

import pytest

from slurper.cli import job_view

NOTHING = {"listVersion": None, "keyOrder": None, "clockAheadSeconds": None}


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, ""),
        ({"listVersion": 2, "keyOrder": "bytes", "clockAheadSeconds": 1}, ""),
        (
            {"listVersion": 1, "keyOrder": "folders", "clockAheadSeconds": -3600},
            "knows ListObjects only, lists folder by folder, clock 3,600 s behind",
        ),
        (
            {"checksum": "md5", "checksumVerified": True, "conditionalWrites": True},
            "verifies MD5, obeys If-None-Match",
        ),
        (
            {"checksum": "crc32c", "checksumVerified": False, "conditionalWrites": False},
            "verifies no checksums, ignores If-None-Match",
        ),
        (
            {
                "conditionalWrites": True,
                "conditionalCompletions": False,
                "unkeptKeys": ["leading-slash", "backslash"],
                "unkeptHeaders": ["content-encoding", "expires"],
            },
            (
                "obeys If-None-Match, ignores it when uploads are completed, does not keep every "
                "key (leading-slash, backslash), does not keep content-encoding, expires"
            ),
        ),
        ({"md5Required": True, "md5Verified": True}, "wants Content-MD5"),
        (
            {"conditionalReads": False, "etagsAreMd5": False},
            "refuses If-Match, has ETags that are no MD5s",
        ),
        ({"conditionalCompletions": True, "unkeptKeys": [], "unkeptHeaders": []}, ""),
    ],
)
def test_what_is_out_of_the_ordinary_is_said(known: dict[str, object], said: str) -> None:
    found = {"source": NOTHING, "target": {**NOTHING, **known}}
    assert dict(job_view._capabilities(found)) == ({"target store": said} if said else {})


def test_a_server_that_does_not_tell_is_no_error() -> None:
    assert list(job_view._capabilities({})) == []
