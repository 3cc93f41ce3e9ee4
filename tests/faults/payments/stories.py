"""What happens to payments at the provider without us, in stories of a few acts; and what it must come to with us."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

import aiohttp

from libs.common.contracts.checkout import RefundRequested
from services.payments.domain.payment.payment import Payment, PaymentState
from services.payments.domain.provider.outcome import Declined, SeenDispute, SeenRefund, Succeeded
from services.payments.handlers.disputes import ObserveDispute
from services.payments.handlers.observations import ObserveIntent
from services.payments.handlers.refunds import ObserveRefund
from tests.shared.events import AMOUNT, refund_requested
from tests.shared.till import Till

FEE = 39
"""What the provider keeps of a capture: 1.5 %, and 20."""
DISPUTE_FEE = 1_500
AT_ONCE = 20
"""Calls at one time."""

Act = Callable[[Till, Sequence[Payment]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class End:
    """What a payment, what belongs to it and its books come to."""

    state: str
    captured_minor: int = 0
    refunding_minor: int = 0
    refunded_minor: int = 0
    refunds: tuple[str, ...] = ()
    disputes: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Story:
    """How it begins here, what then happens there, how that is read, and its one end."""

    name: str
    begin: Callable[[Till, int], Awaitable[Sequence[UUID]]]
    acts: Sequence[Act]
    read: Callable[[Till, Sequence[Payment]], Awaitable[Sequence[Any]]]
    end: End


ENDS = """SELECT p.id, p.state, p.captured_minor, p.refunding_minor, p.refunded_minor,
    ARRAY(SELECT r.state FROM refund r WHERE r.payment_id = p.id) AS refunds,
    ARRAY(SELECT d.state FROM dispute d WHERE d.payment_id = p.id) AS disputes,
    ARRAY(SELECT e.kind || ' ' || e.amount_minor FROM ledger_entry e WHERE e.payment_id = p.id ORDER BY 1) AS entries
FROM payment p WHERE p.id = ANY ($1)"""


async def ends(till: Till, payment_ids: Sequence[UUID]) -> dict[UUID, End]:
    rows = [dict(row) for row in await till.as_admin(ENDS, list(payment_ids))]
    lists = ("refunds", "disputes", "entries")
    return {row.pop("id"): End(**{**row, **{name: tuple(row[name]) for name in lists}}) for row in rows}


# --- How it begins -------------------------------------------------------------------------------------------------------


async def waits_for_its_payer(till: Till, count: int) -> Sequence[UUID]:
    asked = await till.request_many(count, "", confirmation="client")
    return await _all(till, [each.payment_id for each in asked], PaymentState.REQUIRES_ACTION)


async def is_challenged(till: Till, count: int) -> Sequence[UUID]:
    """The order is confirmed already, so that whatever authorizes it has us capture it in the midst of the notices."""
    asked = await till.request_many(count, "pm_card_authenticationRequired")
    await _all(till, [each.payment_id for each in asked], PaymentState.REQUIRES_ACTION)
    await till.confirm(*asked)
    return [each.payment_id for each in asked]


async def is_captured(till: Till, count: int, *, method: str = "pm_card_createDispute") -> Sequence[UUID]:
    asked = await till.request_many(count, method)
    await till.confirm(*asked)
    return await _all(till, [each.payment_id for each in asked], PaymentState.CAPTURED)


async def is_on_its_way_back(till: Till, count: int, *, method: str, state: str) -> Sequence[UUID]:
    payment_ids = await is_captured(till, count, method=method)
    payments = await till.all_known(payment_ids)
    await till.tell(*(_refund_of(payment) for payment in payments))
    left = "SELECT count(*) FROM refund WHERE payment_id = ANY ($1) AND state <> $2"
    async with asyncio.timeout(120):
        while (await till.as_admin(left, payment_ids, state))[0][0]:
            await asyncio.sleep(0.02)
    return payment_ids


def _refund_of(payment: Payment) -> RefundRequested:
    whose = {"payment_id": payment.id, "checkout_id": payment.checkout_id, "order_id": payment.order_id}
    return refund_requested(AMOUNT, refund_id=payment.id, currency=payment.currency, **whose)


async def _all(till: Till, payment_ids: Sequence[UUID], state: PaymentState) -> Sequence[UUID]:
    await till.all_until(payment_ids, state, seconds=120)
    return payment_ids


# --- What happens at the provider ------------------------------------------------------------------------------------------


async def each_of(payments: Sequence[Payment], call: Callable[[Payment], Awaitable[Any]]) -> list[Any]:
    """Do something for each of them, a few at a time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(payment: Payment) -> Any:
        async with room:
            return await call(payment)

    return await asyncio.gather(*map(one, payments))


async def payer_confirms(till: Till, payments: Sequence[Payment], *, card: str) -> None:
    """In their browser."""
    gateway = await till.gateways.of(till.tenant_id)
    key = {"Authorization": "Bearer " + till.gateways.platform.api_key.replace("sk_", "pk_")}
    async with aiohttp.ClientSession(headers=key) as browser:

        async def confirm(payment: Payment) -> None:
            seen = await gateway.retrieve_intent(payment.intent_id or "")
            secret = await _secret(till, payment) if isinstance(seen, Declined) else seen.client_secret  # type: ignore[union-attr]
            form = {"client_secret": secret, "payment_method": card, "return_url": "https://shop.test/back"}
            url = f"{till.stripe_url}/v1/payment_intents/{payment.intent_id}/confirm"
            async with browser.post(url, data=form) as response:
                assert response.status in {200, 402}, await response.text()

        await each_of(payments, confirm)


