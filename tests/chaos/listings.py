"""What can go wrong with pages of a listing. `FaultProxy` applies it, as it does `faults`.

MixedUp           the page of another question is answered, as by a cache that confuses two
emptied           a page without keys comes first, with a token that goes on
paged, duplicated, reordered, silent, rewritten_rows   the page is changed on its way
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import parse_qs, quote, urlsplit
from xml.sax.saxutils import escape

from tests.chaos import faults
from tests.chaos.faults import Fault
from tests.chaos.wire import Exchange
from tests.pairs.referee import S3Bucket

Change = Callable[[bytes], bytes]
"""Changes a page."""

ROW = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
TRUNCATED = re.compile(rb"<IsTruncated>\w+</IsTruncated>")
_REFUSED = (
    b"<Error><Code>InvalidArgument</Code><Message>The continuation token provided is incorrect"
    b"</Message></Error>"
)
XML = "200 OK\r\nContent-Type: application/xml"
_COUNT = re.compile(rb"<KeyCount>\d+</KeyCount>")
_ECHOES = re.compile(rb"<(Name|Prefix|StartAfter|Marker|KeyCount|MaxKeys)>[^<]*</\1>|<Prefix ?/>")


def rewritten_rows(body: bytes, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """The same page with other rows, and their number."""
    found = ROW.findall(body)
    if not found:
        return body
    begin = body.index(found[0])
    end = body.rindex(found[-1]) + len(found[-1])
    changed = change(found)
    body = body[:begin] + b"".join(changed) + body[end:]
    return _COUNT.sub(b"<KeyCount>%d</KeyCount>" % len(changed), body)


def cut_to(count: int) -> Change:
    """Pages of a few keys only."""

    def cut(body: bytes) -> bytes:
        if len(ROW.findall(body)) <= count:
            return body
        body = TRUNCATED.sub(b"<IsTruncated>true</IsTruncated>", body)
        return rewritten_rows(body, lambda found: found[:count])

    return cut


def without_echoes(body: bytes) -> bytes:
    """A page that repeats nothing of the question."""
    return _ECHOES.sub(b"", body)


def every_key_twice(body: bytes) -> bytes:
    """A page that shows every key twice in a row."""
    return rewritten_rows(body, lambda found: [row for row in found for _ in range(2)])


def in_turn(*changes: Change) -> Change:
    """One change after the other."""

    def change(body: bytes) -> bytes:
        for one in changes:
            body = one(body)
        return body

    return change


def paged(count: int) -> Fault:
    """Pages of a few keys only."""
    return faults.rewritten(cut_to(count))


def silent() -> Fault:
    """Pages that repeat nothing of the question."""
    return faults.rewritten(without_echoes)


def duplicated() -> Fault:
    """Every key twice in a row."""
    return faults.rewritten(every_key_twice)


def reordered(change: Callable[[list[bytes]], list[bytes]]) -> Fault:
    """The rows of a page changed."""
    return faults.rewritten(lambda body: rewritten_rows(body, change))


class MixedUp:
    """Answers a listing with the page of another question for the same bucket.

    `heard` is a fault that changes nothing but listens: what went through it is mixed up later.
    """

    def __init__(self, change: Change = lambda body: body, *, seed: int = 0) -> None:
        """Every page goes through `change`."""
        self._change = change
        self._random = random.Random(seed)  # noqa: S311 - to be repeatable
        self._pages: dict[str, bytes] = {}
        self.mixed_up = 0
        """How many pages were answered in place of others."""

    async def heard(self, exchange: Exchange) -> bool:
        """Pass a page on, and remember it."""
        await self._answer(exchange, await self._page(exchange))
        return True

    async def __call__(self, exchange: Exchange) -> bool:
        """Answer with another page, if there is one."""
        right = await self._page(exchange)
        others = self._others(exchange.request.first_line, right)
        self.mixed_up += bool(others)
        await self._answer(exchange, self._random.choice(others) if others else right)
        return True

    def later(self, *, few: bool) -> Fault:
        """The last page there is, in place of one of the others; of long pages, or of `few` keys.

        All keys before it are hidden, in an order that shows nothing.
        """

        async def fault(exchange: Exchange) -> bool:
            right = await self._page(exchange)
            others = self._others(exchange.request.first_line, right)
            shown = [page for page in others if (len(ROW.findall(page)) <= 2) is few]
            last = max(shown, key=_first_key, default=right)
            self.mixed_up += last is not right
            await self._answer(exchange, last)
            return True

        return fault

    async def _page(self, exchange: Exchange) -> bytes:
        reply = await exchange.forward()
        page = self._change(await reply.whole_body())
        if reply.head.status == 200:
            self._pages[exchange.request.first_line] = page
        return page

    def _others(self, line: str, right: bytes) -> Sequence[bytes]:
        bucket = line.partition("?")[0]
        return [
            page
            for asked, page in self._pages.items()
            if asked.startswith(f"{bucket}?") and page != right
        ]

    async def _answer(self, exchange: Exchange, page: bytes) -> None:
        await exchange.answer(XML, page)


def _first_key(page: bytes) -> bytes:
    found = re.search(rb"<Key>([^<]*)<", page)
    return found[1] if found else b""


class OwnOrder:
    """Lists a real bucket in an order of its own, as stores do that encrypt keys.

    Everything else is passed on. `goes_on` tells with which keys it goes on after one: with those
    that come later in its order ("own"), with those that are greater, in its order ("bytes"), or,
    like "own", but only after a key that exists ("marker"); or it begins "anew" each time. With
    the token of a page it always goes on where that ended.
    """

    def __init__(
        self,
        bucket: S3Bucket,
        *,
        most: int = 1000,
        goes_on: str = "own",
        rank: Callable[[str], object] = lambda key: hashlib.sha256(key.encode()).digest(),
        pause_seconds: float = 0.0,
    ) -> None:
        """Pages are of `most` keys, ordered by `rank`. The bucket never changes.

        Those that are asked for with a token come after `pause_seconds`.
        """
        self._bucket = bucket
        self._most = most
        self._goes_on = goes_on
        self._rank = rank
        self._pause_seconds = pause_seconds
        self._known: dict[str, dict[str, str]] = {}
        self._tokens_of = 0
        self.tokens: list[str] = []
        """Those it was asked to go on with."""
        self.circles = False
        """Its last page names the token of its second."""
        self.strange: str | None = None
        """A key that is shown on each page, whatever prefix was asked for."""

    def in_order(self, keys: Iterable[str]) -> list[str]:
        """The keys as they are listed."""
        return sorted(keys, key=self._rank)  # type: ignore[arg-type]

    def forget_tokens(self) -> None:
        """Take no token any more that was named before, as after a restart."""
        self._tokens_of += 1

    async def __call__(self, exchange: Exchange) -> bool:
        """Answer a listing in the store's place."""
        target = exchange.request.first_line.split(" ")[1]
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        prefix, token = query.get("prefix", ""), query.get("continuation-token", "")
        if token:
            await asyncio.sleep(self._pause_seconds)
            self.tokens.append(token)
            if not token.startswith(f"{self._tokens_of}/"):
                await exchange.answer("400 Bad Request\r\nContent-Type: application/xml", _REFUSED)
                return True
        if prefix not in self._known:
            self._known[prefix] = await asyncio.to_thread(self._rows, prefix)
        rows = self._known[prefix]
        after = query.get("start-after", "")
        keys = [key for key in self.in_order(rows) if not after or self._follows(key, after, rows)]
        begin = int(token.partition("/")[2] or 0)
        most = min(int(query.get("max-keys", "1000")), self._most)
        end = begin + most
        is_last = end >= len(keys)
        shown = keys[begin:end]
        summary = {
            "Name": self._bucket.name,
            "Prefix": quote(prefix),
            "StartAfter": quote(after),
            "ContinuationToken": token,
            "KeyCount": str(len(shown)),
            "EncodingType": "url",
            "IsTruncated": str(not is_last or self.circles).lower(),
        }
        if not is_last or self.circles:
            following = most if is_last else end
            summary["NextContinuationToken"] = f"{self._tokens_of}/{following}"
        head = "".join(f"<{name}>{text}</{name}>" for name, text in summary.items())
        body = "".join(rows[key] for key in shown)
        if self.strange is not None and token:
            body += rows[keys[0]].replace(quote(keys[0]), quote(self.strange))
        await exchange.answer(XML, f"<ListBucketResult>{head}{body}</ListBucketResult>".encode())
        return True

    def _follows(self, key: str, after: str, rows: Mapping[str, str]) -> bool:
        if self._goes_on in ("anew", "bytes"):
            return key > after or self._goes_on == "anew"
        is_known = self._goes_on == "own" or after in rows
        return is_known and self._rank(key) > self._rank(after)  # type: ignore[operator]

    def _rows(self, prefix: str) -> dict[str, str]:
        pages = self._bucket.client.get_paginator("list_objects_v2")
        found: dict[str, str] = {}
        for page in pages.paginate(Bucket=self._bucket.name, Prefix=prefix):
            for item in page.get("Contents", []):
                found[item["Key"]] = (
                    f"<Contents><Key>{quote(item['Key'])}</Key><Size>{item['Size']}</Size>"
                    f"<LastModified>{item['LastModified'].isoformat()}</LastModified>"
                    f"<ETag>{escape(item['ETag'])}</ETag></Contents>"
                )
        return found


