"""What the provider tells of: believed only if it is truly signed and this tenant's, and settled once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
from structlog.testing import capture_logs

from libs.common.clock import now
from libs.common.sealing import MasterKeys
from services.payments.domain.payment.payment import Payment, PaymentState
from services.payments.domain.provider.outcome import SeenRefund
from services.payments.jobs.provider.webhooks import Settler
from tests.integration.till_edge import (
    CONNECT_SECRET,
    NEXT_SECRET,
    OLD,
    OWN_SECRET,
    SHARED_SECRET,
    Edge,
    a_key,
    capture,
    pay,
    payments_edge,
)
from tests.shared.callers import onboard, problem, until_taken
from tests.shared.places import Places


@pytest.fixture
async def payments(shared: Places, fake: str) -> AsyncIterator[Edge]:
    async with payments_edge(shared("payments"), fake, MasterKeys(OLD)) as made:
        yield made


def event(payments: Edge, thing: dict[str, Any], **members: Any) -> bytes:
    metadata = {"tenant_id": str(payments.tenant_id)}
    whole = {
        "id": f"evt_{uuid4().hex}",
        "object": "event",
        "type": "payment_intent.succeeded",
        "created": int(now().timestamp()),
        "livemode": False,
        "data": {"object": {"object": "payment_intent", "amount_received": 0, "metadata": metadata, **thing}},
    }
    return orjson.dumps(whole | members)


def about(payments: Edge, payment: Payment, status: str, *, taken: int = 0, **members: Any) -> bytes:
    metadata = {"tenant_id": str(payments.tenant_id), "payment_id": str(payment.id)}
    thing = {"id": payment.intent_id, "status": status, "amount_received": taken, "metadata": metadata}
    return event(payments, thing, **members)


async def settle(payments: Edge) -> int:
    return await Settler(payments.shell, payments.gateways).settle_due()


async def test_an_event_is_stored_once_however_often_and_however_many_at_once_it_comes(payments: Edge) -> None:
    body = event(payments, {"id": "pi_x", "status": "succeeded"})

    answers = await asyncio.gather(*(until_taken(lambda: payments.tell(body)) for _ in range(20)))
    assert [answer.status_code for answer in answers] == [200] * 20
    assert sorted(answer.json()["status"] for answer in answers) == ["accepted"] + ["duplicate"] * 19
    assert len(await payments.notices()) == 1


async def test_the_same_event_id_of_two_tenants_is_two_events(payments: Edge) -> None:
    other = await onboard(payments.shell)
    shared_id = event(payments, {"id": "pi_x", "status": "succeeded", "metadata": {}}, id="evt_same")
    for tenant_id in (payments.tenant_id, other):
        assert (await payments.tell(shared_id, tenant_id=tenant_id)).json() == {"status": "accepted"}


async def test_a_tenants_own_secrets_are_the_only_ones_that_count_and_two_may_live_at_once(payments: Edge) -> None:
    assert (await payments.put(api_key=a_key(), webhook_secrets=[NEXT_SECRET, OWN_SECRET])).status_code == 200
    for secrets, status in (
        ([OWN_SECRET], 200),
        ([NEXT_SECRET], 200),
        (["whsec_revoked00", NEXT_SECRET], 200),
        ([SHARED_SECRET], 400),
        (["whsec_stranger0"], 400),
    ):
        told = await payments.tell(event(payments, {"id": "pi_x", "status": "succeeded"}), *secrets)
        assert told.status_code == status, secrets
    elsewhere = await payments.tell(
        event(payments, {"id": "pi_x", "status": "succeeded"}), OWN_SECRET, tenant_id=await onboard(payments.shell)
    )
    assert problem(elsewhere)["code"] == "bad-signature"
    assert len(await payments.notices()) == 3


async def test_nothing_of_a_body_that_is_not_signed_is_parsed_stored_or_told(payments: Edge) -> None:
    body = event(payments, {"id": "pi_x", "status": "succeeded"})
    path = f"/v1/webhooks/stripe/{payments.tenant_id}"
    unsigned = await payments.client.post(path, content=b"{not json, canary")
    assert (unsigned.status_code, problem(unsigned)["code"]) == (400, "signature-missing")
    late, early = [await payments.tell(body, at=now().timestamp() + off) for off in (-301, 310)]
    assert [problem(answer)["code"] for answer in (late, early)] == ["bad-time"] * 2
    assert problem(await payments.tell(b"{not json, canary"))["code"] == "not-an-event", "signed, and yet nothing"
    assert (await payments.client.post(path, content=b"x" * 256_001)).status_code == 413
    nobody = await payments.tell(body, tenant_id=uuid4())
    assert (nobody.status_code, problem(nobody)["code"]) == (404, "tenant-not-found")
    assert (await payments.client.post("/v1/webhooks/stripe/nobody", content=body)).status_code == 404
    assert await payments.notices() == []


@pytest.mark.parametrize(
    ("members", "metadata", "reason"),
    [
        ({"livemode": True}, None, "a live event for a test account"),
        ({"account": "acct_other1"}, None, "an event of another account"),
        ({}, {"tenant_id": str(uuid4())}, "an event about no tenant's object"),
        ({}, {"tenant_id": "shop-7", "payment_id": "12"}, "an event about no tenant's object"),
    ],
)
async def test_a_true_event_that_is_of_no_use_to_this_tenant_is_taken_and_let_go(
    payments: Edge, members: dict[str, Any], metadata: dict[str, str] | None, reason: str
) -> None:
    thing: dict[str, Any] = {"id": "pi_x", "status": "succeeded"} | ({"metadata": metadata} if metadata else {})
    body = event(payments, thing, **members)
    with capture_logs() as lines:
        answers = [await payments.tell(body), await payments.tell_platform(body)]
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"status": "ignored"})] * 2
    assert [line["reason"] for line in lines if line["event"] == "webhook.ignored"] == [reason] * 2
    assert await payments.notices() == []


async def test_wherever_an_event_of_the_shared_account_arrives_it_reaches_the_one_whose_object_it_is(payments: Edge) -> None:
    mine, neighbour, connected = payments.tenant_id, await onboard(payments.shell), await onboard(payments.shell)
    account = await payments.connect(tenant_id=connected)
    assert (await payments.put(connected, account=account, webhook_secrets=[])).status_code == 200
    payment = await pay(payments)
    ours = {"id": payment.intent_id, "status": "succeeded"}
    told = {"id": "dp_x", "object": "dispute", "status": "lost", "metadata": {}}
    dispute = {**told, "payment_intent": payment.intent_id}
    theirs = {"metadata": {}, "id": "pi_theirs", "status": "succeeded"}
    for body, secret, owner in (
        (event(payments, ours), SHARED_SECRET, mine),
        (event(payments, dispute), SHARED_SECRET, mine),
        (event(payments, theirs, account=account), CONNECT_SECRET, connected),
        (event(payments, {**ours, "metadata": {"tenant_id": str(connected)}}, account=account), CONNECT_SECRET, connected),
    ):
        before = len(await payments.notices(owner))
        assert (await payments.tell(body, secret, tenant_id=neighbour)).json() == {"status": "accepted"}
        assert (await payments.tell_platform(body, secret)).json() == {"status": "duplicate"}
        assert len(await payments.notices(owner)) == before + 1
    # Of the platform's account, and about a tenant that is connected, or of its account, and about another tenant.
    for body in (
        event(payments, {**ours, "metadata": {"tenant_id": str(connected)}}),
        event(payments, ours, account=account),
        event(payments, ours, account="acct_of_nobody"),
        event(payments, theirs),
        event(payments, {"object": "customer", "id": "cus_1", "metadata": {}}),
    ):
        assert (await payments.tell_platform(body, CONNECT_SECRET)).json() == {"status": "ignored"}
    assert [len(await payments.notices(each)) for each in (mine, neighbour, connected)] == [2, 0, 2]


async def test_what_a_tenants_own_secret_signs_is_acted_upon_for_that_tenant_or_for_nobody(payments: Edge) -> None:
    payment = await pay(payments)
    gateway = await payments.gateways.of(payments.tenant_id)
    await gateway.cancel_intent(f"elsewhere-{payment.id}", payment.intent_id or "")
    stranger = await onboard(payments.shell)
    assert (await payments.put(stranger, api_key=a_key(), webhook_secrets=[OWN_SECRET])).status_code == 200
    named = {"tenant_id": str(payments.tenant_id), "payment_id": str(payment.id)}
    theirs = {"tenant_id": str(stranger), "payment_id": str(payment.id)}
    about_it = {"id": payment.intent_id, "status": "canceled"}
    things: list[dict[str, Any]] = [
        *({**about_it, "metadata": metadata} for metadata in (named, theirs, {"payment_id": str(payment.id)}, {})),
        {"id": "dp_x", "object": "dispute", "status": "lost", "payment_intent": payment.intent_id, "metadata": {}},
    ]
    for thing in things:
        body = event(payments, thing)
        assert (await payments.tell(body, OWN_SECRET, tenant_id=stranger)).status_code == 200
        assert problem(await payments.tell(body, OWN_SECRET))["code"] == "bad-signature"
        assert problem(await payments.tell_platform(body, OWN_SECRET))["code"] == "bad-signature"
    while await settle(payments):
        pass
    assert {notice["result"] for notice in await payments.notices(stranger)} == {"not-ours"}
    assert await payments.notices() == []
    assert await payments.payment(payment.id) == payment
    # Nor does the platform's secret speak for who has an account of its own that the platform does not know.
    told = await payments.tell_platform(event(payments, {**about_it, "metadata": theirs}))
    assert told.json() == {"status": "ignored"}


async def test_at_the_address_of_the_whole_account_nothing_forged_and_nothing_old_counts(payments: Edge) -> None:
    body = event(payments, {"id": "pi_x", "status": "succeeded"})
    unsigned = await payments.client.post("/v1/webhooks/stripe", content=body)
    assert (unsigned.status_code, problem(unsigned)["code"]) == (400, "signature-missing")
    for secret in (OWN_SECRET, "whsec_stranger0", ""):
        assert problem(await payments.tell_platform(body, secret))["code"] == "bad-signature"
    for off in (-301, 310):
        assert problem(await payments.tell_platform(body, at=now().timestamp() + off))["code"] == "bad-time"
    assert problem(await payments.tell_platform(b"{not json, canary"))["code"] == "not-an-event"
    assert await payments.notices() == []
    for secrets in ([SHARED_SECRET], [CONNECT_SECRET], ["whsec_rolled_away", CONNECT_SECRET]):
        assert (await payments.tell_platform(body, *secrets)).status_code == 200


async def test_an_account_on_whose_behalf_the_platform_acts_hears_of_itself_alone(payments: Edge) -> None:
    account = await payments.connect()
    assert (await payments.put(account=account, webhook_secrets=[])).status_code == 200
    for told, status in ((account, "accepted"), ("acct_other1", "ignored"), (None, "ignored")):
        members = {} if told is None else {"account": told}
        answer = await payments.tell(event(payments, {"id": "pi_x", "status": "succeeded"}, **members))
        assert (answer.status_code, answer.json()) == (200, {"status": status})


async def test_of_what_an_event_says_no_secret_and_no_person_is_stored(payments: Edge) -> None:
    canaries = {"client_secret": "pi_x_secret_canary", "receipt_email": "canary@example.com", "shipping": {"name": "canary"}}
    await payments.tell(event(payments, {"id": "pi_x", "status": "succeeded", **canaries}))
    [notice] = await payments.notices()
    assert "canary" not in repr(notice)


async def test_what_is_known_already_is_settled_without_asking_the_provider(payments: Edge) -> None:
    payment = await pay(payments)
    assert payment.state is PaymentState.AUTHORIZED
    for status in ("requires_confirmation", "requires_capture", "processing"):
        await payments.tell(about(payments, payment, status))
    await payments.tell(event(payments, {"id": "cus_1", "object": "customer"}))
    await payments.tell(event(payments, {"id": "pi_of_somebody", "status": "succeeded"}))
    asked = await _asked(payments)
    await settle(payments)
    assert await _asked(payments) == asked
    results = sorted(str(notice["result"]) for notice in await payments.notices())
    assert results == ["not-ours", "nothing-new", "nothing-new", "nothing-new", "of-no-interest"]
    assert await payments.payment(payment.id) == payment


async def _asked(payments: Edge) -> int:
    """How many calls the platform's circuit has counted: every one that was let out."""
    guard = payments.gateways._guards["platform"]
    return sum(calls for calls, _ in guard.circuit._slots.values())


