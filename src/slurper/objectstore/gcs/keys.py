"""Private keys of service accounts.

They come from users. So they are loaded without a search for the factors of their primes, which
takes a fifth of a second for 4,096 bits, and minutes for the largest key that fits into a request.
"""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

_MAX_BITS = 4096
"""Google makes keys of 2,048 bits."""


def load(text: str) -> RSAPrivateKey:
    """Load an RSA key from its PEM text. Raises ValueError, which holds nothing of the key."""
    try:
        key = load_pem_private_key(
            text.encode(), password=None, unsafe_skip_rsa_key_validation=True
        )
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("it is no private key") from error
    if not isinstance(key, RSAPrivateKey) or key.key_size > _MAX_BITS or not _fits(key):
        raise ValueError(f"it is no RSA key of at most {_MAX_BITS} bits")
    return key


def _fits(key: RSAPrivateKey) -> bool:
    """Whether the numbers of a key belong together. A wrong one could not sign."""
    numbers = key.private_numbers()
    public, d, p, q = numbers.public_numbers, numbers.d, numbers.p, numbers.q
    return (
        min(p, q, d, public.e) > 1
        and p * q == public.n
        and d * public.e % (p - 1) == 1
        and d * public.e % (q - 1) == 1
        and numbers.dmp1 == d % (p - 1)
        and numbers.dmq1 == d % (q - 1)
        and numbers.iqmp * q % p == 1
    )
