"""How many requests to one origin may be under way: an adaptive window (AIMD).

The window works as in TCP (RFC 5681, section 3.1): additive increase, multiplicative decrease. A
throttled answer halves the window. As many good answers as the window is wide make it wider by one.
So throttling slows a job down to the provider's rate, and its objects do not fail (design rule 8).
"""

from __future__ import annotations


class AdaptiveWindow:
    """The number of requests allowed at once, between 1 and a ceiling.

    A provider that throttles may answer "slow down" to every request under way. These answers count
    as one. So after a cut, only an answer to a request that was sent later can cut again.
    """

    __slots__ = ("_ceiling", "_cut_at", "_width", "narrowed", "size")

    def __init__(self, ceiling: int) -> None:
        """Begin at the ceiling. Most providers never throttle, and a first cut comes soon."""
        self._ceiling = float(ceiling)
        self._cut_at = float("-inf")
        self._resize(self._ceiling)

    def _resize(self, width: float) -> None:
        self._width = width
        # These are plain attributes, because every request reads them and few change them.
        self.size = int(width)
        """How many requests may be under way now."""
        self.narrowed = width < self._ceiling
        """Whether the window is below its ceiling."""

    def granted(self) -> None:
        """Count an answer that was not throttled."""
        if self.narrowed:
            self._resize(min(self._ceiling, self._width + 1.0 / self._width))

    def throttled(self, *, sent_at: float, now: float) -> None:
        """Count a throttled answer to a request sent at `sent_at` (monotonic seconds)."""
        if sent_at >= self._cut_at:
            self._resize(max(1.0, self._width / 2.0))
            self._cut_at = now
