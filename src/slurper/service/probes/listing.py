"""How a store lists: in which order, in which version of the interface, with which clock."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from slurper import errors
from slurper.objectstore.base import ListingPage, ObjectStore
from slurper.objectstore.dialects import KeyOrder
from slurper.service.probes.check import Check, StepFailed
from slurper.transfer.walk import lists_in_own_order

_SKEW_NOTED_SECONDS = 60.0

_STEP = "listing it"

_OWN_ORDER_NOTED = (
    "it lists its keys in an order of its own: a source is copied by one worker then, and what a "
    "target holds is asked for key by key"
)


async def first_page(store: ObjectStore, prefix: str, check: Check) -> ListingPage:
    """List the first key. Raises StepFailed: the store cannot be reached or listed."""
    async with check.step(_STEP):
        page = await store.list_page(prefix=prefix, max_keys=1)
    _note_clock(page, check)
    return page


async def find_order(store: ObjectStore, prefix: str, page: ListingPage, check: Check) -> None:
    """Find out in which order and version a store lists, after its first page.

    Raises StepFailed.
    """
    version = asyncio.ensure_future(_version_that_goes_on(store, prefix, page))
    try:
        order = await _order_of(store, prefix, page, check)
        async with check.step(_STEP):
            # A listing in the store's own order goes on in another way, in every version.
            found = page.list_version if order is KeyOrder.OWN else await version
    finally:
        version.cancel()
        await asyncio.gather(version, return_exceptions=True)
    check.found = replace(check.found, list_version=found, key_order=order.value)


async def _order_of(store: ObjectStore, prefix: str, first: ListingPage, check: Check) -> KeyOrder:
    """List a long page: it most likely shows whether a store lists in an order of its own.

    If the store is too slow for that, or fails, it is not refused. The copy will see the order.
    """
    if first.finished or not (store.dialect.assumed or store.dialect.may_encrypt_keys):
        return first.order
    try:
        async with check.step(_STEP, share=0.25):  # leaves time for the rest of the check
            return await _order_of_long_page(store, prefix, first, check)
    except StepFailed:
        return first.order


async def _order_of_long_page(
    store: ObjectStore, prefix: str, first: ListingPage, check: Check
) -> KeyOrder:
    try:
        return (await store.list_page(prefix=prefix)).order
    except errors.OutOfOrder as error:
        if not await lists_in_own_order(store, prefix, error):
            return first.order
        check.notes.append(_OWN_ORDER_NOTED)
        return KeyOrder.OWN


async def _version_that_goes_on(store: ObjectStore, prefix: str, first: ListingPage) -> int | None:
    """List the next key. A store that ignores `list-type` begins again at the first key.

    None: there is no next key, so the version stays unknown.
    """
    if not (store.dialect.assumed and first.list_version == 2):
        return first.list_version
    if first.finished or not first.objects:
        return None
    key = first.objects[0].key
    return (await store.list_page(prefix=prefix, start_after=key, max_keys=1)).list_version


def _note_clock(page: ListingPage, check: Check) -> None:
    if page.served_at is None:
        return
    skew = (page.served_at - datetime.now(UTC)).total_seconds()
    check.found = replace(check.found, clock_ahead_seconds=round(skew))
    if abs(skew) > _SKEW_NOTED_SECONDS:
        check.notes.append(
            f"its clock is {abs(skew):.0f} seconds {'ahead of' if skew > 0 else 'behind'} this "
            "machine's; set the wrong one right"
        )
