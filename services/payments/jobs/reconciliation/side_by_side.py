"""The reconciliations of tenants that share an account, side by side: what the provider lists is read once for all of them.

Lists are read by the page: nothing holds more in memory than the ids of one stretch of time.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from libs.common.clock import now
from services.payments.gateway.protocol import PaymentGateway
from services.payments.jobs.reconciliation.audit import PAGE, Audit, span
from services.payments.jobs.reconciliation.comparing import KINDS, Kind
from services.payments.repository.reconciliation import Window

STRETCH = timedelta(hours=12)
"""Compared at a time, with the ids of what was made in it in memory."""
REMAINDER = timedelta(hours=1)
"""Less than that is no stretch of its own: what was made just now, on either side of a border, seems to be missing."""


class SideBySide:
    """The runs of one account's tenants. What goes wrong with one of them ends that one."""

    def __init__(self, gateway: PaymentGateway, audits: Sequence[Audit]) -> None:
        self._gateway = gateway
        self._audits = audits
        self.failed: dict[UUID, Exception] = {}
        """By run, what ended it before its time."""

    async def run(self) -> None:
        """Compare the window stretch by stretch, and then end every run."""
        begun, books = now(), [audit.book for audit in self._audits]
        start, end = min(book.window_from for book in books), max(book.window_to for book in books)
        try:
            for window in stretches(start, end):
                for kind in KINDS.values():
                    await self._compare(kind, window)
        except Exception as error:  # noqa: BLE001 - what is wrong with the lists is wrong for all who are still being compared
            self.failed = {book.id: error for book in books} | self.failed
        await self._each(self._audits, lambda audit: audit.end(begun))

    async def _compare(self, kind: Kind, window: Window) -> None:
        """One kind of object, over one stretch: with whoever has any of it in their window."""
        parts = {audit.book.id: part for audit in self._audits if (part := audit.part_of(window)) is not None}
        met: dict[UUID, set[UUID]] = {run_id: set() for run_id in parts}
        concerned = [audit for audit in self._audits if audit.book.id in parts]
        wanted = [parts[audit.book.id] for audit in self._going(concerned)]
        if not wanted:
            return
        listed = kind.listed(self._gateway, (min(start for start, _ in wanted), max(end for _, end in wanted)))
        async with aclosing(pages(listed)) as found:  # type: ignore[type-var]
            async for seen in found:
                await self._each(concerned, _comparing(kind, parts, seen, met))
        await self._each(concerned, lambda audit: audit.find_absent(kind, parts[audit.book.id], met[audit.book.id]))

    def _going(self, audits: Sequence[Audit]) -> list[Audit]:
        return [audit for audit in audits if audit.book.id not in self.failed]

    async def _each(self, audits: Sequence[Audit], work: Callable[[Audit], Awaitable[None]]) -> None:
        for audit in self._going(audits):
            try:
                await work(audit)
            except Exception as error:  # noqa: BLE001 - whatever it is, the others are compared to their end
                self.failed[audit.book.id] = error


def _comparing(
    kind: Kind, parts: dict[UUID, Window], seen: Sequence[Any], met: dict[UUID, set[UUID]]
) -> Callable[[Audit], Awaitable[None]]:
    return lambda audit: audit.compare_page(kind, parts[audit.book.id], seen, met[audit.book.id])


def stretches(start: datetime, end: datetime) -> Sequence[Window]:
    """A window in pieces that are compared one after the other."""
    begin, last = span(start, end)
    pieces: list[Window] = []
    while begin < last:
        until = begin + STRETCH
        pieces.append((begin, until if last - until >= REMAINDER else last))
        begin = pieces[-1][1]
    return pieces


async def pages(items: AsyncIterator[Any]) -> AsyncIterator[list[Any]]:
    """What is listed, so many at a time."""
    page: list[Any] = []
    async for item in items:
        page.append(item)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page
