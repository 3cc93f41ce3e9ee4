"""What time does: a hold lapses, a test card's refund settles, evidence comes too late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from deploy.local.fake_stripe import disputes, intents, refunds
from deploy.local.fake_stripe.accounts import Account
from deploy.local.fake_stripe.books import Books, Due
from deploy.local.fake_stripe.endpoints.call import new_id
from deploy.local.fake_stripe.records import Change, Status

_POLL_SECONDS = 0.2


async def run(books: Books, clock: Callable[[], float] = time.time) -> None:
    """Let time pass for ever."""
    while True:
        now = books.moment(clock())
        pass_time(books, now)
        books.tidy(now)
        await asyncio.sleep(_POLL_SECONDS)


def pass_time(books: Books, now: int) -> None:
    """Do what is due by now."""
    accounts = {account.name: account for account in books.accounts()}
    for due in books.take_due(now):
        account = accounts[due.account]
        change = _happening(account, due, now)
        if change is not None:
            books.record(account, change, None, at=now)


def _happening(account: Account, due: Due, now: int) -> Change | None:
    """Return what a due moment does; None when the object has moved on meanwhile."""
    if due.kind == "hold":
        return _lapse(account, due.object_id, now)
    if due.kind == "refund":
        refund = account.refunds.get(due.object_id)
        if refund.settles_at != due.at:
            return None
        return refunds.settle(refund, account.charges.get(refund.charge), now=now, new_id=new_id)
    dispute = account.disputes.get(due.object_id)
    if dispute.due_by != due.at or dispute.status not in disputes.WAITING:
        return None
    return disputes.closed(dispute, now=now, new_id=new_id)


def _lapse(account: Account, charge_id: str, now: int) -> Change | None:
    charge = account.charges.get(charge_id)
    intent = account.intents.get(charge.payment_intent)
    if intent.status is not Status.REQUIRES_CAPTURE or intent.latest_charge != charge_id:
        return None
    return intents.expire(intent, charge, now=now)
