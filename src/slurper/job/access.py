"""What the tokens of the API may do."""

from __future__ import annotations

from enum import StrEnum

STATIC = "static"
"""The name under which the token in the settings acts. No other token may have it."""


class Scope(StrEnum):
    """What a token may do. Each scope includes the ones before it."""

    READ = "read"
    """Look at jobs and their logs."""
    WRITE = "write"
    """Make, change and command jobs, and check stores."""
    ADMIN = "admin"
    """What concerns the whole service, such as its metrics. Such a token is for every account."""

    def includes(self, needed: Scope) -> bool:
        """Whether a token of this scope may do what needs the other."""
        scopes = list(Scope)
        return scopes.index(self) >= scopes.index(needed)
