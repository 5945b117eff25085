"""HTTP requests to one origin. Every send is signed anew, and redirects are not followed.

A request is retried where that is safe (request *retry*, design rule 8):

    outcome                                     idempotent      not idempotent
    no connection came about                    yes             yes
    no file descriptor is left                  until the deadline, as a request that is throttled
    no complete response                        yes             no
    408, 429, 503; `should_retry` says so       yes             yes
    500, 502, 504                               yes             no, the request may have worked
    kept connection was dead already            once, at once,  never: only new connections are
                                                not counted     used
    EndpointRefused, TlsRefused                 no              no
    body over `max_body_bytes`                  no              no

The same failure may come again and again while no other request to this server succeeds. Then the
job may be waiting only for this request. `serves_others` finds out whether the server serves other
requests. If it does, this request is given up after fewer retries. This does not apply to two kinds
of failure: answers that ask to slow down, which are obeyed, and connections that cannot be opened,
because no single request is the cause of that.
"""

from __future__ import annotations

import asyncio
import functools
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from slurper import endpoints, errors
from slurper.endpoints import EndpointPolicy, Listed
from slurper.http import messages, tls
from slurper.http.connection import JOINED_BYTES
from slurper.http.dates import http_date
from slurper.http.dialer import Dialer, NotSent, Origin
from slurper.http.exchange import StaleConnection
from slurper.http.messages import Request, Response
from slurper.http.outbox import Outbox
from slurper.http.places import NOBODY, Owner
from slurper.http.pool import Pool, Pools
from slurper.http.stall import StallLimits
from slurper.http.streams import Feed, Pieces, StreamDeclined
from slurper.settings import Settings, TlsLibrary

BACKOFF_BASE_SECONDS = 0.2
BACKOFF_CAP_SECONDS = 20.0
RETRY_AFTER_CAP_SECONDS = 60.0

FEED_WAIT_SECONDS = 5.0
"""How long a request whose body comes from another store waits for a connection."""

LASTING_RETRIES = 2
"""After this many retries with the same result, a failure is taken to be lasting."""
QUIET_SECONDS = 0.2
"""If no request has succeeded for this long, the job may be waiting only for one answer."""

FAR_SECONDS = 0.01
"""A server is far away if its quickest answer takes as long as this."""
CONNECTIONS_AHEAD = 24
"""A new connection costs one to three round trips. Opened ahead, that time is not waited for."""

_THROTTLED = frozenset({429, 503})
_NOT_DONE = frozenset({408, 429, 503})
"""Answers that mean that the server has not acted on the request."""
_PASSING = frozenset({500, 502, 504}) | _NOT_DONE
_UNSENT = (NotSent, errors.TooManyOpenFiles)
"""Failures before the server has seen anything of the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportOptions:
    """How a client connects, waits and retries."""

    connect_timeout_seconds: float = 10.0
    """Name resolution, TCP and TLS together."""
    idle_timeout_seconds: float = 60.0
    """A request is given up when nothing moves in either direction for this long."""
    min_bytes_per_second: int = 128
    """A request is given up when a body moves slower, averaged over `idle_timeout_seconds`."""
    request_retries: int = 5
    """How often a request that failed is sent again. A throttled one is sent until the deadline."""
    retry_deadline_seconds: float = 120.0
    """No retry begins later than this after the request began."""
    max_connections: int = 64
    connections_ahead: int = 0
    """So many connections are opened before they are needed, if the server is far away."""
    pools: Pools | None = None
    """Connections that several clients share. The code that made them closes them. None: the client
    has its own."""
    ca_file: Path | None = None
    """PEM certificates to trust beside the system's."""
    tls: TlsLibrary = "openssl"
    allow_private_endpoints: bool = False
    allowed_endpoints: tuple[Listed, ...] = ()
    answers_others: bool = False
    """The event loop also answers other people's requests. So no answer may keep it busy: long
    listings are refused, and what is not short is read in a thread."""

    @classmethod
    def from_settings(cls, settings: Settings) -> TransportOptions:
        """Return the options of a worker. Each object or part in flight has one connection."""
        return cls(
            connect_timeout_seconds=settings.connect_timeout_seconds,
            idle_timeout_seconds=settings.idle_timeout_seconds,
            min_bytes_per_second=settings.min_bytes_per_second,
            request_retries=settings.request_retries,
            retry_deadline_seconds=settings.retry_deadline_seconds,
            max_connections=settings.in_flight_requests,
            connections_ahead=CONNECTIONS_AHEAD,
            ca_file=settings.ca_file,
            tls=settings.tls,
            allow_private_endpoints=settings.allow_private_endpoints,
            allowed_endpoints=endpoints.parse(settings.allowed_endpoints),
        )

    def policy(self, *, trusted: bool) -> EndpointPolicy:
        """Return the endpoint policy for an origin. The operator chooses those that are trusted."""
        return EndpointPolicy(
            trusted=trusted,
            allow_private=self.allow_private_endpoints,
            listed=self.allowed_endpoints,
        )


