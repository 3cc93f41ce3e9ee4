"""A provider that hangs, hangs up and fails: nobody is charged twice, nobody is told what is not so, and nothing stays open."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from libs.common.contracts.checkout import PaymentRequested, PaymentVoidRequested, RefundRequested
from services.payments.domain.money.ledger import Account
from services.payments.domain.payment.payment import OVER, PaymentState
from tests.shared.callers import until_taken
from tests.shared.events import AMOUNT, refund_requested
from tests.shared.till import MISHAPS, UNREADABLE, Till
from tests.shared.toy import seeded

SHARE = 0.058
"""Of six mishaps each, so that three calls of ten come to grief."""
VERDICTS: Mapping[str, PaymentState] = {
    "pm_card_visa": PaymentState.CAPTURED,
    "pm_card_chargeDeclined": PaymentState.DECLINED,
    "pm_card_chargeDeclinedInsufficientFunds": PaymentState.DECLINED,
    "pm_card_mastercard": PaymentState.VOIDED,
}
"""What must become of a payment: nobody wants those of the last card."""
SHARES = (6, 1, 1, 2)
OPEN = "SELECT kind, state, tries, unknown_count, due_at - now() FROM operation WHERE tenant_id = $1 AND due_at IS NOT NULL"
PART = 400
"""What goes back of each payment that was captured."""


@dataclass
class Storm:
    """Payments whose calls come to grief, until the provider is well again."""

    till: Till
    chance: random.Random
    struck: Sequence[int] = ()

    async def begin(self) -> None:
        match = {"path": "/v1/*"}
        await self.till.faults(
            *({"match": match, "fault": each, "probability": SHARE, "seed": self.chance.getrandbits(31)} for each in MISHAPS)
        )

    async def weathered(self, left: str, *, calm_at: int) -> None:
        """Let the ladder's waits be over until nothing is left that this counts; the provider is well for the last of it."""
        try:
            async with asyncio.timeout(600):
                while count := (await self.till.as_admin(left, self.till.tenant_id))[0][0]:
                    if count <= calm_at and not self.struck:
                        self.struck = await self.till.faults()
                    await self.till.hurry()
                    await asyncio.sleep(0.1)
        except TimeoutError:
            print("open for ten minutes:", *await self.till.as_admin(OPEN, self.till.tenant_id), sep="\n")
            raise
        if not self.struck:
            self.struck = await self.till.faults()