async def _secret(till: Till, payment: Payment) -> str:
    """After a decline, as the browser still has it."""
    key = {"Authorization": "Bearer " + till.gateways.platform.api_key}
    url = f"{till.stripe_url}/v1/payment_intents/{payment.intent_id}"
    async with aiohttp.ClientSession(headers=key) as session, session.get(url) as response:
        return str((await response.json())["client_secret"])


async def payer_authenticates(till: Till, payments: Sequence[Payment]) -> None:
    path = "payment_intents/{}/authentication"
    await each_of(payments, lambda payment: till.control(path.format(payment.intent_id), outcome="succeed"))


async def somebody_captures(till: Till, payments: Sequence[Payment]) -> None:
    """At the provider's dashboard."""
    gateway = await till.gateways.of(till.tenant_id)
    await each_of(payments, lambda each: gateway.capture_intent(f"dashboard-{each.id}", each.intent_id or "", AMOUNT, final=True))


async def bank_decides(till: Till, payments: Sequence[Payment], *, on: str) -> None:
    """It takes its three seconds."""
    theirs = {payment.intent_id for payment in payments}
    async with asyncio.timeout(120):
        while True:
            found, _, _ = await till.money_at_provider()
            if Counter(each.status == on for each in found if each.intent_id in theirs) == {True: len(theirs)}:
                return
            await asyncio.sleep(0.2)


async def issuer_moves(till: Till, payments: Sequence[Payment], *, to: str) -> None:
    cases = await _disputes(till)
    await each_of(payments, lambda payment: till.control(f"disputes/{cases[payment.intent_id].provider_id}", status=to))


async def _disputes(till: Till) -> dict[str | None, SeenDispute]:
    _, cases, _ = await till.money_at_provider()
    return {case.intent_id: case for case in cases}


# --- How it is read --------------------------------------------------------------------------------------------------------


async def intents(till: Till, payments: Sequence[Payment]) -> Sequence[Any]:
    gateway = await till.gateways.of(till.tenant_id)
    seen = await each_of(payments, lambda payment: gateway.retrieve_intent(payment.intent_id or ""))
    assert all(isinstance(each, Succeeded | Declined) for each in seen)
    return [ObserveIntent(payment_id=payment.id, seen=each) for payment, each in zip(payments, seen, strict=True)]


async def refunds(till: Till, payments: Sequence[Payment]) -> Sequence[Any]:
    found, _, _ = await till.money_at_provider()
    by_intent: dict[str | None, SeenRefund] = {each.intent_id: each for each in found}
    return [ObserveRefund(payment_id=payment.id, seen=by_intent[payment.intent_id]) for payment in payments]


async def disputes(till: Till, payments: Sequence[Payment]) -> Sequence[Any]:
    cases = await _disputes(till)
    return [ObserveDispute(payment_id=payment.id, seen=cases[payment.intent_id]) for payment in payments]


# --- The stories -----------------------------------------------------------------------------------------------------------

TAKEN = (f"capture {AMOUNT}", f"fee {FEE}")
CAPTURED = End("captured", AMOUNT, entries=TAKEN)
DISPUTED = tuple(sorted((*TAKEN, f"chargeback {AMOUNT}", f"dispute_fee {DISPUTE_FEE}")))

STORIES = (
    Story(
        "paid in the browser, captured at the dashboard",
        waits_for_its_payer,
        (partial(payer_confirms, card="pm_card_visa"), somebody_captures),
        intents,
        CAPTURED,
    ),
    Story("challenged, and authenticated", is_challenged, (payer_authenticates,), intents, CAPTURED),
    Story(
        "paid in the browser after a decline",
        waits_for_its_payer,
        (partial(payer_confirms, card="pm_card_chargeDeclined"), partial(payer_confirms, card="pm_card_visa")),
        intents,
        End("authorized"),
    ),
    Story(
        "refund pending, then succeeded",
        partial(is_on_its_way_back, method="pm_card_pendingRefund", state="pending"),
        (partial(bank_decides, on="succeeded"),),
        refunds,
        End("captured", AMOUNT, 0, AMOUNT, ("succeeded",), (), tuple(sorted((*TAKEN, f"refund {AMOUNT}")))),
    ),
    Story(
        "refund succeeded, then failed",
        partial(is_on_its_way_back, method="pm_card_refundFail", state="succeeded"),
        (partial(bank_decides, on="failed"),),
        refunds,
        replace(
            CAPTURED,
            refunds=("failed",),
            entries=tuple(sorted((*TAKEN, f"refund {AMOUNT}", f"refund_return {AMOUNT}"))),
        ),
    ),
    Story(
        "dispute lost",
        is_captured,
        (partial(issuer_moves, to="under_review"), partial(issuer_moves, to="lost")),
        disputes,
        replace(CAPTURED, disputes=("lost",), entries=DISPUTED),
    ),
    Story(
        "dispute won",
        is_captured,
        (partial(issuer_moves, to="under_review"), partial(issuer_moves, to="won")),
        disputes,
        replace(CAPTURED, disputes=("won",), entries=tuple(sorted((*DISPUTED, f"chargeback_return {AMOUNT}")))),
    ),
)
