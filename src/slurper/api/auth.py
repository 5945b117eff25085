"""Who may call: tokens, in any of the headers that Cloudflare's clients use.

A request may have `Authorization: Bearer`, `X-Auth-Key` and `X-Auth-User-Service-Key`.
`X-Auth-Email` is ignored. The value of each header is checked against the same tokens. One valid
token is enough, because the TypeScript SDK sends every header that its environment has a value for.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from http import HTTPStatus

from pydantic import SecretStr

from slurper.api.envelope import Code, Problem, Refusal
from slurper.database.tokens import TokenStore

# An account id is a label in the host name of its R2 endpoint.
_ACCOUNT_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")

_STRAY_EMAIL = (
    "only X-Auth-Email was sent, without X-Auth-Key or a bearer token. If you did pass a token: "
    "the Cloudflare SDK for Python drops it when CLOUDFLARE_EMAIL is set in the environment, so "
    "unset CLOUDFLARE_EMAIL (or set CLOUDFLARE_API_KEY beside it)"
)
_NO_CREDENTIALS = "send a token in the header Authorization: Bearer <token>, or in X-Auth-Key"
_NOT_VALID = "the token is not valid for this account"
_NONE_EXISTS = (
    "this server has no token yet: create one with `slurper token create`, "
    "or start it with SLURPER_API_TOKEN set"
)


def check_account_id(account_id: str) -> None:
    """Refuse a text that cannot be an account id. Raises Refusal: with 400."""
    if _ACCOUNT_ID.fullmatch(account_id) is None:
        raise Refusal(
            HTTPStatus.BAD_REQUEST,
            Problem(
                Code.NO_ROUTE,
                "No route for the URI: an account id has 1 to 63 letters, digits, hyphens and "
                "underscores, with a letter or digit at both ends",
                "/path/account_id",
            ),
        )


async def authorize(
    headers: Mapping[str, str],
    account_id: str,
    *,
    tokens: TokenStore,
    static_token: SecretStr | None,
) -> None:
    """Refuse a request without a token that is valid for the account.

    Raises:
        Refusal: with 401, and a text that says what to change.
    """
    presented = presented_tokens(headers)
    for token in presented:
        if _is_static(token, static_token) or await tokens.verify(token, account_id):
            return
    if static_token is None and not await tokens.list():
        raise _unauthorized(_NONE_EXISTS)
    if presented:
        raise _unauthorized(_NOT_VALID)
    raise _unauthorized(_STRAY_EMAIL if "x-auth-email" in headers else _NO_CREDENTIALS)


def presented_tokens(headers: Mapping[str, str]) -> list[str]:
    """Return the tokens in the headers of a request, the bearer token first."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    candidates = (
        bearer.strip() if scheme.lower() == "bearer" else "",
        headers.get("x-auth-key", ""),
        headers.get("x-auth-user-service-key", ""),
    )
    return [token for token in candidates if token]


def _is_static(token: str, static_token: SecretStr | None) -> bool:
    """Compare in constant time. Both are hashed first, so that their lengths do not show."""
    if static_token is None:
        return False
    return hmac.compare_digest(_digest(token), _digest(static_token.get_secret_value()))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _unauthorized(reason: str) -> Refusal:
    return Refusal(
        HTTPStatus.UNAUTHORIZED,
        Problem(Code.AUTHENTICATION, f"Authentication error: {reason}"),
        headers={"www-authenticate": "Bearer"},
    )