class Waiting(NamedTuple):
    """A request that waits for its next retry."""

    since: float
    """When it began, in monotonic seconds."""
    outcome: Response | errors.TransportError
    """How its last attempt ended."""


@dataclass(slots=True)
class ClientStatistics:
    """What a client has done so far."""

    requests: int = 0
    """Calls of `send`."""
    retries: int = 0
    """Requests sent again. Replacing a kept connection that was dead does not count."""
    throttled: int = 0
    """Answers 429 and 503."""
    delay: float = math.inf
    """The shortest time from a request to its answer, in seconds; infinite before the first one."""
    waiting: dict[int, Waiting] = field(default_factory=dict)
    """Requests that are waiting for their next retry."""

    @property
    def is_far(self) -> bool:
        """Whether each answer takes long, as far as is known by now."""
        return FAR_SECONDS <= self.delay < math.inf


def backoff_seconds(retry: int, fraction: float) -> float:
    """How long to wait before retry number `retry` (from 1): exponential, with full jitter.

    `fraction` (0 <= fraction < 1) is the random part. The bound doubles with every retry up to
    BACKOFF_CAP_SECONDS.
    """
    bound = BACKOFF_BASE_SECONDS * 2.0 ** min(retry - 1, 32)
    return fraction * min(BACKOFF_CAP_SECONDS, bound)


def retry_after_seconds(headers: dict[str, str]) -> float | None:
    """Read Retry-After, a number of seconds or an HTTP date; None when absent or unreadable.

    A date is compared with the server's own Date header if there is one, because the clocks may
    differ. The result is between 0 and RETRY_AFTER_CAP_SECONDS.
    """
    value = headers.get("retry-after", "").strip()
    if value.isdecimal() and value.isascii():
        seconds = float(value)  # a number with too many digits is infinite
    else:
        until = http_date(value)
        if until is None:
            return None
        now = http_date(headers.get("date", "")) or datetime.now(UTC)
        seconds = (until - now).total_seconds()
    return min(max(seconds, 0.0), RETRY_AFTER_CAP_SECONDS)


