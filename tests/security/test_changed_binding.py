"""If `cryptography` is not as we know it, https is refused: it never goes on unchecked."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from slurper import errors
from slurper.http import openssl, tls
from slurper.http.client import HttpClient, TransportOptions
from tests.unit.http.conftest import Authority, get, unsigned
from tests.unit.http.scripted import ScriptedServer, answer, answering

SOURCE = Path(openssl.__file__).read_text()


def test_the_list_of_what_is_used_is_whole() -> None:
    assert set(re.findall(r"\b_lib\.(\w+)", SOURCE)) == openssl.USED


@pytest.mark.parametrize("name", sorted(openssl.USED))
def test_a_binding_without_one_name_is_not_used(name: str) -> None:
    others = dict.fromkeys(openssl.USED - {name})
    with pytest.raises(ImportError, match=f"lacks {name}$"):
        openssl.require(SimpleNamespace(**others))


_PROGRAM = """
import sys
from cryptography.hazmat.bindings.openssl.binding import Binding

class Other:
    def __getattr__(self, name):
        if name == "X509_VERIFY_PARAM_set1_host":
            raise AttributeError(name)
        return getattr(lib, name)

lib, Binding.lib = Binding().lib, Other()
from slurper import errors
from slurper.http.client import HttpClient, TransportOptions

def made(origin, **options):
    HttpClient(origin, TransportOptions(**options), sign=lambda request: "")

made("http://127.0.0.1:1")
made("https://127.0.0.1:1", tls="stdlib")
try:
    made("https://127.0.0.1:1")
except errors.ConfigurationError as error:
    print(error)
"""


def test_a_program_with_such_a_binding_refuses_https_and_says_the_way_out() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=120
    )
    assert "lacks X509_VERIFY_PARAM_set1_host" in ended.stdout
    assert "SLURPER_TLS=stdlib" in ended.stdout


class Changed:
    """The binding, with some names that do other things than before."""

    def __init__(self, lib: Any, **others: Callable[..., object]) -> None:  # noqa: ANN401 - cffi
        vars(self).update(others)
        self._lib = lib

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - cffi
        return getattr(self._lib, name)


def _does_nothing(*_: object) -> None:
    pass


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(trustme.CA(), tmp_path / "ca.pem")
    made.ca.cert_pem.write_to_path(made.file)
    return made


@pytest.fixture(autouse=True)
def _new_contexts() -> Iterator[None]:
    tls._context_of.cache_clear()
    yield
    tls._context_of.cache_clear()


async def _ask(server: ScriptedServer, ca_file: Path | None) -> int:
    options = TransportOptions(ca_file=ca_file, request_retries=0)
    client = HttpClient(f"https://localhost:{server.port}", options, sign=unsigned, trusted=True)
    try:
        return (await client.send(get())).status
    finally:
        await client.close()


@pytest.mark.parametrize("case", ["unknown authority", "wrong name"])
async def test_a_binding_that_no_longer_asks_for_a_check_is_noticed(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """OpenSSL would then note that the certificate is bad, and go on."""
    lib = openssl._lib
    wanted = lib.SSL_VERIFY_PEER
    changed = Changed(
        lib, SSL_CTX_set_verify=_does_nothing, SSL_CTX_get_verify_mode=lambda _: wanted
    )
    monkeypatch.setattr(openssl, "_lib", changed)
    server = ScriptedServer(answering(answer()))
    await server.start(authority.server("other.example" if "name" in case else "localhost"))
    with pytest.raises(errors.TlsRefused, match="certificate not accepted"):
        await _ask(server, authority.file if "name" in case else None)
    await server.stop()
    assert server.requests == []


@pytest.mark.parametrize(
    "others",
    [
        {"SSL_CTX_set_verify": _does_nothing},
        {"SSL_CTX_set_min_proto_version": lambda *_: 0},
        {"X509_VERIFY_PARAM_set1_host": lambda *_: 0},
        {"SSL_get0_verified_chain": lambda _: openssl._NULL},
    ],
    ids=lambda others: next(iter(others)),
)
async def test_a_call_that_fails_ends_the_connection(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, others: dict[str, Callable[..., object]]
) -> None:
    monkeypatch.setattr(openssl, "_lib", Changed(openssl._lib, **others))
    server = ScriptedServer(answering(answer()))
    await server.start(authority.server("localhost"))
    with pytest.raises(errors.TlsRefused):
        await _ask(server, authority.file)
    await server.stop()
    assert server.requests == []