def emptied(*, pages: int = 1) -> Fault:
    """Before each page come some without keys; each names a token that goes on."""
    kept: dict[str, tuple[bytes, int]] = {}

    async def fault(exchange: Exchange) -> bool:
        query = parse_qs(urlsplit(exchange.request.first_line.split(" ")[1]).query)
        given = query.get("continuation-token", [""])[0]
        if given in kept:
            page, left = kept[given]
        else:
            page, left = await (await exchange.forward()).whole_body(), pages
        if left == 0:
            echo = f"<ContinuationToken>{given}</ContinuationToken></ListBucketResult>"
            await exchange.answer(XML, page.replace(b"</ListBucketResult>", echo.encode()))
            return True
        following = f"go+on=%2F{len(kept)}"
        kept[following] = (page, left - 1)
        shown = TRUNCATED.sub(b"<IsTruncated>true</IsTruncated>", rewritten_rows(page, _no_rows))
        shown = re.sub(rb"<NextContinuationToken>.*?</NextContinuationToken>", b"", shown)
        end = f"<NextContinuationToken>{following}</NextContinuationToken></ListBucketResult>"
        await exchange.answer(XML, shown.replace(b"</ListBucketResult>", end.encode()))
        return True

    return fault


def _no_rows(_found: list[bytes]) -> list[bytes]:
    return []


