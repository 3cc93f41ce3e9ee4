"""HTTP in: the ledger, to look at and to take away."""

import csv
import io
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import Response
from pydantic import AwareDatetime, BaseModel
from starlette.responses import StreamingResponse

from libs.common.clock import now, rfc3339
from libs.common.errors import RejectedError
from libs.common.http.members import Moment
from libs.common.http.paging import Limit, Page, Paging, page
from libs.common.http.routes import Call, Caller, Facing, Routes, guard
from services.payments.domain.money.ledger import Entry, EntryKind
from services.payments.repository import ENTRIES
from services.payments.repository.bookmark import Bookmark
from services.payments.repository.money import ledger
from services.payments.repository.money.ledger import Balance

ROUTES = Routes(Facing.CUSTOMERS)
EXPORT_PAGE = 1_000


class _NotAcceptableError(RejectedError):
    status = 406


class LedgerAccountModel(BaseModel):
    """An account in one currency: what went in and out, and what is in it, seen from its own side."""

    code: str
    currency: str
    debited_minor: int
    credited_minor: int
    balance_minor: int


class LedgerEntryModel(BaseModel):
    """A transfer from one account to another."""

    id: UUID
    posted_at: Moment
    kind: EntryKind
    debit: str
    credit: str
    amount_minor: int
    currency: str
    payment_id: UUID
    reference: str
    exchange_rate: str | None = None


def account_model(balance: Balance) -> LedgerAccountModel:
    """An account for an answer."""
    return LedgerAccountModel(
        code=balance.code,
        currency=balance.currency,
        debited_minor=balance.debited_minor,
        credited_minor=balance.credited_minor,
        balance_minor=balance.balance_minor,
    )


def entry_model(entry: Entry) -> LedgerEntryModel:
    """An entry for an answer."""
    return LedgerEntryModel(
        id=entry.id,
        posted_at=rfc3339(_bookmark(entry).moment),
        kind=entry.kind,
        debit=entry.debit,
        credit=entry.credit,
        amount_minor=entry.amount_minor,
        currency=entry.currency,
        payment_id=entry.payment_id,
        reference=entry.reference,
        exchange_rate=entry.exchange_rate,
    )


@ROUTES.get("/v1/ledger/accounts", response_model=Page[LedgerAccountModel])
@guard("ledger:read")
async def list_accounts(call: Caller) -> Response:
    """Every account that was ever posted to, with its balance, by currency."""
    async with call.transaction() as connection:
        balances = await ledger.balances(connection, call.tenant_id)
    return page([account_model(balance) for balance in balances])


# --- Entries -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Export:
    """A format in which entries are taken away, line by line."""

    head: str
    lines: Callable[[Sequence[Entry]], str]


def _csv(entries: Sequence[Entry]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    for entry in entries:
        writer.writerow(entry_model(entry).model_dump(mode="json").values())
    return text.getvalue()


def _ndjson(entries: Sequence[Entry]) -> str:
    return "".join(entry_model(entry).model_dump_json(exclude_none=True) + "\n" for entry in entries)


JSON = "application/json"
EXPORTS: Mapping[str, _Export] = {
    "text/csv": _Export(",".join(LedgerEntryModel.model_fields) + "\r\n", _csv),
    "application/x-ndjson": _Export("", _ndjson),
}
"""RFC 4180, and a JSON object a line."""


AS_FILES: dict[int | str, dict[str, Any]] = {200: {"content": {each: {"schema": {"type": "string"}} for each in EXPORTS}}}


@ROUTES.get("/v1/ledger/entries", response_model=Page[LedgerEntryModel], responses=AS_FILES)
@guard("ledger:read")
async def list_entries(
    call: Caller,
    payment_id: UUID | None = None,
    kind: EntryKind | None = None,
    posted_after: AwareDatetime | None = None,
    posted_before: AwareDatetime | None = None,
    limit: Limit = 50,
    cursor: str | None = None,
) -> Response:
    """Entries in the order of posting: a page of JSON, or by `Accept` all of them as `text/csv` or `application/x-ndjson`."""
    chosen = acceptable(call.request.headers.get("accept", "*/*"), [JSON, *EXPORTS])
    asked = Paging(limit, cursor, datetime, UUID)
    where = {"payment_id": payment_id, "kind": kind, "posted_at >=": posted_after, "posted_at <": posted_before}
    if chosen != JSON:
        return await _exported(call, {**where, "posted_at <": posted_before or now()}, asked.after, chosen)
    return asked.reply(await _page(call, where, asked.after, asked.most), entry_model, _bookmark)


async def _exported(call: Call, where: Mapping[str, Any], after: Sequence[Any] | None, media_type: str) -> Response:
    """All entries up to now, a page at a time: no transaction is open while the reader takes its time."""
    export = EXPORTS[media_type]
    first = await _page(call, where, after, EXPORT_PAGE)  # before the answer begins, so that it may still be a refusal

    async def lines() -> AsyncIterator[str]:
        yield export.head
        found = first
        while found:
            yield export.lines(found)
            found = await _page(call, where, _bookmark(found[-1]), EXPORT_PAGE) if len(found) == EXPORT_PAGE else []

    return StreamingResponse(lines(), media_type=media_type)


async def _page(call: Call, where: Mapping[str, Any], after: Sequence[Any] | None, limit: int) -> Sequence[Entry]:
    async with call.transaction() as connection:
        return await ENTRIES.page(connection, call.tenant_id, after=after, limit=limit, by=["posted_at", "id"], where=where)


def _bookmark(entry: Entry) -> Bookmark:
    if entry.posted_at is None:
        message = "an entry that was read has been posted"
        raise TypeError(message)
    return Bookmark(entry.posted_at, entry.id)


def acceptable(accept: str, offered: Sequence[str]) -> str:
    """The media type that a caller likes best (RFC 9110 §12.5.1), the first of equals. Raises 406 if it likes none."""
    ranges = [_range(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    weights = [(_weight(media_type, ranges), media_type) for media_type in offered]
    best = max(weight for weight, _ in weights)
    if best <= 0:
        raise _NotAcceptableError("not-acceptable", f"this is to be had as {', '.join(offered)}")
    return next(media_type for weight, media_type in weights if weight == best)


def _range(part: str) -> tuple[str, float]:
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((value[2:] for value in parameters if value.startswith("q=")), "1")
    try:
        return media_range, min(max(float(quality), 0.0), 1.0)
    except ValueError:
        return media_range, 0.0


def _weight(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The weight of the most specific range that fits."""
    for fitting in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        for media_range, quality in ranges:
            if media_range == fitting:
                return quality
    return 0.0
