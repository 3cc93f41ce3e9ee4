"""Money on its way back, against the fake Stripe's own process: whatever is lost, once; and books that agree with its balance."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from uuid import UUID, uuid4

import pytest

from services.payments.domain.money.ledger import Account
from services.payments.domain.payment.payment import PaymentState
from services.payments.domain.provider.outcome import DisputeStatus
from services.payments.handlers.disputes import ObserveDispute
from services.payments.handlers.refunds import ObserveRefund
from services.payments.jobs.money.refunds import look_into_due
from tests.shared.callers import Person, message
from tests.shared.events import AMOUNT
from tests.shared.fakes import Process, started
from tests.shared.paying import wanted
from tests.shared.places import Places
from tests.shared.till import HASTY_SECONDS, MISHAPS, Till, till_at

OVER = {"succeeded", "failed", "canceled"}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A fake of this module's own, whose clock may be put forward."""
    process = started(tmp_path_factory.mktemp("stripe") / "journal")
    yield process
    process.kill()


@pytest.fixture
async def till(shared: Places, provider: Process) -> AsyncIterator[Till]:
    async with till_at(shared("payments"), provider.url) as till:
        yield till


@pytest.fixture
async def hasty_till(shared: Places, provider: Process) -> AsyncIterator[Till]:
    """One that gives a call up soon, where many hang."""
    async with till_at(shared("payments"), provider.url, call_seconds=HASTY_SECONDS) as till:
        yield till


async def captured(till: Till, method: str = "pm_card_visa") -> UUID:
    asked = await till.request(method)
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    await till.confirm(asked)
    await till.until(asked.payment_id, PaymentState.CAPTURED)
    return asked.payment_id


async def refund(till: Till, payment_id: UUID, amount_minor: int | None) -> UUID:
    """Ask for it as staff do; answers its id."""
    body = {"reason": "returned"} if amount_minor is None else {"reason": "returned", "amount_minor": amount_minor}
    headers = {**till.staff, "Idempotency-Key": str(uuid4())}
    response = await till.client.post(f"/v1/payments/{payment_id}/refunds", json=body, headers=headers)
    assert response.status_code == 202, response.text
    return UUID(response.json()["id"])


async def states(till: Till) -> dict[UUID, str]:
    return {
        row["id"]: row["state"]
        for row in await till.as_admin("SELECT id, state FROM refund WHERE tenant_id = $1", till.tenant_id)
    }


async def until(till: Till, refund_id: UUID, state: str) -> None:
    async with asyncio.timeout(120):
        while (await states(till))[refund_id] != state:
            await asyncio.sleep(0.05)


async def observe(till: Till) -> None:
    """See every refund and dispute as it stands, as upon a notice."""
    refunds, disputes, _ = await till.money_at_provider()
    payments = await till.as_admin("SELECT id, intent_id FROM payment WHERE tenant_id = $1", till.tenant_id)
    of_intent = {row["intent_id"]: row["id"] for row in payments}
    for seen in refunds:
        await till.shell.execute(message(ObserveRefund(payment_id=of_intent[seen.intent_id], seen=seen), till.tenant_id))
    for case in disputes:
        await till.shell.execute(message(ObserveDispute(payment_id=of_intent[case.intent_id], seen=case), till.tenant_id))


async def test_after_refunds_of_every_kind_and_disputes_won_and_lost_the_books_agree_with_the_providers_balance(
    till: Till,
) -> None:
    paid, pending, failing = (
        await captured(till),
        await captured(till, "pm_card_pendingRefund"),
        await captured(till, "pm_card_refundFail"),
    )
    won, lost = await captured(till, "pm_card_createDispute"), await captured(till, "pm_card_createDispute")
    for payment_id in (paid, paid):
        await until(till, await refund(till, payment_id, 300), "succeeded")
    late = await refund(till, pending, None)
    await until(till, late, "pending")
    returned = await refund(till, failing, None)
    await until(till, returned, "succeeded")
    assert (await till.known(pending)).refunding_minor == AMOUNT
    assert (await till.known(failing)).refunded_minor == AMOUNT
    await till.control("clock", advance_seconds=10)
    # Nobody tells us of the pending one, so it is looked into; that the other came back, a notice tells.
    await till.as_admin("UPDATE refund SET due_at = now() WHERE id = $1", late)
    assert await look_into_due(till.shell, till.gateways.of) >= 1
    assert (await states(till))[late] == "succeeded"
    await observe(till)
    assert (await states(till))[returned] == "failed"
    assert (await till.known(failing)).refunded_minor == 0
    payer = Person(till.tenant_id, subject=(await till.known(failing)).subject_id)
    exactly, told = [
        (await till.client.get(f"/v1/refunds/{returned}", headers=headers)).json()["failure_code"]
        for headers in (till.staff, payer.authorization)
    ]
    assert (exactly != told, told) == (True, "refund_failed"), "that a card is lost is for staff to know"
    _, [first, second], _ = await till.money_at_provider()
    for case, status in ((first, DisputeStatus.WON), (second, DisputeStatus.LOST)):
        await till.agreed_books()
        await till.control(f"disputes/{case.provider_id}", status=status)
        await observe(till)
    ours = await till.agreed_books()
    assert ours[Account.SALES] == 5 * AMOUNT
    assert ours[Account.REFUNDS] == AMOUNT + 600
    assert ours[Account.CHARGEBACKS] == AMOUNT, "one of two was won"
    listed = (await till.client.get("/v1/disputes", headers=till.staff)).json()["items"]
    assert {each["payment_id"]: each["state"] for each in listed}.keys() == {str(won), str(lost)}
    assert Counter(each["state"] for each in listed) == {"won": 1, "lost": 1}


async def test_whatever_a_third_of_the_calls_come_to_every_refund_is_made_once(hasty_till: Till) -> None:
    till = hasty_till
    payments = [await captured(till) for _ in range(10)]
    everywhere = {"path": "/v1/refunds*"}
    await till.faults(*({"match": everywhere, "fault": fault, "probability": 0.06, "seed": n} for n, fault in enumerate(MISHAPS)))
    asked = [
        await till.shell.execute(message(wanted(payment_id, 250), till.tenant_id)) for payment_id in payments for _ in range(5)
    ]
    async with asyncio.timeout(120):
        while not set((found := await states(till)).values()) <= OVER:
            await till.hurry()
            await asyncio.sleep(0.2)
            if Counter(found.values())["succeeded"] > len(asked) // 2:
                await till.faults()
    assert set(found.values()) == {"succeeded"}
    struck = "SELECT count(*) AS calls FROM operation WHERE tenant_id = $1 AND kind = 'refund' AND unknown_count > 0"
    assert (await till.as_admin(struck, till.tenant_id))[0]["calls"] > 0, "nothing was lost, so nothing is shown"
    made, _, _ = await till.money_at_provider()
    assert Counter(each.metadata["refund_id"] for each in made) == {str(each.id): 1 for each in asked}
    assert {(await till.known(payment_id)).refunded_minor for payment_id in payments} == {AMOUNT}
    await till.agreed_books()