class Hollow:
    """Before some of the pages come others without keys; each names a token that goes on.

    It knows its tokens for as long as it stands there, also those of a process that was killed.
    """

    def __init__(self, times: int) -> None:
        """So many pages have one before them."""
        self._left = times
        self._pages: dict[str, bytes] = {}

    async def __call__(self, exchange: Exchange) -> bool:
        """Answer with no keys, or with those that were held back."""
        query = parse_qs(urlsplit(exchange.request.first_line.split(" ")[1]).query)
        given = query.get("continuation-token", [""])[0]
        if given not in self._pages and self._left == 0:
            return await faults.passed_on(exchange)
        page = self._pages.get(given) or await self._emptied(exchange)
        echo = f"<ContinuationToken>{given}</ContinuationToken>" if given in self._pages else ""
        await exchange.answer(XML, _with_elements(page, echo))
        return True

    async def _emptied(self, exchange: Exchange) -> bytes:
        self._left -= 1
        page = await (await exchange.forward()).whole_body()
        token = f"hollow+{len(self._pages)}"
        self._pages[token] = page
        shown = TRUNCATED.sub(b"<IsTruncated>true</IsTruncated>", rewritten_rows(page, _no_rows))
        shown = re.sub(rb"<NextContinuationToken>.*?</NextContinuationToken>", b"", shown)
        return _with_elements(shown, f"<NextContinuationToken>{token}</NextContinuationToken>")


def _with_elements(page: bytes, elements: str) -> bytes:
    end = b"</ListBucketResult>"
    return page.replace(end, elements.encode() + end)
