"""How many requests to one origin may be under way: an adaptive window (AIMD).

Additive increase, multiplicative decrease, as TCP does it (RFC 5681, section 3.1): a throttled
answer halves the window, and each window's worth of good answers widens it by one. Throttling then
slows a job down to what the provider grants instead of failing its objects (design rule 8).
"""

from __future__ import annotations


class AdaptiveWindow:
    """The number of requests allowed at once, between 1 and a ceiling.

    A provider that says "slow down" says so to every request under way. All those answers are one
    message, so after a cut only an answer to a request that was sent later can cut again.
    """

    __slots__ = ("_ceiling", "_cut_at", "_width", "narrowed", "size")

    def __init__(self, ceiling: int) -> None:
        """Begin fully open: most providers never throttle, and the first cut comes fast."""
        self._ceiling = float(ceiling)
        self._cut_at = float("-inf")
        self._resize(self._ceiling)

    def _resize(self, width: float) -> None:
        self._width = width
        # Plain attributes, since every request asks for them and few change them.
        self.size = int(width)
        """How many requests may be under way now."""
        self.narrowed = width < self._ceiling
        """Whether the window is below its ceiling."""

    def granted(self) -> None:
        """Take note of an answer that was not throttled."""
        if self.narrowed:
            self._resize(min(self._ceiling, self._width + 1.0 / self._width))

    def throttled(self, *, sent_at: float, now: float) -> None:
        """Take note of a throttled answer to a request sent at `sent_at` (monotonic seconds)."""
        if sent_at >= self._cut_at:
            self._resize(max(1.0, self._width / 2.0))
            self._cut_at = now