@pytest.mark.timeout(1500)
async def test_whatever_three_calls_of_ten_come_to_every_verdict_is_true_and_every_charge_is_one(
    hasty_till: Till, request: pytest.FixtureRequest
) -> None:
    till = hasty_till
    count = 1_000 if request.config.getoption("--long") else 200
    storm = Storm(till, seeded(time.time_ns() % 2**32))
    started = time.monotonic()
    await storm.begin()
    asked = await _asked(till, storm.chance.choices(list(VERDICTS), SHARES, k=count))
    over = f"SELECT count(*) FROM payment WHERE tenant_id = $1 AND state NOT IN ({_listed(OVER)})"
    await storm.weathered(over, calm_at=count // 20)
    struck = storm.struck
    await _verdicts_are_true(till, asked)
    returned, again = await _given_back(till, storm, asked)
    unknown = "SELECT count(*) FROM operation WHERE tenant_id = $1 AND (state = 'unknown' OR due_at IS NOT NULL)"
    assert (await till.as_admin(unknown, till.tenant_id))[0][0] == 0, "nothing stays open"
    assert all(struck), f"each kind of mishap struck: {dict(zip(MISHAPS, struck, strict=True))}"
    seconds = time.monotonic() - started
    print(f"{count} payments, {returned} refunds, {sum(struck) + sum(again)} mishaps, 0 double charges, {seconds:.0f} s")


async def _asked(till: Till, methods: Sequence[str]) -> list[PaymentRequested]:
    """Ask for the payments, and at once for what comes after: a payment remembers it, whatever it is doing."""
    asked = [(await till.request_many(methods.count(method), method)) for method in VERDICTS if method in methods]
    whole = [each for some in asked for each in some]
    await till.confirm(*(each for each in whole if VERDICTS[each.method] is PaymentState.CAPTURED))
    unwanted = [each for each in whole if VERDICTS[each.method] is PaymentState.VOIDED]
    voids = [
        PaymentVoidRequested(checkout_id=each.checkout_id, payment_id=each.payment_id, reason="canceled") for each in unwanted
    ]
    await till.tell(*voids)
    return whole


async def _verdicts_are_true(till: Till, asked: Sequence[PaymentRequested]) -> None:
    payments = {payment.id: payment for payment in await till.all_known([each.payment_id for each in asked])}
    assert Counter(payments[each.payment_id].state is VERDICTS[each.method] for each in asked) == {True: len(asked)}
    seen = await till.at_provider()
    assert max(Counter(each.metadata["payment_id"] for each in seen).values()) == 1, "no payment was made twice there"
    taken = {UUID(each.metadata["payment_id"]): each.amount_received_minor for each in seen if each.amount_received_minor}
    assert taken == {each.payment_id: AMOUNT for each in asked if VERDICTS[each.method] is PaymentState.CAPTURED}
    assert sum(each.amount_capturable_minor for each in seen) == 0, "nothing is held for anybody"
    assert (await till.agreed_books())[Account.SALES] == AMOUNT * len(taken)
    told = [await till.events(each.payment_id) for each in asked[:: max(1, len(asked) // 50)]]
    assert all(sum(kind in ENDS for kind, _ in events) == 1 for events in told), "everybody is told one end"


ENDS = {"payment.captured", "payment.voided", "payment.declined", "payment.expired"}


async def _given_back(till: Till, storm: Storm, asked: Sequence[PaymentRequested]) -> tuple[int, Sequence[int]]:
    paid = [each for each in asked if VERDICTS[each.method] is PaymentState.CAPTURED]
    storm.struck = ()
    await storm.begin()
    await till.tell(*(_refund(each, each.checkout_id) for each in paid))
    left = "SELECT count(*) FROM refund WHERE tenant_id = $1 AND state IN ('requested', 'unknown', 'pending')"
    await storm.weathered(left, calm_at=len(paid) // 20)
    refunds, _, _ = await till.money_at_provider()
    assert Counter(each.metadata["refund_id"] for each in refunds) == {str(each.checkout_id): 1 for each in paid}
    assert (await till.agreed_books())[Account.REFUNDS] == PART * len(paid)
    return len(refunds), storm.struck


def _void(asked: PaymentRequested) -> PaymentVoidRequested:
    return PaymentVoidRequested(checkout_id=asked.checkout_id, payment_id=asked.payment_id, reason="canceled")


def _refund(asked: PaymentRequested, refund_id: UUID) -> RefundRequested:
    whose = {"payment_id": asked.payment_id, "checkout_id": asked.checkout_id, "order_id": asked.order_id}
    return refund_requested(PART, refund_id=refund_id, currency=asked.currency, **whose)


def _listed(states: Any) -> str:
    return ", ".join(f"'{state}'" for state in sorted(states))


# --- What a restore lost -------------------------------------------------------------------------------------------------

CALLS = {
    "create": "/v1/payment_intents",
    "confirm": "*/confirm",
    "capture": "*/capture",
    "cancel": "*/cancel",
    "refund": "/v1/refunds",
}
LOST = "DELETE FROM operation WHERE tenant_id = $1 AND kind = $2 RETURNING id, idempotency_key"


@pytest.mark.parametrize("kind", CALLS)
async def test_a_sent_call_whose_row_is_lost_is_made_again_under_its_key_and_moves_no_money_twice(till: Till, kind: str) -> None:
    strike = {"match": {"method": "POST", "path": CALLS[kind]}, "fault": "reset_after", "times": 1}
    await till.faults(strike, {**UNREADABLE, "times": 2})
    asked = await till.request()
    await _on_with_it(till, asked, kind)
    unknown = "SELECT count(*) FROM operation WHERE tenant_id = $1 AND kind = $2 AND state = 'unknown'"
    async with asyncio.timeout(120):
        while not (await till.as_admin(unknown, till.tenant_id, kind))[0][0]:
            await asyncio.sleep(0.02)
    assert (await till.faults())[0] == 1, "it was executed, and its answer was lost"
    lost = await till.as_admin(LOST, till.tenant_id, kind)
    await till.look(asked.payment_id)
    await till.look_into_refunds()
    end = {"cancel": PaymentState.VOIDED, "capture": PaymentState.CAPTURED, "refund": PaymentState.CAPTURED}
    await till.until(asked.payment_id, end.get(kind, PaymentState.AUTHORIZED))
    await _none_left(till, "operation WHERE tenant_id = $1 AND due_at IS NOT NULL")
    again = "SELECT id, idempotency_key FROM operation WHERE tenant_id = $1 AND kind = $2"
    assert await till.as_admin(again, till.tenant_id, kind) == lost
    [seen] = await till.at_provider()
    refunds, _, _ = await till.money_at_provider()
    assert seen.amount_received_minor == (AMOUNT if kind in {"capture", "refund"} else 0)
    assert [each.amount_minor for each in refunds] == ([PART] if kind == "refund" else [])
    await till.agreed_books()


async def _none_left(till: Till, of: str) -> None:
    async with asyncio.timeout(120):
        while (await till.as_admin(f"SELECT count(*) FROM {of}", till.tenant_id))[0][0]:
            await asyncio.sleep(0.02)


async def _on_with_it(till: Till, asked: PaymentRequested, kind: str) -> None:
    """As far as the call of this kind is planned."""
    if kind in {"create", "confirm"}:
        return
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    if kind == "cancel":
        await till.tell(_void(asked))
        return
    await till.confirm(asked)
    if kind == "refund":
        await till.until(asked.payment_id, PaymentState.CAPTURED)
        await till.tell(_refund(asked, asked.checkout_id))


# --- Many at once ---------------------------------------------------------------------------------------------------------

MANY, EACH = 50, 60


async def test_fifty_partial_refunds_at_once_over_http_give_back_what_was_captured_and_no_more_at_the_provider(
    till: Till,
) -> None:
    asked = await till.request()
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    await till.confirm(asked)
    await till.until(asked.payment_id, PaymentState.CAPTURED)
    wanted = {"amount_minor": EACH, "reason": "returned"}

    async def refunded(key: str) -> httpx.Response:
        return await until_taken(lambda: till.post(f"{asked.payment_id}/refunds", wanted, key))

    answers = await asyncio.gather(*(refunded(uuid4().hex) for _ in range(MANY)))
    assert Counter(each.status_code for each in answers) == {202: AMOUNT // EACH, 409: MANY - AMOUNT // EACH}
    await _none_left(till, "refund WHERE tenant_id = $1 AND state <> 'succeeded'")
    refunds, _, _ = await till.money_at_provider()
    assert sum(each.amount_minor for each in refunds) == AMOUNT // EACH * EACH
    assert (await till.known(asked.payment_id)).refunded_minor == AMOUNT // EACH * EACH
    await till.agreed_books()
