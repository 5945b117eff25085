"""Who may call: tokens, in any of the headers that Cloudflare's clients use.

A request may have `Authorization: Bearer`, `X-Auth-Key` and `X-Auth-User-Service-Key`.
`X-Auth-Email` is ignored. The value of each header is checked against the same tokens. One valid
token is enough, because the TypeScript SDK sends every header that its environment has a value for.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

from pydantic import SecretStr

from slurper import errors
from slurper.api.attempts import Attempts
from slurper.api.audit import Call
from slurper.api.envelope import Code, Problem, Refusal
from slurper.api.known_tokens import KnownTokens
from slurper.database.tokens import USE_SECONDS, TokenInfo, TokenStore, sha256_of
from slurper.job import rules
from slurper.job.access import STATIC, Scope

_STRAY_EMAIL = (
    "only X-Auth-Email was sent, without X-Auth-Key or a bearer token. If you did pass a token: "
    "the Cloudflare SDK for Python drops it when CLOUDFLARE_EMAIL is set in the environment, so "
    "unset CLOUDFLARE_EMAIL (or set CLOUDFLARE_API_KEY beside it)"
)
_NO_CREDENTIALS = "send a token in the header Authorization: Bearer <token>, or in X-Auth-Key"
_NOT_VALID = "the token is not valid for this account"
_EXPIRED = "the token has expired; make a new one with `slurper token create`"
_NONE_EXISTS = (
    "this server has no token yet: create one with `slurper token create`, "
    "or start it with SLURPER_API_TOKEN set"
)
_LIMITED = (
    "too many requests without a valid token came from this address; a valid one works at once"
)

_STATIC_INFO = TokenInfo(
    name=STATIC,
    accounts=None,
    scope=Scope.ADMIN,
    created_at=datetime.fromtimestamp(0, UTC),
    expires_at=None,
    has_expired=False,
    used_at=None,
)
"""The token of the settings."""


def check_account_id(account_id: str) -> None:
    """Refuse a text that cannot be an account id. Raises Refusal: with 400."""
    try:
        rules.account_id(account_id)
    except errors.InvalidField as error:
        text = f"No route for the URI: {error.message}"
        problem = Problem(Code.NO_ROUTE, text, "/path/account_id")
        raise Refusal(HTTPStatus.BAD_REQUEST, problem) from error


class Gate:
    """Lets callers in. It remembers failed attempts, and when the use of a token was noted."""

    def __init__(
        self, tokens: TokenStore, static_token: SecretStr | None, attempts: Attempts
    ) -> None:
        self._tokens = tokens
        self._static = static_token
        self._attempts = attempts
        self._known = KnownTokens(tokens)
        self._noted: dict[str, float] = {}
        self._noting: set[asyncio.Task[None]] = set()

    async def admit(self, call: Call, headers: Mapping[str, str]) -> None:
        """Let a call in whose headers have a token for its account and scope.

        The call gets the name of the token.

        Raises:
            Refusal: 401, 403 or 429, with a text that says what to change.
        """
        denied: list[_Denied] = []
        for token in presented_tokens(headers):
            found = await self._find(token, call)
            denial = _denied(found, call)
            if found is not None and denial is None:
                call.who = found.name
                self._note_use(found)
                return
            denied += [denial] if denial is not None else []
        await self._refuse(call, headers, denied)

    async def _find(self, token: str, call: Call) -> TokenInfo | None:
        """Return what is known of a token. Guesses of a limited address make no query each."""
        if self._static is not None and is_same(token, self._static):
            return _STATIC_INFO
        if self._attempts.wait_seconds(call.address) and not await self._known.has(token):
            return None
        return await self._tokens.find(token)

    async def _refuse(self, call: Call, headers: Mapping[str, str], denied: list[_Denied]) -> None:
        """Refuse a call. If it has several tokens, the one that is most nearly right counts."""
        if denied:
            nearest = max(denied, key=lambda one: (one.needs is not None, one.who is not None))
        else:
            text = _STRAY_EMAIL if "x-auth-email" in headers else _NO_CREDENTIALS
            nearest = _Denied(text)
        call.who, call.refused = nearest.who, nearest.text
        if nearest.needs is not None:
            raise _forbidden(nearest.text)
        wait = self._attempts.failed(call.address)
        if wait:
            call.unlogged = True
            raise limited(wait)
        if self._static is None and not await self._tokens.exist():
            raise _unauthorized(_NONE_EXISTS)
        raise _unauthorized(nearest.text)

    def _note_use(self, token: TokenInfo) -> None:
        """Have the use of a token written down, unless this process did that in the last minute.

        The request does not wait for it: a read must not wait for those who write.
        """
        now = time.monotonic()
        if token is _STATIC_INFO or now - self._noted.get(token.name, -math.inf) < USE_SECONDS:
            return
        self._noted[token.name] = now
        noting = asyncio.create_task(self._write_use(token.name))
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)

    async def _write_use(self, name: str) -> None:
        with suppress(errors.DatabaseUnavailable):  # it is of no use to a request
            await self._tokens.note_use(name)


@dataclass(frozen=True, slots=True)
class _Denied:
    """Why a token does not open an operation."""

    text: str
    who: str | None = None
    """The token's name; None: no such token exists."""
    needs: Scope | None = None
    """The scope that it lacks. All else about it is right."""


def _denied(token: TokenInfo | None, call: Call) -> _Denied | None:
    """Say why a token does not allow the call; None: it does."""
    if token is None:
        return _Denied(_NOT_VALID)
    if token.has_expired:
        return _Denied(_EXPIRED, token.name)
    if token.accounts is not None and call.account_id not in token.accounts:
        return _Denied(_NOT_VALID, token.name)
    if not token.scope.includes(call.needs):
        text = (
            f"the token has the scope {token.scope}, and this operation needs {call.needs}; make "
            f"one with `slurper token create NAME --scope {call.needs}`"
        )
        return _Denied(text, token.name, call.needs)
    return None


def presented_tokens(headers: Mapping[str, str]) -> list[str]:
    """Return the tokens in the headers of a request, the bearer token first."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    candidates = (
        bearer.strip() if scheme.lower() == "bearer" else "",
        headers.get("x-auth-key", ""),
        headers.get("x-auth-user-service-key", ""),
    )
    return [token for token in candidates if token]


def is_same(token: str, wanted: SecretStr) -> bool:
    """Compare in constant time. Both are hashed first, so that their lengths do not show."""
    return hmac.compare_digest(sha256_of(token), sha256_of(wanted.get_secret_value()))


def revoked() -> Refusal:
    """Return the refusal of a request whose token was revoked while it was carried out."""
    return _unauthorized("the token was revoked while the request was carried out")


def _unauthorized(reason: str) -> Refusal:
    return Refusal(
        HTTPStatus.UNAUTHORIZED,
        Problem(Code.AUTHENTICATION, f"Authentication error: {reason}"),
        headers={"www-authenticate": "Bearer"},
    )


def _forbidden(reason: str) -> Refusal:
    problem = Problem(Code.SCOPE, f"Unauthorized to access requested resource: {reason}")
    return Refusal(HTTPStatus.FORBIDDEN, problem)


def limited(wait_seconds: float) -> Refusal:
    """Return the refusal of a failure that is one too many."""
    return Refusal(
        HTTPStatus.TOO_MANY_REQUESTS,
        Problem(Code.AUTHENTICATION_LIMIT, f"Too many authentication failures: {_LIMITED}"),
        # The SDKs send a request again after a 429, unless told not to. The same token fails again.
        headers={"retry-after": str(math.ceil(wait_seconds)), "x-should-retry": "false"},
    )
