"""OAuth access tokens of a Google service account, renewed before they expire.

google-auth signs the claim, in a thread. Our own client sends the claim, because it never blocks
the event loop, and obeys the endpoint policy and `ca_file`.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable
from urllib.parse import urlencode, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from slurper import errors
from slurper.http.client import HttpClient, TransportOptions
from slurper.http.messages import Request, Response
from slurper.http.places import NOBODY, Owner
from slurper.objectstore import documents, error_answers, strangers, texts
from slurper.objectstore.gcs import keys
from slurper.secrets import GcsCredentials

TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
"""Google's token endpoint. Every claim names it as its audience, even if it is sent elsewhere."""

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_CLAIM_SECONDS = 3600
_MAX_ANSWER_BYTES = 64 * 1024
_MAX_TOKEN_CHARACTERS = 16 * 1024

_RENEWED_AFTER, _USED_UNTIL = 0.8, 0.95
"""Shares of a token's life. A token for an hour is renewed in the background when 12 minutes are
left, and used until 3 minutes are left. A request is not repeated for that long."""

_RENEWAL_PAUSE_SECONDS = 10.0
"""Pause after a failed renewal in the background, while the old token can still be used."""

_SKEW_TOLERATED_SECONDS = 60.0

_MOST_SECONDS = 86_400.0
"""No token is used for longer, whatever its life is said to be."""


class Accounts:
    """The service accounts that a process uses now. All stores of an account share one token."""

    def __init__(self) -> None:
        self._in_use: dict[tuple[GcsCredentials, str, TransportOptions, Owner], AccessTokens] = {}

    def join(
        self,
        credentials: GcsCredentials,
        token_uri: str,
        options: TransportOptions,
        *,
        owner: Owner = NOBODY,
        clock: Callable[[], float] = time.time,
    ) -> AccessTokens:
        """Return the tokens of an account, until `leave`. The first caller's `clock` is used."""
        account = (credentials, token_uri, options, owner)
        tokens = self._in_use.get(account)
        if tokens is None:
            tokens = AccessTokens(credentials, token_uri, options, owner=owner, clock=clock)
            self._in_use[account] = tokens
        tokens.users += 1
        return tokens

    async def leave(self, tokens: AccessTokens) -> None:
        """Give back what `join` returned. The last user closes it."""
        tokens.users -= 1
        if not tokens.users:
            self._in_use = {a: found for a, found in self._in_use.items() if found is not tokens}
            await tokens.close()


