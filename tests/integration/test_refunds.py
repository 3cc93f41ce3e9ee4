"""Refunds on a real Postgres: bounded however many ask, counted once however often told of, free again when they fail."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from libs.common.clock import now
from libs.common.contracts.checkout import OrderStatusTold
from libs.common.errors import ConflictError
from libs.common.messaging.shell import Failure, Shell
from libs.common.sealing import SealError
from services.payments.domain.money.ledger import Account
from services.payments.domain.provider.operation import Operation
from services.payments.domain.provider.outcome import (
    Outcome,
    RefundStatus,
    Rejected,
    SeenRefund,
    Unknown,
)
from services.payments.gateway.protocol import PaymentGateway
from services.payments.handlers.refunds import ObserveRefund
from services.payments.jobs.money.orphans import ask_for_orders
from services.payments.jobs.money.refunds import look_into_due
from services.payments.repository import REFUNDS
from tests.shared.callers import Person, edge, message, onboard, problem, shell_of
from tests.shared.events import refund_requested
from tests.shared.paying import (
    AMOUNT,
    FEE,
    always,
    answer,
    balances,
    captured,
    entry_kinds,
    numbers,
    opened,
    published,
    refund_of,
    wanted,
)
from tests.shared.places import Places

MANY = 50


@pytest.fixture
async def payments(shared: Places) -> AsyncIterator[Shell]:
    async with shell_of(shared("payments")) as shell:
        yield shell


async def test_fifty_partial_refunds_at_once_never_exceed_the_capture(payments: Shell) -> None:
    tenant_id = await onboard(payments)
    payment_id = await captured(payments, tenant_id)
    # 50 times 300 are wanted of 10,000: by hand and by order, one at a time and in batches.
    by_hand = [payments.execute(message(wanted(payment_id, 300), tenant_id)) for _ in range(MANY // 2)]
    by_order = [refund_requested(300, payment_id=payment_id) for _ in range(MANY // 2)]
    batches = [[message(each, tenant_id) for each in by_order[start::5]] for start in range(5)] * 2  # and each twice
    outcomes = await asyncio.gather(*by_hand, *map(payments.execute_many, batches), return_exceptions=True)
    refused = [each for each in outcomes if isinstance(each, BaseException)]
    assert {each.code for each in refused if isinstance(each, ConflictError)} <= {"refund-exceeds-capture"}
    assert all(isinstance(each, ConflictError) for each in refused)
    rows = await states(payments, tenant_id)
    assert rows["requested"] == AMOUNT // 300
    assert rows["requested"] + rows["failed"] + len(refused) == MANY
    assert await numbers(payments, tenant_id, payment_id) == (AMOUNT, 9_900, 0)
    assert await answer(payments, tenant_id) == AMOUNT // 300
    assert await numbers(payments, tenant_id, payment_id) == (AMOUNT, 0, 9_900)
    assert (await balances(payments, tenant_id))[Account.PROVIDER_BALANCE] == AMOUNT - FEE - 9_900


async def states(shell: Shell, tenant_id: UUID) -> Counter[str]:
    async with shell.database.transaction([tenant_id]) as connection:
        return Counter(row["state"] for row in await connection.fetch("SELECT state FROM refund"))


async def test_the_database_itself_lets_no_more_go_back_than_was_captured(payments: Shell) -> None:
    tenant_id = await onboard(payments)
    payment_id = await captured(payments, tenant_id)
    for change in ("refunding_minor = captured_minor + 1", "refunded_minor = captured_minor, refunding_minor = 1"):
        with pytest.raises(asyncpg.CheckViolationError, match="payment_refunded_within_captured"):
            async with payments.database.transaction([tenant_id]) as connection:
                await connection.execute(f"UPDATE payment SET {change} WHERE id = $1", payment_id)


async def test_what_a_refund_took_may_be_refunded_again_when_it_fails_even_late(payments: Shell) -> None:
    tenant_id = await onboard(payments)
    payment_id = await captured(payments, tenant_id)
    failures: list[Callable[[Operation], Outcome]] = [
        always(Rejected("invalid-request", "")),
        lambda call: refund_of(call, RefundStatus.FAILED),
        lambda call: refund_of(call, RefundStatus.PENDING),
        lambda call: refund_of(call, RefundStatus.SUCCEEDED),
    ]
    for outcome in failures:
        await payments.execute(message(wanted(payment_id, None), tenant_id))
        with pytest.raises(ConflictError, match="refund-exceeds-capture"):
            await payments.execute(message(wanted(payment_id, 1), tenant_id))
        [call] = await opened(payments, tenant_id)
        await answer(payments, tenant_id, outcome)
        if isinstance(outcome(call), SeenRefund):
            seen = ObserveRefund(payment_id=payment_id, seen=refund_of(call, RefundStatus.FAILED))
            await payments.execute_many([message(seen, tenant_id)] * 3)
        assert await numbers(payments, tenant_id, payment_id) == (AMOUNT, 0, 0)
        assert (await balances(payments, tenant_id))[Account.PROVIDER_BALANCE] == AMOUNT - FEE
    assert await states(payments, tenant_id) == {"failed": 4}
    kinds = await entry_kinds(payments, tenant_id)
    assert kinds == {"capture": 1, "fee": 1, "refund": 1, "refund_return": 1}


async def test_news_of_a_refund_whose_call_is_unknown_only_hastens_the_look_at_it(payments: Shell) -> None:
    tenant_id = await onboard(payments)
    payment_id = await captured(payments, tenant_id)
    await payments.execute(message(wanted(payment_id, 400), tenant_id))
    await answer(payments, tenant_id, always(Unknown("timeout")))
    [call] = await opened(payments, tenant_id)
    assert call.due_at is not None
    assert call.due_at > now()
    seen = ObserveRefund(payment_id=payment_id, seen=refund_of(call, RefundStatus.SUCCEEDED))
    assert await payments.execute(message(seen, tenant_id))
    assert await states(payments, tenant_id) == {"unknown": 1}
    [hurried] = await opened(payments, tenant_id)
    assert hurried.due_at is not None
    assert hurried.due_at <= now()
    await answer(payments, tenant_id)
    assert await numbers(payments, tenant_id, payment_id) == (AMOUNT, 0, 400)


async def test_a_refund_that_the_provider_has_and_we_have_lost_is_counted_under_its_own_id(payments: Shell) -> None:
    tenant_id = await onboard(payments)
    payment_id = await captured(payments, tenant_id)
    lost = uuid4()
    seen = SeenRefund(
        provider_id="re_lost",
        intent_id=f"pi_{payment_id.hex}",
        charge_id=None,
        amount_minor=700,
        currency="gbp",
        status=RefundStatus.SUCCEEDED,
        failure_code=None,
        metadata={"refund_id": str(lost)},
        created_at=now(),
    )
    observed = message(ObserveRefund(payment_id=payment_id, seen=seen), tenant_id)
    assert await payments.execute_many([observed, observed]) == [True, False]
    async with payments.database.transaction([tenant_id]) as connection:
        [refund] = await REFUNDS.load(connection, [(tenant_id, lost)], lock=False)
    assert (refund.state, refund.amount_minor, refund.provider_id) == ("succeeded", 700, "re_lost")
    assert (await balances(payments, tenant_id))[Account.REFUNDS] == 700
    assert await opened(payments, tenant_id) == [], "nobody is asked for what was done already"


async def test_a_lost_call_of_a_refund_is_planned_again_under_the_same_key_and_a_spent_key_is_followed_by_the_next(
    empty: Places,
) -> None:
    place = empty("payments")
    async with shell_of(place) as shell:
        tenant_id = await onboard(shell)
        payment_id = await captured(shell, tenant_id)
        await shell.execute(message(wanted(payment_id, 400), tenant_id))
        [lost] = await opened(shell, tenant_id)
        admin = await place.as_admin()
        await admin.execute("UPDATE refund SET due_at = now()")
        assert await look_into_due(shell, nobody_is_called) == 1
        assert await opened(shell, tenant_id) == [lost], "what is there is left alone"
        await admin.execute("DELETE FROM operation WHERE id = $1", lost.id)
        assert await look_into_due(shell, nobody_is_called) == 0, "it is due once, and then by its ladder"
        await admin.execute("UPDATE refund SET due_at = now()")
        await admin.close()
        assert await asyncio.gather(*(look_into_due(shell, nobody_is_called) for _ in range(3))) in (
            [1, 0, 0],
            [0, 1, 0],
            [0, 0, 1],
        )
        [again] = await opened(shell, tenant_id)
        assert (again.idempotency_key, again.request) == (lost.idempotency_key, lost.request)
        assert again.first_send_at == lost.first_send_at, "the key is as old as it was"
        for outcome in (Unknown("http-500", stored=True), Rejected("spent-key", "http-500")):
            await answer(shell, tenant_id, always(outcome))
        [second] = await opened(shell, tenant_id)
        assert second.idempotency_key != lost.idempotency_key
        assert second.request == lost.request
        await answer(shell, tenant_id)
        assert await numbers(shell, tenant_id, payment_id) == (AMOUNT, 0, 400)


async def nobody_is_called(tenant_id: UUID) -> PaymentGateway:
    raise AssertionError(tenant_id)


async def test_an_account_that_does_not_open_keeps_nobody_from_looking_into_other_refunds(empty: Places) -> None:
    async with shell_of(empty("payments")) as shell:
        tenant_id = await onboard(shell)
        payment_id = await captured(shell, tenant_id)
        await shell.execute(message(wanted(payment_id, 400), tenant_id))
        await answer(shell, tenant_id, lambda call: refund_of(call, RefundStatus.PENDING))
        async with shell.database.transaction([tenant_id]) as connection:
            await connection.execute("UPDATE refund SET due_at = now()")

        async def sealed(_: UUID) -> PaymentGateway:
            raise SealError("another master key wrapped it")

        assert await look_into_due(shell, sealed) == 1
        async with shell.database.transaction([tenant_id]) as connection:
            assert await connection.fetchval("SELECT due_at > now() FROM refund"), "it is due again, by its ladder"


# --- Money that belongs to no order -------------------------------------------------------------------------------


async def test_money_without_an_order_goes_back_once_checkout_says_that_there_is_none_and_never_upon_silence(
    empty: Places,
) -> None:
    async with shell_of(empty("payments")) as shell:
        tenant_id = await onboard(shell)
        kept = await captured(shell, tenant_id)
        orphaned, lagging = [await captured(shell, tenant_id, confirm=False) for _ in range(2)]
        async with shell.database.transaction([tenant_id]) as connection:
            # As after a provider that captured of its own accord, or a shipment whose order is still on its way.
            change = "state = 'captured', captured_minor = authorized_minor, look_at = NULL"
            await connection.execute(f"UPDATE payment SET {change} WHERE id = ANY ($1)", [orphaned, lagging])
        assert await ask_for_orders(shell, timedelta(hours=1)) == 0, "an order may still be on its way"
        for _ in range(3):
            assert await ask_for_orders(shell, timedelta(0)) == 2
            assert await ask_for_orders(shell, timedelta(minutes=1)) == 0, "it was asked just now"
            assert await opened(shell, tenant_id) == [], "nothing goes back upon silence"
        await shell.execute_many([message(told(kept, "none"), tenant_id), message(told(lagging, "confirmed"), tenant_id)])
        assert await ask_for_orders(shell, timedelta(0)) == 1
        none = [message(told(orphaned, "none"), tenant_id) for _ in range(2)]
        await asyncio.gather(*(shell.execute_many([each]) for each in none))
        assert await answer(shell, tenant_id, always(Rejected("invalid-request", ""))) == 1
        assert await ask_for_orders(shell, timedelta(hours=1)) == 0, "after a failure it waits"
        assert await ask_for_orders(shell, timedelta(0)) == 1
        await shell.execute_many(none[:1])
        await answer(shell, tenant_id)
        assert await ask_for_orders(shell, timedelta(0)) == 0
        assert await numbers(shell, tenant_id, orphaned) == (AMOUNT, 0, AMOUNT)
        assert [await numbers(shell, tenant_id, each) for each in (kept, lagging)] == [(AMOUNT, 0, 0)] * 2


def told(payment_id: UUID, status: Literal["confirmed", "canceled", "none"]) -> OrderStatusTold:
    """Checkout's answer about the order of this payment."""
    whose = {"question_id": uuid4(), "checkout_id": uuid4(), "order_id": uuid4()}
    return OrderStatusTold(payment_id=payment_id, status=status, **whose)