async def test_what_happened_at_the_provider_behind_our_back_is_read_again_and_taken_in_once(payments: Edge) -> None:
    payment = await pay(payments)
    gateway = await payments.gateways.of(payments.tenant_id)
    await gateway.cancel_intent(f"elsewhere-{payment.id}", payment.intent_id or "")
    hints = [about(payments, payment, status) for status in ("canceled", "requires_capture", "canceled")]
    lie = about(payments, payment, "succeeded", taken=1250)
    for body in (*hints, lie, hints[0]):
        assert (await payments.tell(body)).status_code == 200
    assert await settle(payments) == 4
    after = await payments.payment(payment.id)
    assert after.state in {PaymentState.VOIDED, PaymentState.EXPIRED}, "what the provider's object says, not what an event said"
    assert after.captured_minor == 0
    assert {notice["result"] for notice in await payments.notices()} == {"observed", "nothing-new"}
    await payments.tell(about(payments, payment, "canceled"))
    assert await settle(payments) == 1
    assert await payments.payment(payment.id) == after


async def test_what_cannot_be_read_stays_stored_and_is_taken_up_again_when_it_can(payments: Edge, fake: str) -> None:
    payment = await pay(payments)
    gateway = await payments.gateways.of(payments.tenant_id)
    await gateway.cancel_intent(f"elsewhere-{payment.id}", payment.intent_id or "")
    rule = {"rules": [{"match": {"path": f"/v1/payment_intents/{payment.intent_id}"}, "fault": "500"}]}
    async with httpx.AsyncClient(base_url=fake) as control:
        assert (await control.put("/_control/faults", json=rule)).status_code < 300
        await payments.tell(about(payments, payment, "canceled"))
        assert await settle(payments) == 1
        [waiting] = await payments.notices()
        assert (waiting["result"], waiting["attempts"]) == (None, 1)
        assert waiting["due_at"] > now() + timedelta(seconds=2)
        assert await settle(payments) == 0, "not before its time"
        assert (await control.delete("/_control/faults")).status_code < 300
    await _bring_forward(payments)
    assert await settle(payments) == 1
    [settled] = await payments.notices()
    assert (settled["result"], settled["attempts"]) == ("observed", 2)


