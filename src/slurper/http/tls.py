"""Which TLS the clients of this process use, and their context."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path

from slurper import descriptors, errors
from slurper.http.python_ssl import PythonContext
from slurper.http.tls_transport import TlsContext
from slurper.settings import TlsLibrary

try:
    from slurper.http.openssl import OpensslContext
except (ImportError, AttributeError) as error:
    # `cryptography` is another version than ours. Nothing goes on without checked certificates.
    _why_not: Exception | None = error
else:
    _why_not = None


def shared_context(ca_file: Path | None, library: TlsLibrary = "openssl") -> TlsContext:
    """Return the context of all clients of this process.

    It is made again only when `ca_file`, or where the system keeps its authorities, has changed.
    Reading the system's authorities takes 20 ms of CPU, and a copy has several clients.

    Raises:
        ConfigurationError: `ca_file` cannot be read or holds no certificate, or the installed
            `cryptography` cannot be used.
        TooManyOpenFiles: no file descriptor is left to read them with.
    """
    try:
        changed_at = ca_file.stat().st_mtime_ns if ca_file is not None else 0
    except OSError:
        changed_at = 0  # the context reads the file and reports why it cannot be read
    return _context_of(library, ca_file, changed_at, ssl.get_default_verify_paths())


@functools.lru_cache(maxsize=8)
def _context_of(
    library: TlsLibrary,
    ca_file: Path | None,
    _changed_at: int,
    _system: ssl.DefaultVerifyPaths,
) -> TlsContext:
    if descriptors.none_left():  # the authorities would be missing for as long as this is kept
        raise descriptors.too_many("the certificates of the authorities")
    if library == "stdlib":
        return PythonContext(ca_file)
    if _why_not is not None:
        raise errors.ConfigurationError(
            f"https cannot be used with the installed cryptography: {_why_not}; install the version"
            " that Slurper is tested with, or set SLURPER_TLS=stdlib until you can"
        )
    return OpensslContext(ca_file)