# --- Over HTTP ----------------------------------------------------------------------------------------------------


async def test_a_refund_asked_for_twice_is_one_and_what_cannot_be_is_a_clear_problem(shared: Places) -> None:
    async with edge(shared("payments")) as (client, shell):
        tenant_id = await onboard(shell)
        payment_id, held = await captured(shell, tenant_id), await captured(shell, tenant_id, confirm=False)
        staff = Person(tenant_id, role="client").authorization

        async def ask(of: UUID | str, body: Any, key: str = "", headers: dict[str, str] = staff) -> httpx.Response:
            idempotent = {**headers, "Idempotency-Key": key or str(uuid4())}
            return await client.post(f"/v1/payments/{of}/refunds", json=body, headers=idempotent)

        body = {"amount_minor": 2_500, "reason": "broken"}
        twins = await asyncio.gather(*(ask(payment_id, body, "once") for _ in range(10)))
        assert {twin.status_code for twin in twins} == {202}
        [refund_id] = {twin.json()["id"] for twin in twins}
        assert sum("idempotent-replayed" not in twin.headers for twin in twins) == 1
        assert {twin.headers["location"] for twin in twins} == {f"/v1/refunds/{refund_id}"}
        assert await numbers(shell, tenant_id, payment_id) == (AMOUNT, 2_500, 0)
        [call] = await opened(shell, tenant_id)
        assert call.due_at is not None
        assert call.due_at <= now(), "the process that plans it makes no calls: whoever does may take it up at once"
        rest = (await ask(payment_id, {"reason": "the rest"})).json()
        assert (rest["amount_minor"], rest["state"]) == (AMOUNT - 2_500, "requested")
        refusals = [
            (await ask(payment_id, {"amount_minor": 1, "reason": "more"}), 409, "refund-exceeds-capture"),
            (await ask(held, {"reason": "not ours yet"}), 409, "payment-not-captured"),
            (await ask(uuid4(), {"reason": "unknown"}), 404, "payment-not-found"),
            (await ask(refund_id, {"reason": "of a refund"}), 404, "payment-not-found"),
            (await ask("nonsense", {"reason": "no id"}), 404, "not-found"),
            (await ask(payment_id, {"amount_minor": 0, "reason": "nothing"}), 422, "schema"),
            (await ask(payment_id, {"amount_minor": -1, "reason": "less"}), 422, "schema"),
            (await ask(payment_id, {"amount_minor": 1.5, "reason": "a float"}), 422, "schema"),
            (await ask(payment_id, {"amount_minor": 1}), 422, "schema"),
            (await ask(payment_id, {**body, "reason": "another"}, "once"), 422, "idempotency-key-reused"),
            (await ask(payment_id, body, headers=Person(tenant_id).authorization), 403, "permission-missing"),
        ]
        for response, status, code in refusals:
            assert (response.status_code, problem(response)["code"]) == (status, code)
        assert len(await opened(shell, tenant_id)) == 2, "no refusal plans a call"
        await answer(shell, tenant_id)
        read = await client.get(f"/v1/refunds/{refund_id}", headers=staff)
        assert read.json()["state"] == "succeeded"
        replayed = await ask(payment_id, body, "once")
        assert (replayed.status_code, replayed.json()) == (202, read.json()), "a refund lives on: a replay shows it as it is"
        async with shell.database.transaction([tenant_id]) as connection:
            payer = await connection.fetchval("SELECT subject_id FROM payment WHERE id = $1", payment_id)
        seen = await client.get(f"/v1/refunds/{refund_id}", headers=Person(tenant_id, payer).authorization)
        assert seen.json() == read.json(), "the payer sees what comes back to them"
        for stranger in (Person(await onboard(shell), role="client"), Person(tenant_id)):
            assert (await client.get(f"/v1/refunds/{refund_id}", headers=stranger.authorization)).status_code == 404


async def test_an_order_that_asks_for_too_much_is_told_that_it_failed(shared: Places) -> None:
    async with shell_of(shared("payments")) as shell:
        tenant_id = await onboard(shell)
        payment_id = await captured(shell, tenant_id)
        asked = [
            refund_requested(amount_minor, payment_id=payment_id, currency=currency)
            for amount_minor, currency in ((AMOUNT + 1, "GBP"), (1, "EUR"), (0, "GBP"))
        ]
        answers = await shell.execute_many([message(each, tenant_id) for each in asked + asked])
        assert not any(isinstance(each, Failure) for each in answers)
        assert await opened(shell, tenant_id) == []
        assert await states(shell, tenant_id) == {"failed": 3}
        assert await published(shared("payments"), tenant_id, "refund.") == ["refund.failed"] * 3
