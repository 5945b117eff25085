"""A client of the Super Slurper API, for the job commands."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import httpx

from slurper import errors
from slurper.cli.console import JsonValue

PAGE_SIZE = 50
TIMEOUT_SECONDS = 60.0


class ServerRefused(errors.SlurperError):
    """The server answered with an error."""


class Client:
    """One account's jobs at one server. Made by `connect`."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def get(self, path: str, **query: int) -> JsonValue:
        """Return `result` of a GET below `/slurper`."""
        return self._ask("GET", path, query)

    def put(self, path: str, body: JsonValue = None) -> JsonValue:
        """Return `result` of a PUT below `/slurper`. None: it has no body."""
        return self._ask("PUT", path, {}, body)

    def patch(self, path: str, body: JsonValue) -> JsonValue:
        """Return `result` of a PATCH below `/slurper`."""
        return self._ask("PATCH", path, {}, body)

    def delete(self, path: str) -> JsonValue:
        """Return `result` of a DELETE below `/slurper`."""
        return self._ask("DELETE", path, {})

    def pages(self, path: str, *, limit: int | None, offset: int = 0) -> Iterator[JsonValue]:
        """Yield up to `limit` entries of a list (None: all of them), page by page."""
        left = limit
        while left is None or left > 0:
            size = PAGE_SIZE if left is None else min(left, PAGE_SIZE)
            page = self.get(path, limit=size, offset=offset)
            yield from page
            if len(page) < size:
                return
            offset += len(page)
            left = None if left is None else left - len(page)

    def _ask(
        self, method: str, path: str, query: dict[str, int], body: JsonValue = None
    ) -> JsonValue:
        try:
            answer = self._http.request(method, path, params=query, json=body)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise errors.ConfigurationError(
                f"the server {self._http.base_url.host}:{self._http.base_url.port or ''} cannot be "
                f"reached: {reason}; is `slurper serve` running there? (--server, SLURPER_SERVER)"
            ) from error
        return _result(answer)


@contextmanager
def connect(server: str, account_id: str | None, token: str | None) -> Iterator[Client]:
    """Open a client.

    Raises:
        ConfigurationError: the account or token is missing, or `server` is not a URL.
    """
    if not account_id:
        raise errors.ConfigurationError("name the account: --account or CLOUDFLARE_ACCOUNT_ID")
    if not token:
        raise errors.ConfigurationError("give a token: --token or SLURPER_API_TOKEN")
    base = f"{server.rstrip('/')}/accounts/{quote(account_id, safe='')}/slurper/"
    try:
        http = httpx.Client(
            base_url=base,
            headers={"authorization": f"Bearer {token}"},
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
            verify=_checks() if base.startswith("https:") else True,
        )
    except httpx.InvalidURL as error:
        raise errors.ConfigurationError(f"--server {server}: {error}") from error
    with http:
        yield Client(http)


def _checks() -> ssl.SSLContext:
    """Accept no certificate that names the server only in its common name, as for stores."""
    context = httpx.create_ssl_context(trust_env=False)
    context.hostname_checks_common_name = False
    return context


def _result(answer: httpx.Response) -> JsonValue:
    try:
        envelope = answer.json()
        refusals = [
            _sentence(item) for item in envelope["errors"] if isinstance(item.get("message"), str)
        ]
        result = envelope["result"]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ServerRefused(
            f"{answer.request.url.host} answered HTTP {answer.status_code} without the API's "
            "envelope; --server should be the address of `slurper serve`"
        ) from error
    if answer.is_success:
        return result
    raise ServerRefused("; ".join(refusals) or f"HTTP {answer.status_code}")


def _sentence(item: JsonValue) -> str:
    pointer = (item.get("source") or {}).get("pointer")
    return f"{item['message']} ({pointer})" if pointer else item["message"]