class HttpClient:
    """Sends requests to one origin over kept connections.

    `sign(request)` is called for each send. It returns the additional headers of that send, as
    lines of `messages.header_lines`. The client itself adds Host and, if it is missing,
    content-length.

    `should_retry(response)` adds the temporary failures of one dialect to the usual statuses.
    `asks_to_slow_down(response)` tells whether a retried answer asks for fewer requests. It is not
    called for 429, which always does. The default is that every 503 does.
    `serves_others(request, since, retries)` tells whether the server serves requests other than
    this one, which has failed in the same way in `retries` retries. Only what the server did after
    `since` (monotonic seconds) counts.

    `trusted` switches the endpoint policy off, for an origin that the operator has chosen.
    `owner` is whose limits of name look-ups count.
    `headers` are sent with every request; they are not signed.
    """

    def __init__(
        self,
        origin: str,
        options: TransportOptions,
        *,
        sign: Callable[[Request], str],
        trusted: bool = False,
        owner: Owner = NOBODY,
        should_retry: Callable[[Response], bool] | None = None,
        asks_to_slow_down: Callable[[Response], bool] = lambda response: response.status == 503,
        serves_others: Callable[[Request, float, int], Awaitable[bool]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        parsed = Origin.parse(origin)
        is_secured = parsed.scheme == "https"
        dialer = Dialer(
            parsed,
            tls=tls.shared_context(options.ca_file, options.tls) if is_secured else None,
            connect_timeout_seconds=options.connect_timeout_seconds,
            policy=options.policy(trusted=trusted),
            owner=owner,
        )

        def own_pool() -> Pool:
            limits = StallLimits(options.idle_timeout_seconds, options.min_bytes_per_second)
            return Pool(
                dialer,
                max_connections=options.max_connections,
                stall_limits=limits,
                patience_seconds=options.connect_timeout_seconds,
            )

        shared = options.pools
        self._pool = own_pool() if shared is None else shared.get(dialer, own_pool)
        self._outbox = Outbox()
        self._fixed_lines = f"host: {parsed.authority}\r\n" + messages.header_lines(headers or {})
        self._options = options
        self._sign = sign
        self._should_retry = should_retry
        self._asks_to_slow_down = asks_to_slow_down
        self._serves_others = serves_others
        self._served_at = -math.inf
        """When a request last succeeded: its begin, or the time of its answer if it was retried."""
        self.statistics = ClientStatistics()

    async def send(self, request: Request, *, max_body_bytes: int | None = None) -> Response:
        """Send a request, with retries, and return its last answer, whatever its status.

        Raises:
            TransportError: no complete response came, even after retries. EndpointRefused and
                TlsRefused are kinds of it.
            IntegrityError: the response's body exceeds `max_body_bytes`.
            ConfigurationError: the request cannot be written as HTTP; nothing was sent.
            StreamBroken: the feed of the request ended too early.
            StreamDeclined: the answer is none that `may_stream` lets through.
        """
        self.statistics.requests += 1
        began = time.monotonic()
        outcome: Response | errors.TransportError
        try:
            outcome = await self.send_once(request, max_body_bytes=max_body_bytes)
            if not self._passing_answer(outcome, request):
                self._served_at = began
                return outcome
        except errors.TransportError as error:
            outcome = error
        return await self._send_again(request, max_body_bytes, outcome, began)

    async def send_once(
        self,
        request: Request,
        *,
        max_body_bytes: int | None = None,
        fresh: bool = False,
        pieces: Pieces | None = None,
    ) -> Response:
        """Send a request once and return its answer, whatever its status.

        An idempotent request may use a kept connection, which may be dead; not with `fresh`.
        `pieces` are those of the request's feed, if it is open already.

        Raises:
            TransportError, IntegrityError, ConfigurationError, StreamBroken, StreamDeclined: as
                `send`.
        """
        if request.feed is not None and pieces is None:
            return await self._send_fed(request, request.feed, max_body_bytes, fresh=fresh)
        pool = self._pool
        connection = pool.take() if request.idempotent and not fresh else None
        if connection is None:
            async with self._patience(pieces):
                connection = await pool.acquire(fresh=fresh or not request.idempotent)
        sent_at = time.monotonic()
        try:
            body_bytes = request.body_bytes()
            added = self._fixed_lines + self._sign(request)
            head = messages.encode_head(
                request.method, request.target, request.headers, body_bytes, added=added
            )
            answer = connection.begin(request, max_body_bytes)
            if pieces is not None:
                await connection.relay(head, pieces)
            elif body_bytes <= JOINED_BYTES:
                self._outbox.put(connection, head, request.body)
            else:
                await connection.upload(head, request.body)
            response = await answer
            connection.used_at = time.monotonic()
            if connection.used_at - sent_at < self.statistics.delay:
                self._note_delay(connection.used_at - sent_at)
        except BaseException:
            # After an error or a cancellation the state of the connection is not known.
            pool.discard(connection)
            raise
        if response.status in _THROTTLED:
            self.statistics.throttled += 1
            pool.window.throttled(sent_at=sent_at, now=time.monotonic())
        elif pool.window.narrowed:
            pool.window.granted()
        if response.stream is None:
            pool.release(connection)
        else:
            response.stream.when_ended(functools.partial(pool.release, connection))
        return response

    async def _send_fed(
        self, request: Request, feed: Feed, max_body_bytes: int | None, *, fresh: bool
    ) -> Response:
        """Open the request's feed, and send the request with it."""
        pieces = await feed.open()
        try:
            return await self.send_once(
                request, max_body_bytes=max_body_bytes, fresh=fresh, pieces=pieces
            )
        finally:
            pieces.close()

    @asynccontextmanager
    async def _patience(self, pieces: Pieces | None) -> AsyncIterator[None]:
        """Bound a wait for a connection while one of another store is held by `pieces`.

        Others may hold connections of this store and wait for one of the other. Raises
        StreamDeclined after FEED_WAIT_SECONDS.
        """
        scope = asyncio.timeout(None if pieces is None else FEED_WAIT_SECONDS)
        try:
            async with scope:
                yield
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise StreamDeclined("no connection of the target came free") from error

    def _note_delay(self, seconds: float) -> None:
        """Take note of an answer that came quicker than all before it."""
        statistics = self.statistics
        is_first = statistics.delay == math.inf
        statistics.delay = seconds
        if is_first and statistics.is_far:
            self._pool.open_ahead(self._options.connections_ahead)

    async def close(self) -> None:
        """Close every connection, unless they are shared. Requests under way fail."""
        if self._options.pools is None:
            await self._pool.close()

    # Retries

    def _passing(self, outcome: Response | errors.TransportError, request: Request) -> bool:
        """Whether sending the request again is safe and may help."""
        if isinstance(outcome, Response):
            return self._passing_answer(outcome, request)
        return outcome.retryable and (request.idempotent or isinstance(outcome, _UNSENT))

    def _passing_answer(self, response: Response, request: Request) -> bool:
        if response.status in (_PASSING if request.idempotent else _NOT_DONE):
            return True
        return self._should_retry is not None and self._should_retry(response)

    async def _send_again(
        self,
        request: Request,
        limit: int | None,
        outcome: Response | errors.TransportError,
        began: float,
    ) -> Response:
        if isinstance(outcome, StaleConnection) and request.idempotent:
            outcome = await self._attempt(request, limit, fresh=True)
        retries = failures = alike = 0
        while request.retried and self._passing(outcome, request):
            failures += not _may_last(outcome)
            if failures > self._options.request_retries:
                break
            pause = _pause_seconds(retries + 1, outcome)
            if time.monotonic() + pause > began + self._options.retry_deadline_seconds:
                break
            self.statistics.waiting[id(request)] = Waiting(began, outcome)
            try:
                if not await self._pause(pause, request, alike):
                    break
            finally:
                del self.statistics.waiting[id(request)]
            retries += 1
            self.statistics.retries += 1
            before, outcome = outcome, await self._attempt(request, limit)
            alike = alike + 1 if self._is_alike(before, outcome) else 0
        if isinstance(outcome, Response) and not self._passing_answer(outcome, request):
            self._served_at = time.monotonic()
        return _final(outcome, retries=retries)

    def _is_alike(
        self,
        before: Response | errors.TransportError,
        now: Response | errors.TransportError,
    ) -> bool:
        """Whether two failures are the same and this request alone may be the cause.

        A broken answer may end in several ways: the connection is closed, reset or silent. Which of
        them happens is chance. So all requests that were sent and got no answer count as the same.
        """
        if isinstance(before, Response) and isinstance(now, Response):
            return now.status == before.status and not self._slows_down(now)
        if isinstance(before, Response) or isinstance(now, Response):
            return False
        return not (isinstance(before, _UNSENT) or isinstance(now, _UNSENT))

    def _slows_down(self, response: Response) -> bool:
        return response.status == 429 or self._asks_to_slow_down(response)

    async def _pause(self, seconds: float, request: Request, alike: int) -> bool:
        """Wait before a retry. False: a retry is useless.

        `alike` is how many retries in a row had the same result.
        """
        if alike < LASTING_RETRIES or self._serves_others is None:
            await asyncio.sleep(seconds)
            return True
        now = since = time.monotonic()
        while (left := since + seconds - now) > 0:
            is_quiet = now - self._served_at >= QUIET_SECONDS
            if is_quiet and await self._serves_others(request, since, alike):
                return False
            await asyncio.sleep(min(left, QUIET_SECONDS))
            now = time.monotonic()
        return True

    async def _attempt(
        self, request: Request, limit: int | None, *, fresh: bool = False
    ) -> Response | errors.TransportError:
        try:
            return await self.send_once(request, max_body_bytes=limit, fresh=fresh)
        except errors.TransportError as error:
            return error


def _may_last(outcome: Response | errors.TransportError) -> bool:
    """Whether an outcome does not count as a failure, and is retried until the deadline.

    429 and 503 do not, in a narrower window: a store may throttle, or restart, for longer than
    other faults last. Nor does a want of file descriptors, which is no fault of the store.
    """
    if isinstance(outcome, Response):
        return outcome.status in _THROTTLED
    return isinstance(outcome, errors.TooManyOpenFiles)


def _pause_seconds(retry: int, outcome: Response | errors.TransportError) -> float:
    """Add the backoff to what the server asks for.

    The server may tell many requests to wait 2 s. They must not all come back at the same moment.
    """
    pause = backoff_seconds(retry, random.random())  # noqa: S311 - jitter is no secret
    if isinstance(outcome, Response):
        pause += retry_after_seconds(outcome.headers) or 0.0
    return pause


def _final(outcome: Response | errors.TransportError, *, retries: int) -> Response:
    if isinstance(outcome, Response):
        outcome.retries = retries
        return outcome
    if not retries or not outcome.retryable:
        raise outcome
    tried = "1 retry" if retries == 1 else f"{retries} retries"
    kept = (errors.MalformedAnswer, errors.TooManyOpenFiles)
    kind = type(outcome) if isinstance(outcome, kept) else errors.TransportError
    raise kind(f"{outcome}; gave up after {tried}") from outcome
