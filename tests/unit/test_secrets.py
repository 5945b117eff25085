"""Private keys as they come, and as they ought to be."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from slurper.secrets import Sealer, tidy_pem
from tests.servers.gcs.tokens import pem, private_key

BREAKS = ("\n", "\r\n", "\r", " ", "\n\n", " \n\t", "\\n", "\\r\\n", "\\\\n", "\\\\\\r\\\\\\n")
AROUND = ("", " ", "\n", '"', "'", '\\"', " '\"", "\t\r\n", '",')


@given(
    pkcs1=st.booleans(),
    line_break=st.sampled_from(BREAKS),
    before=st.sampled_from(AROUND),
    after=st.sampled_from(AROUND),
)
def test_whatever_happened_on_the_way_is_undone(
    pkcs1: bool, line_break: str, before: str, after: str
) -> None:
    key = pem("right", pkcs1=pkcs1)
    assert tidy_pem(before + key.replace("\n", line_break) + after) == key


@pytest.mark.parametrize("pkcs1", [False, True])
def test_what_is_tidy_can_be_loaded(pkcs1: bool) -> None:
    tidy = tidy_pem(pem("right", pkcs1=pkcs1).replace("\n", ""))
    assert tidy is not None
    loaded = load_pem_private_key(tidy.encode(), password=None)
    assert loaded.private_numbers() == private_key("right").private_numbers()  # type: ignore[union-attr]


KEY = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MIIE",
        KEY[:-10],
        KEY[5:],
        KEY.replace("MIIE", ""),
        KEY.replace("MIIE", "MI-E"),
        KEY.replace("PRIVATE", "PUBLIC"),
        KEY.replace("PRIVATE", "ENCRYPTED PRIVATE"),
        KEY.replace("PRIVATE", "EC PRIVATE"),
        KEY.replace("END PRIVATE", "END RSA PRIVATE"),
        KEY.replace("MIIE", "Proc-Type: 4,ENCRYPTED\n\nMIIE"),
        KEY + KEY,
    ],
)
def test_what_is_no_key_alone_is_none(text: str) -> None:
    assert tidy_pem(text) is None


def test_a_digest_tells_nothing_to_whoever_has_no_key() -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    (digest,) = Sealer((old,)).digests([b"a ", b"request"])
    assert Sealer((new, old)).digests([b"a ", b"request"])[1:] == (digest,)
    assert Sealer((new,)).digests([b"a ", b"request"]) != (digest,)
    assert Sealer((old,)).digests([b"another request"]) != (digest,)
    assert digest != hashlib.sha256(b"a request").digest()
    assert len(digest) == 32
