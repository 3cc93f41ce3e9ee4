"""Reconciliation on a real Postgres against the fake Stripe: every kind of break is planted, found, and repaired if provable."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from libs.common.clock import PLATFORM, new_id, now
from libs.common.database.holdings import pages
from libs.common.errors import ConflictError
from libs.common.telemetry.metrics import REGISTRY
from services.payments.domain.payment.payment import PaymentState
from services.payments.domain.provider.outcome import SeenRefund, Succeeded
from services.payments.domain.reconciliation.reconciliation import Break, BreakState, RunState
from services.payments.handlers.reconciliation import RecordFindings, RequestReconciliation, TakeUpReconciliation
from services.payments.handlers.refunds import RequestRefund
from services.payments.jobs.reconciliation.reconciler import Reconciler
from services.payments.repository import RECONCILIATIONS
from services.payments.tables import HOLDINGS
from tests.integration.bank import AMOUNT, MANY, Bank, bank_of
from tests.shared.callers import Person, edge, message, onboard, problem
from tests.shared.events import payment_requested
from tests.shared.places import Places


@pytest.fixture
async def bank(empty: Places, fake: str) -> AsyncIterator[Bank]:
    async with bank_of(empty("payments"), fake) as bank:
        yield bank


def told(breaks: list[Break]) -> Counter[str]:
    return Counter(f"{each.subject} {each.kind} {each.state}" for each in breaks)


# --- Agreement ----------------------------------------------------------------------------------------------------


async def test_books_that_agree_have_no_break_and_the_same_totals_on_both_sides(bank: Bank) -> None:
    # More than the provider shows on a page, and more than are compared at a time.
    [first, *_] = await bank.pay(MANY)
    await bank.pay(2, confirm=False)
    await bank.shell.execute(
        message(RequestRefund(payment_id=first, refund_id=uuid4(), amount_minor=400, reason="returned"), bank.tenant_id)
    )
    async with asyncio.timeout(120):
        while (await bank.payment(first)).refunded_minor != 400:
            await asyncio.sleep(0.05)
    run, breaks = await bank.reconcile()
    assert breaks == []
    assert run.totals["GBP"]["ours"] == run.totals["GBP"]["theirs"]
    ours = run.totals["GBP"]["ours"]
    assert (ours["gross"], ours["refunded"]) == (MANY * AMOUNT, 400)
    assert ours["fees"] > 0
    assert ours["net"] == MANY * AMOUNT - 400 - ours["fees"]
    # The payments and the refund, and what captures and refund moved on the balance.
    assert (run.counts["compared"], run.counts["in_flight"]) == (MANY + 2 + 1 + MANY + 1, 0)


async def test_what_other_tenants_have_in_the_same_account_is_none_of_its_business(bank: Bank) -> None:
    await bank.pay(1)
    other = replace(bank, tenant_id=await onboard(bank.shell))
    await other.pay(2)
    run, breaks = await bank.reconcile()
    assert breaks == []
    assert run.totals["GBP"]["theirs"]["gross"] == AMOUNT
    assert run.counts["not_ours"] > 0


# --- Breaks ---------------------------------------------------------------------------------------------------------


async def test_every_kind_of_break_is_found_and_what_is_provable_is_repaired(bank: Bank) -> None:
    lost, amiss, unheard, unposted = await bank.pay(4)
    [taken_past_us] = await bank.pay(1, confirm=False)
    whole = await bank.payment(unheard)
    await bank.as_admin(
        f"UPDATE payment SET intent_id = 'pi_of_nobody' WHERE id = '{lost}'",
        f"UPDATE payment SET captured_minor = captured_minor - 1 WHERE id = '{amiss}'",
        # As a restore from before the capture would leave it.
        f"UPDATE payment SET state = 'authorized', captured_minor = 0, look_at = now() + interval '1 day' WHERE id = '{unheard}'",
        f"DELETE FROM ledger_entry WHERE payment_id = '{unheard}'",
        f"DELETE FROM ledger_entry WHERE payment_id = '{unposted}' AND kind = 'fee'",
    )
    intent_id = (await bank.payment(taken_past_us)).intent_id
    assert intent_id is not None
    await bank.gateway.capture_intent(str(uuid4()), intent_id, AMOUNT)
    await bank.gateway.create_intent(
        str(uuid4()),
        amount_minor=700,
        currency="GBP",
        method="pm_card_visa",
        capture="manual",
        metadata={"tenant_id": str(bank.tenant_id), "payment_id": str(uuid4())},
    )
    run, breaks = await bank.reconcile()
    assert told(breaks) == {
        "payment missing-there open": 1,
        "payment missing-here open": 2,
        "payment amount open": 1,
        "payment state repaired": 2,
        "transaction fee repaired": 1,
    }
    assert run.counts["missing-here"] == 2
    assert await bank.payment(unheard) == replace(whole, version=whole.version + 1, look_at=None, sequence=whole.sequence + 1)
    assert (await bank.payment(taken_past_us)).captured_minor == AMOUNT
    ours, theirs = run.totals["GBP"]["ours"], run.totals["GBP"]["theirs"]
    assert ours["fees"] == theirs["fees"]
    # The lost one is here and there, apart; the other that is missing here was never captured.
    assert (ours["gross"], theirs["gross"]) == (5 * AMOUNT - 1, 5 * AMOUNT)


async def test_a_second_intent_for_a_payment_is_the_one_break_and_counts_for_the_provider_alone(bank: Bank) -> None:
    [paid] = await bank.pay(1)
    twin = await bank.gateway.create_intent(
        str(uuid4()),
        amount_minor=AMOUNT,
        currency="GBP",
        method="pm_card_visa",
        capture="manual",
        metadata={"tenant_id": str(bank.tenant_id), "payment_id": str(paid)},
    )
    assert isinstance(twin, Succeeded)
    await bank.gateway.confirm_intent(str(uuid4()), twin.intent_id, "pm_card_visa")
    await bank.gateway.capture_intent(str(uuid4()), twin.intent_id, AMOUNT)
    run, breaks = await bank.reconcile()
    assert [(str(each.kind), each.provider_id, each.repair) for each in breaks] == [("missing-here", twin.intent_id, None)]
    assert [run.totals["GBP"][which]["gross"] for which in ("ours", "theirs")] == [AMOUNT, 2 * AMOUNT]


async def test_a_break_that_lasts_keeps_its_age_and_one_that_a_person_mended_is_gone(bank: Bank) -> None:
    [lasting, mended] = await bank.pay(2)
    for key in (lasting, mended):
        await bank.as_admin(f"UPDATE payment SET captured_minor = 1 WHERE id = '{key}'")
    _, first = await bank.reconcile()
    assert told(first) == {"payment amount open": 2}
    await bank.as_admin(f"UPDATE payment SET captured_minor = {AMOUNT} WHERE id = '{mended}'")
    run, second = await bank.reconcile()
    by_payment = {each.payment_id: each for each in second}
    assert by_payment[mended].state is BreakState.GONE
    assert by_payment[lasting].first_seen_at == {each.payment_id: each for each in first}[lasting].first_seen_at
    assert (by_payment[lasting].seen_count, by_payment[lasting].reconciliation_id) == (2, run.id)


async def test_what_is_still_on_its_way_is_no_break(bank: Bank) -> None:
    [young] = await bank.pay(1)
    await bank.as_admin(f"UPDATE payment SET captured_minor = 1 WHERE id = '{young}'")
    run, breaks = await bank.reconcile(grace=timedelta(minutes=15))
    assert breaks == []
    assert run.counts["in_flight"] == 1
    assert run.totals["GBP"]["ours"]["gross"] == 0


async def test_a_refund_and_a_dispute_that_only_the_provider_knows_are_heard_of(bank: Bank) -> None:
    [refunded] = await bank.pay(1)
    [disputed] = await bank.pay(1, method="pm_card_createDispute")
    intent_id = (await bank.payment(refunded)).intent_id
    assert intent_id is not None
    made = await bank.gateway.create_refund(str(uuid4()), intent_id=intent_id, amount_minor=300, reason="", metadata={})
    assert isinstance(made, SeenRefund)
    _, breaks = await bank.reconcile()
    assert told(breaks) == {"refund missing-here repaired": 1, "dispute missing-here repaired": 1}
    assert {each.payment_id for each in breaks} == {refunded, disputed}
    assert (await bank.payment(refunded)).refunded_minor == 300
    run, again = await bank.reconcile()
    assert {each.state for each in again} == {BreakState.REPAIRED}
    assert run.totals["GBP"]["ours"] == run.totals["GBP"]["theirs"]
    assert (run.totals["GBP"]["ours"]["refunded"], run.totals["GBP"]["ours"]["disputed"]) == (300, AMOUNT)


# --- Runs -----------------------------------------------------------------------------------------------------------


async def test_a_provider_that_is_away_leaves_the_run_for_later_and_no_break(empty: Places) -> None:
    async with bank_of(empty("payments"), "http://127.0.0.1:9") as bank:
        assert await Reconciler(bank.shell, bank.gateway_of).run_one()
        async with bank.shell.database.transaction([bank.tenant_id]) as connection:
            [row] = await connection.fetch("SELECT * FROM reconciliation")
        run = RECONCILIATIONS.decode(row)
        assert (run.state, run.tries) == (RunState.REQUESTED, 1)
        assert run.error
        assert run.due_at is not None
        assert run.due_at > now()
        assert await bank.breaks() == []
        assert not await Reconciler(bank.shell, bank.gateway_of).run_one()


async def test_what_an_account_has_is_read_once_for_all_its_tenants_and_what_is_wrong_with_one_ends_that_one(bank: Bank) -> None:
    tenants = [bank, *[replace(bank, tenant_id=await onboard(bank.shell)) for _ in range(3)]]
    for number, each in enumerate(tenants, 1):
        await each.pay(number)
    broken = tenants.pop()
    listed, lists = list[Any](), bank.gateway.list_intents

    def listing(*window: Any) -> Any:
        listed.append(window)
        return lists(*window)

    async def gateway_of(tenant_id: UUID) -> Any:
        if tenant_id == broken.tenant_id:
            raise ConnectionError("its account cannot be read")
        return bank.gateway

    bank.gateway.list_intents = listing  # type: ignore[method-assign, assignment]
    while await Reconciler(bank.shell, gateway_of).run_one():
        pass
    assert len(listed) == len({*listed}) > 0, "no stretch of time is listed twice"
    for number, each in enumerate(tenants, 1):
        run = await each.last_run()
        assert (run.state, run.totals["GBP"]["theirs"]["gross"]) == (RunState.FINISHED, number * AMOUNT)
        assert run.totals["GBP"]["ours"] == run.totals["GBP"]["theirs"]
    assert ((await broken.last_run()).state, await broken.breaks()) == (RunState.REQUESTED, [])


@pytest.mark.parametrize("already_taken_up", [False, True])
async def test_a_tenant_that_is_being_erased_is_passed_over_and_others_are_reconciled(bank: Bank, already_taken_up: bool) -> None:
    neighbour = replace(bank, tenant_id=await onboard(bank.shell))
    for each in (bank, neighbour):
        await each.pay(1)
    seal = f"INSERT INTO erasure (tenant_id) VALUES ('{bank.tenant_id}')"

    async def gateway_of(tenant_id: UUID) -> Any:
        if already_taken_up and tenant_id == bank.tenant_id:
            await bank.as_admin(seal)
        return bank.gateway

    if not already_taken_up:
        await bank.as_admin(seal)
    assert await Reconciler(bank.shell, gateway_of).run_one()
    assert (await neighbour.last_run()).state is RunState.FINISHED


async def test_of_several_workers_one_reconciles_a_tenant_and_one_that_lost_its_lease_records_nothing(bank: Bank) -> None:
    await bank.pay(1)
    reconcilers = [Reconciler(bank.shell, bank.gateway_of) for _ in range(5)]
    await asyncio.gather(*(each.run_one() for each in reconcilers))
    async with bank.shell.database.transaction([bank.tenant_id]) as connection:
        rows = await connection.fetch("SELECT * FROM reconciliation")
    [run] = [RECONCILIATIONS.decode(row) for row in rows]
    assert (run.state, run.tries) == (RunState.FINISHED, 1)
    late = RecordFindings(reconciliation_id=run.id, tries=run.tries)
    with pytest.raises(ConflictError, match="somebody else"):
        await bank.shell.execute(message(late, bank.tenant_id))
    assert await bank.shell.execute(message(TakeUpReconciliation(reconciliation_id=run.id), bank.tenant_id)) is None


async def test_a_run_that_fell_silent_is_carried_out_again_by_whoever_comes_next(bank: Bank) -> None:
    await bank.pay(1)
    moment = now()
    command = RequestReconciliation(
        reconciliation_id=new_id(), window_from=moment - timedelta(hours=1), window_to=moment, requested_by="test"
    )
    await bank.shell.execute(message(command, bank.tenant_id))
    silent = await bank.shell.execute(message(TakeUpReconciliation(reconciliation_id=command.reconciliation_id), bank.tenant_id))
    assert not await Reconciler(bank.shell, bank.gateway_of).run_one()
    await bank.as_admin("UPDATE reconciliation SET due_at = now()")
    assert await Reconciler(bank.shell, bank.gateway_of).run_one()
    run = await bank.run(silent.id)
    assert (run.state, run.tries) == (RunState.FINISHED, 2)


async def test_the_gauges_say_how_many_breaks_last_and_that_the_schedule_is_kept(bank: Bank) -> None:
    [amiss] = await bank.pay(1)
    await bank.as_admin(f"UPDATE payment SET captured_minor = 1, created_at = now() - interval '1 hour' WHERE id = '{amiss}'")
    await bank.reconcile()
    await bank.as_admin("UPDATE reconciliation SET started_at = now() - interval '1 hour'")
    working = asyncio.create_task(Reconciler(bank.shell, bank.gateway_of).run())
    async with asyncio.timeout(120):
        while REGISTRY.get_sample_value("cartwright_reconciliation_breaks", {"kind": "amount"}) != 1:
            await asyncio.sleep(0.1)
        while await bank.scheduled_runs() == 0:
            await asyncio.sleep(0.1)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert REGISTRY.get_sample_value("cartwright_reconciliation_breaks", {"kind": "fee"}) == 0
    assert (REGISTRY.get_sample_value("cartwright_reconciliation_oldest_break_seconds") or 0) > 0
    assert (REGISTRY.get_sample_value("cartwright_reconciliation_last_run_seconds") or 0) >= 3_600
    assert await bank.scheduled_runs() == 1


async def test_what_is_taken_away_is_the_same_however_often_the_same_break_is_seen_again(bank: Bank) -> None:
    async def taken() -> bytes:
        found = pages(lambda: bank.shell.database.transaction([bank.tenant_id]), bank.tenant_id, HOLDINGS.parts)
        return b"".join([lines async for _, _, lines in found])

    [amiss] = await bank.pay(1)
    await bank.as_admin(f"UPDATE payment SET captured_minor = 1 WHERE id = '{amiss}'")
    _, [first] = await bank.reconcile()
    before = await taken()
    _, [again] = await bank.reconcile()
    assert (first.state, again.state, again.seen_count) == (BreakState.OPEN, BreakState.OPEN, first.seen_count + 1)
    assert b'"reconciliation_break"' in before
    assert await taken() == before


# --- HTTP -----------------------------------------------------------------------------------------------------------


async def test_a_tenant_reads_its_own_reconciliations_and_operators_ask_for_them(bank: Bank) -> None:
    [amiss] = await bank.pay(1)
    await bank.as_admin(f"UPDATE payment SET captured_minor = 1 WHERE id = '{amiss}'")
    operator = Person(PLATFORM, role="platform-operator").authorization
    client = Person(bank.tenant_id, role="client").authorization
    stranger = Person(uuid4(), role="client").authorization
    body = {"tenant_id": str(bank.tenant_id), "days": 1, "grace_seconds": 0}
    async with edge(bank.place) as (http, _):
        assert problem(await http.post("/ops/reconciliations", json=body, headers=client))["code"] == "platform-only"
        unknown = await http.post("/ops/reconciliations", json={"tenant_id": str(uuid4())}, headers=operator)
        assert problem(unknown)["code"] == "tenant-not-found"
        asked = await http.post("/ops/reconciliations", json=body, headers=operator)
        assert asked.status_code == 202
        again = problem(await http.post("/ops/reconciliations", json=body, headers=operator))
        run_id = asked.json()["reconciliation_id"]
        assert (again["status"], again["reconciliation_id"]) == (409, run_id)
        assert await Reconciler(bank.shell, bank.gateway_of).run_one()
        shown = (await http.get(f"/ops/reconciliations/{bank.tenant_id}/{run_id}", headers=operator)).json()
        own = (await http.get(f"/v1/reconciliations/{run_id}", headers=client)).json()
        listed = (await http.get("/v1/reconciliations", headers=client)).json()["items"]
        assert (await http.get(f"/v1/reconciliations/{run_id}", headers=stranger)).status_code == 404
        assert (await http.get("/v1/reconciliations", headers=stranger)).json()["items"] == []
    assert [each["id"] for each in listed] == [run_id]
    for report in (shown, own):
        assert [(each["kind"], each["payment_id"], each["state"]) for each in report["breaks"]] == [
            ("amount", str(amiss), "open")
        ]
        assert report["totals"][0]["ours"]["gross_minor"] == 1


async def test_a_break_that_nobody_can_mend_is_closed_by_a_person_who_says_why_until_a_side_moves(bank: Bank) -> None:
    [amiss] = await bank.pay(1)
    await bank.as_admin(f"UPDATE payment SET captured_minor = 1 WHERE id = '{amiss}'")
    run, [found] = await bank.reconcile()
    client = Person(bank.tenant_id, role="client").authorization
    path, word = f"/v1/reconciliations/{run.id}/breaks/{found.id}/close", {"reason": "agreed with the accountants"}
    async with edge(bank.place) as (http, _):
        for headers in (Person(bank.tenant_id, role="shopper").authorization, Person(uuid4(), role="client").authorization):
            assert (await http.post(path, json=word, headers={**headers, "Idempotency-Key": "k"})).status_code in {403, 404}
        assert problem(await http.post(path, json={}, headers={**client, "Idempotency-Key": "k1"}))["status"] == 422
        closed = await http.post(path, json=word, headers={**client, "Idempotency-Key": "k2"})
        assert (closed.status_code, closed.json()["state"], closed.json()["closed_reason"]) == (200, "settled", word["reason"])
        assert closed.json()["closed_by"], "it says who"
        again = await http.post(path, json=word, headers={**client, "Idempotency-Key": "k2"})
        assert (again.json(), again.headers["Idempotent-Replayed"]) == (closed.json(), "true")
        twice = await http.post(path, json=word, headers={**client, "Idempotency-Key": "k3"})
        assert problem(twice)["code"] == "break-closed"
    _, [seen] = await bank.reconcile()
    assert (seen.state, seen.closed_reason, seen.seen_count) == (BreakState.SETTLED, word["reason"], 2)
    await bank.as_admin(f"UPDATE payment SET captured_minor = 2 WHERE id = '{amiss}'")
    _, [moved] = await bank.reconcile()
    assert (moved.state, moved.closed_by, moved.closed_reason) == (BreakState.OPEN, None, None), "that is another difference"
    operator = Person(PLATFORM, role="platform-operator").authorization
    async with edge(bank.place) as (http, _):
        body = {"tenant_id": str(bank.tenant_id), **word}
        shown = await http.post(f"/ops/breaks/{found.id}/close", json=body, headers=operator)
        assert (shown.status_code, shown.json()["state"]) == (200, "settled")
        assert problem(await http.post(f"/ops/breaks/{uuid4()}/close", json=body, headers=operator))["code"] == "break-not-found"


async def test_an_outcome_that_nobody_knows_is_listed_for_operators_and_looked_into_at_their_word(bank: Bank, fake: str) -> None:
    operator = Person(PLATFORM, role="platform-operator").authorization
    rule = {"match": {"metadata": {"tenant_id": str(bank.tenant_id)}, "path": "*/pi_*"}, "fault": "reset_before"}
    async with edge(bank.place) as (http, _), httpx.AsyncClient(base_url=fake) as provider:
        (await provider.put("/_control/faults", json={"rules": [rule]})).raise_for_status()
        asked = payment_requested(amount_minor=AMOUNT)
        await bank.shell.execute(message(asked, bank.tenant_id))
        await bank.until(1, PaymentState.UNKNOWN, [asked.payment_id])
        assert problem(await http.get("/ops/payments/unknown", headers=Person(bank.tenant_id, role="client").authorization))
        [item] = (await http.get("/ops/payments/unknown", headers=operator)).json()["items"]
        assert (item["tenant_id"], item["payment_id"]) == (str(bank.tenant_id), str(asked.payment_id))
        assert (item["kind"], item["amount_minor"], item["awaits_person"]) == ("confirm", AMOUNT, False)
        elsewhere = await http.get(f"/ops/payments/unknown?tenant_id={uuid4()}", headers=operator)
        assert elsewhere.json()["items"] == []
        (await provider.delete("/_control/faults")).raise_for_status()
        word = {"tenant_id": str(bank.tenant_id), "verdict": "read-again", "reason": "the provider is back"}
        path = f"/ops/payments/{asked.payment_id}/resolve"
        gateways = bank.lend(http, fake)
        assert (await http.post(path, json=word, headers=operator)).json()["operation_ids"] == [item["operation_id"]]
        await bank.until(1, PaymentState.AUTHORIZED, [asked.payment_id])
        assert (await http.get("/ops/payments/unknown", headers=operator)).json()["items"] == []
        assert problem(await http.post(path, json=word, headers=operator))["code"] == "nothing-unknown"
        await gateways.close()
