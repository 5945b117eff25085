"""A service account, and the token endpoint that believes it and nobody else."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

from slurper.objectstore.gcs.tokens import TOKEN_URI
from slurper.secrets import GcsCredentials

EMAIL = "mover@project.iam.gserviceaccount.com"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@cache
def private_key(name: str) -> rsa.RSAPrivateKey:
    """The same key for the same name, in this process; making one takes a while."""
    assert name
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(name: str, *, pkcs1: bool = False) -> str:
    """A private key as JSON key files hold it, or in the older form."""
    form = serialization.PrivateFormat
    return (
        private_key(name)
        .private_bytes(
            serialization.Encoding.PEM,
            form.TraditionalOpenSSL if pkcs1 else form.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


ACCOUNT = GcsCredentials(client_email=EMAIL, private_key=pem("right"))


@dataclass
class TokenEndpoint:
    """Checks claims as Google does: signature, issuer, audience, scope and times."""

    lifetime_seconds: int = 3600
    given: list[str] = field(default_factory=list)
    refused: int = 0
    _valid_until: dict[str, float] = field(default_factory=dict)

    def answer(self, body: bytes) -> tuple[int, dict[str, object]]:
        """Status and document for a request for a token."""
        form = parse_qs(body.decode())
        try:
            assert form["grant_type"] == [GRANT]
            claim = jwt.decode(  # type: ignore[no-untyped-call]
                form["assertion"][0], certs=_public_pem(), audience=TOKEN_URI
            )
            assert claim["iss"] == EMAIL
            assert claim["exp"] - claim["iat"] <= 3600
            assert claim["scope"].startswith("https://www.googleapis.com/auth/")
        except Exception as error:
            self.refused += 1
            return 400, {"error": "invalid_grant", "error_description": f"Invalid JWT: {error}"}
        token = self.grant()
        self.given.append(token)
        answer = {"access_token": token, "expires_in": self.lifetime_seconds}
        return 200, {**answer, "token_type": "Bearer"}

    def grant(self) -> str:
        """A token without a question, as for somebody who is not under test."""
        token = f"ya29.{secrets.token_urlsafe(24)}"
        self._valid_until[token] = time.monotonic() + self.lifetime_seconds
        return token

    def admits(self, authorization: str) -> bool:
        """Whether a request with this header may pass."""
        scheme, _, token = authorization.partition(" ")
        return scheme == "Bearer" and self._valid_until.get(token, 0.0) > time.monotonic()

    def revoke_all(self) -> None:
        """Refuse every token given so far."""
        self._valid_until.clear()


def _public_pem() -> bytes:
    return (
        private_key("right")
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