async def test_a_refund_that_somebody_made_elsewhere_reaches_its_payment_and_is_then_known(payments: Edge) -> None:
    captured = await capture(payments, await pay(payments))
    gateway = await payments.gateways.of(payments.tenant_id)
    refund = await gateway.create_refund("by-hand", intent_id=captured.intent_id or "", amount_minor=200, reason="", metadata={})
    assert isinstance(refund, SeenRefund)
    told: dict[str, Any] = {"object": "refund", "id": refund.provider_id, "payment_intent": captured.intent_id, "metadata": {}}
    for status in ("pending", "succeeded", "pending"):
        await payments.tell(event(payments, {**told, "status": status}))
    assert await settle(payments) == 3
    assert {notice["result"] for notice in await payments.notices()} == {"observed"}
    assert (await payments.payment(captured.id)).refunded_minor == 200
    await payments.tell(event(payments, {**told, "status": "pending"}))
    await settle(payments)
    assert sorted(notice["result"] for notice in await payments.notices()) == ["nothing-new"] + ["observed"] * 3


async def test_a_dispute_reaches_its_payment_though_it_names_the_providers_alone(payments: Edge) -> None:
    captured = await capture(payments, await pay(payments, "pm_card_createDispute"))
    gateway = await payments.gateways.of(payments.tenant_id)
    recently, soon = now() - timedelta(minutes=1), now() + timedelta(minutes=1)
    [dispute] = [each async for each in gateway.list_disputes(recently, soon) if each.intent_id == captured.intent_id]
    told: dict[str, Any] = {
        "object": "dispute",
        "id": dispute.provider_id,
        "status": "lost",
        "payment_intent": captured.intent_id,
    }
    for _ in range(2):
        await payments.tell(event(payments, {**told, "metadata": {}}))
        await settle(payments)
    async with payments.shell.database.transaction([payments.tenant_id]) as connection:
        [stored] = await connection.fetch("SELECT * FROM dispute")
    assert (stored["payment_id"], stored["state"]) == (captured.id, str(dispute.status)), "as it is, not as the event said"
    assert stored["withdrawn_minor"] == dispute.withdrawn_minor > 0


async def _bring_forward(payments: Edge) -> None:
    async with payments.shell.database.transaction([payments.tenant_id]) as connection:
        await connection.execute("UPDATE webhook_event SET due_at = now() WHERE due_at IS NOT NULL")


async def test_two_workers_share_what_waits_and_one_that_dies_loses_nothing(payments: Edge) -> None:
    payment = await pay(payments)
    for _ in range(40):
        await payments.tell(about(payments, payment, "canceled"))
    dying = asyncio.create_task(settle(payments))
    await asyncio.sleep(0.02)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    await _bring_forward(payments)
    await asyncio.gather(settle(payments), settle(payments))
    results = [notice["result"] for notice in await payments.notices()]
    assert results == ["observed"] * 40