class AccessTokens:
    """The current token of one service account. Only one renewal runs at a time."""

    def __init__(
        self,
        credentials: GcsCredentials,
        token_uri: str,
        options: TransportOptions,
        *,
        owner: Owner = NOBODY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; nothing is sent yet. `clock` gives Unix time, for the claims."""
        parts = urlsplit(token_uri)
        self._credentials = credentials
        self._clock = clock
        self._skew_seconds = 0.0
        self._target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        self._client = HttpClient(
            f"{parts.scheme}://{parts.netloc}",
            options,
            sign=lambda _: "",
            trusted=token_uri != TOKEN_URI,
            owner=owner,
        )
        self._renewal: asyncio.Task[None] | None = None
        self._renew_at = self._used_until = -math.inf
        self.current = ""
        """The token, empty before the first `ready`."""
        self.users = 0

    async def ready(self) -> None:
        """Return when `current` can be used.

        Raises:
            CredentialsRejected: Google does not take the service account.
            StoreError, TransportError: the token endpoint does not answer as it should.
        """
        now = time.monotonic()  # a token's life is told in seconds, so our clock may be wrong
        if now < self._renew_at:
            return
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.ensure_future(self._renew())
            self._renewal.add_done_callback(self._renewed)
        if now >= self._used_until:
            await asyncio.shield(self._renewal)

    def forget(self, token: str) -> None:
        """Never use this token again: a store has refused it."""
        if token == self.current:
            self._renew_at = self._used_until = -math.inf

    async def close(self) -> None:
        """End a renewal under way and close every connection."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        await self._client.close()

    def _renewed(self, renewal: asyncio.Task[None]) -> None:
        """Take the outcome: perhaps no request waits for it. After a failure, try again later."""
        if not renewal.cancelled() and renewal.exception() is not None:
            self._renew_at = min(self._used_until, time.monotonic() + _RENEWAL_PAUSE_SECONDS)

    async def _renew(self) -> None:
        asked_at = time.monotonic()
        response = await self._ask()
        if self._corrected_clock(response):
            response = await self._ask()
        if response.status != 200:
            raise self._error(response)
        token, seconds = _read_token(response)
        self.current = token
        self._renew_at = asked_at + seconds * _RENEWED_AFTER
        self._used_until = asked_at + seconds * _USED_UNTIL

    async def _ask(self) -> Response:
        issued_at = int(self._clock() + self._skew_seconds)
        claim = await asyncio.to_thread(_signed_claim, self._credentials, issued_at)
        body = urlencode({"grant_type": _GRANT, "assertion": claim}).encode()
        headers = {"content-type": "application/x-www-form-urlencoded"}
        request = Request("POST", self._target, headers, (body,))
        return await self._client.send(request, max_body_bytes=_MAX_ANSWER_BYTES)

    def _corrected_clock(self, response: Response) -> bool:
        """Follow Google's clock from now on, if our clock may be why the claim was refused."""
        if response.status not in (400, 401):
            return False
        skew = error_answers.skew_seconds(response, self._clock())
        if skew is None or abs(skew - self._skew_seconds) < _SKEW_TOLERATED_SECONDS:
            return False
        self._skew_seconds = skew
        return True

    def _error(self, response: Response) -> errors.StoreError:
        text = documents.text_of(response)
        said = documents.member(text, "error_description")
        kind: type[errors.StoreError] = errors.CredentialsRejected
        if response.status in (408, 429) or not 400 <= response.status < 500:
            kind = errors.UnavailableStore
        return kind(
            error_answers.TOKEN_OPERATION,
            status=response.status,
            code=texts.cleaned(documents.member(text, "error")),
            detail=texts.cleaned(said) if said else strangers.kind_of(text.encode()),
            said=texts.cleaned(said or documents.words(text), documents.MAX_WORDS_CHARACTERS),
            retries=response.retries,
        )


def _signed_claim(credentials: GcsCredentials, issued_at: int) -> str:
    from google.auth import jwt  # takes a while to load, and few processes need it

    claim = {
        "iss": credentials.client_email,
        "scope": _SCOPE,
        "aud": TOKEN_URI,
        "iat": issued_at,
        "exp": issued_at + _CLAIM_SECONDS,
    }
    # google-auth has annotations for some of its functions only.
    signer = _Signer(keys.load(credentials.private_key))
    signed: bytes = jwt.encode(signer, claim)  # type: ignore[no-untyped-call]
    return signed.decode()


class _Signer:
    """Signs for google-auth. Its own signer would search for factors of the key's primes."""

    key_id = None

    def __init__(self, key: RSAPrivateKey) -> None:
        self._key = key

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message, padding.PKCS1v15(), hashes.SHA256())


def _read_token(response: Response) -> tuple[str, float]:
    """The token and the seconds it lives."""
    try:
        answer = json.loads(b"".join(response.body))
        token, seconds = answer["access_token"], float(answer["expires_in"])
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise _no_token(response, "no access token") from error
    # A token that is not visible ASCII could not be sent in a header. The error must not show it.
    is_text = isinstance(token, str) and 0 < len(token) <= _MAX_TOKEN_CHARACTERS
    if not (is_text and token.isascii() and token.isprintable() and seconds > 0):
        raise _no_token(response, "no access token that could be used")
    return token, min(seconds, _MOST_SECONDS)


def _no_token(response: Response, what: str) -> errors.StoreError:
    detail = f"the token endpoint answers with {what}"
    return errors.UnavailableStore(
        error_answers.TOKEN_OPERATION, status=response.status, detail=detail
    )
