"""The tenants' own provider accounts and what the provider tells of them, over HTTP, on a real Postgres and the fake Stripe."""

import asyncio
import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from libs.common.auth import CLIENT, PLATFORM_OPERATOR, SHOPPER
from libs.common.clock import PLATFORM, now
from libs.common.messaging.shell import Shell
from libs.common.sealing import MasterKey, MasterKeys, SealError
from libs.common.shared import Shared
from services.payments.domain.account import STRIPE, ProviderAccount
from services.payments.domain.outcome import SeenRefund
from services.payments.domain.payment import Payment, PaymentState
from services.payments.gateway.accounts import Access, Credentials, Gateways, credentials_of
from services.payments.gateway.stripe import Stripe
from services.payments.jobs.executor import Executor
from services.payments.jobs.webhooks import Settler
from services.payments.repository import ACCOUNTS, PAYMENTS
from services.payments.repository.accounts import loading
from tests.shared.callers import Person, edge, message, onboard, problem
from tests.shared.events import AMOUNT, order_confirmed, payment_requested
from tests.shared.fakes import started
from tests.shared.places import Place, Places

OLD, NEW = MasterKey(os.urandom(32)), MasterKey(os.urandom(32))
SHARED_SECRET, OWN_SECRET, NEXT_SECRET = (f"whsec_{name}{uuid4().hex}" for name in ("shared", "own", "next"))
ACCOUNT = "/v1/provider-accounts/stripe"


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    running = started(tmp_path_factory.mktemp("stripe") / "journal")
    yield running.url
    running.kill()


@dataclass
class Edge:
    """Payments as its clients and Stripe meet it, with what its composition root makes."""

    client: httpx.AsyncClient
    shell: Shell
    gateways: Gateways
    platform_key: str
    tenant_id: UUID
    place: Place

    async def ask(
        self, method: str, path: str, *, tenant_id: UUID | None = None, role: str = CLIENT, **request: Any
    ) -> httpx.Response:
        person = Person(tenant_id or self.tenant_id, role=role)
        return await self.client.request(method, path, headers=person.authorization, **request)

    async def put(self, tenant_id: UUID | None = None, **given: Any) -> httpx.Response:
        return await self.ask("PUT", ACCOUNT, tenant_id=tenant_id, json=given)

    async def stored(self, tenant_id: UUID | None = None) -> ProviderAccount:
        tenant_id = tenant_id or self.tenant_id
        async with self.shell.database.transaction([tenant_id]) as connection:
            [account] = await ACCOUNTS.load(connection, [(tenant_id, STRIPE)], lock=False)
        return account

    async def payment(self, payment_id: UUID) -> Payment:
        async with self.shell.database.transaction([self.tenant_id]) as connection:
            [payment] = await PAYMENTS.load(connection, [(self.tenant_id, payment_id)], lock=False)
        return payment

    async def notices(self) -> list[dict[str, Any]]:
        async with self.shell.database.transaction([self.tenant_id]) as connection:
            return [dict(row) for row in await connection.fetch("SELECT * FROM webhook_event ORDER BY id")]

    async def tell(self, body: bytes, *secrets: str, tenant_id: UUID | None = None, at: float | None = None) -> httpx.Response:
        """Send an event as Stripe would."""
        seconds = int(at or now().timestamp())
        signed = f"{seconds}.".encode() + body
        made = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets or [SHARED_SECRET]]
        headers = {"Stripe-Signature": ",".join([f"t={seconds}", *(f"v1={each}" for each in made)])}
        return await self.client.post(f"/v1/webhooks/stripe/{tenant_id or self.tenant_id}", content=body, headers=headers)


@asynccontextmanager
async def payments_edge(place: Place, fake: str, master_keys: MasterKeys) -> AsyncIterator[Edge]:
    async with AsyncExitStack() as stack:
        client, shell = await stack.enter_async_context(edge(place))
        platform_key = f"sk_test_{uuid4().hex}"
        gateways = Gateways(loading(shell.database), Stripe(fake), platform=Credentials(platform_key), master_keys=master_keys)
        stack.push_async_callback(gateways.close)
        transport: Any = client._transport
        transport.app.state.service.shared = Shared(Access(gateways, master_keys, SecretStr(SHARED_SECRET)))
        yield Edge(client, shell, gateways, platform_key, await onboard(shell), place)


@pytest.fixture
async def payments(shared: Places, fake: str) -> AsyncIterator[Edge]:
    async with payments_edge(shared("payments"), fake, MasterKeys(OLD)) as made:
        yield made


async def pay(payments: Edge, method: str = "pm_card_visa") -> Payment:
    """A payment that the executor has taken as far as it goes."""
    requested = payment_requested(method)
    async with carried_out(payments):
        await payments.shell.execute(message(requested, payments.tenant_id))
        await until(payments, requested.payment_id, PaymentState.AUTHORIZED)
    return await payments.payment(requested.payment_id)


@asynccontextmanager
async def carried_out(payments: Edge) -> AsyncIterator[None]:
    """What is planned meanwhile is asked of the fake, and recorded."""
    executor = Executor(payments.shell, payments.gateways.of)
    payments.shell.after_commit.append(executor.committed)
    recording = asyncio.create_task(executor.record())
    try:
        yield
    finally:
        payments.shell.after_commit.remove(executor.committed)
        recording.cancel()
        await asyncio.gather(recording, return_exceptions=True)


async def until(payments: Edge, payment_id: UUID, state: PaymentState) -> None:
    async with asyncio.timeout(20):
        while (await payments.payment(payment_id)).state is not state:
            await asyncio.sleep(0.01)


async def capture(payments: Edge, payment: Payment) -> Payment:
    """The order is confirmed, so the money is taken."""
    whose = {"order_id": payment.order_id, "checkout_id": payment.checkout_id, "subject_id": payment.subject_id}
    order = order_confirmed(AMOUNT, payment_id=payment.id, **whose)
    async with carried_out(payments):
        await payments.shell.execute(message(order, payments.tenant_id))
        await until(payments, payment.id, PaymentState.CAPTURED)
    return await payments.payment(payment.id)


def a_key() -> str:
    return f"sk_test_{uuid4().hex}"


# --- Accounts -----------------------------------------------------------------------------------------------------


async def test_a_tenants_key_goes_in_and_never_comes_out_and_its_payments_are_made_with_it(payments: Edge) -> None:
    assert problem(await payments.ask("GET", ACCOUNT))["code"] == "provider-account-not-found"
    api_key = a_key()
    with capture_logs() as lines:
        put = await payments.put(api_key=api_key, webhook_secrets=[OWN_SECRET])
    assert put.status_code == 200, put.text
    shown = put.json()
    assert (shown["provider"], shown["api_key"], shown["webhook_secrets"], shown["livemode"]) == (
        "stripe",
        f"…{api_key[-4:]}",
        [f"…{OWN_SECRET[-4:]}"],
        False,
    )
    read = await payments.ask("GET", ACCOUNT)
    assert read.json() == shown
    assert read.headers["cache-control"] == "no-store"
    stored = await payments.stored()
    places = [put.text, read.text, str(put.headers), repr(lines), repr(stored)]
    assert not [secret for secret in (api_key, OWN_SECRET) for place in places if secret in place]
    gateway = await payments.gateways.of(payments.tenant_id)
    assert await gateway.account() == await payments.gateways.trial(Credentials(api_key)).account()
    elsewhere = await payments.gateways.of(await onboard(payments.shell))
    assert await elsewhere.account() == await payments.gateways.trial(Credentials(payments.platform_key)).account()


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ({}, 422, "schema"),
        ({"webhook_secrets": []}, 422, "api-key-or-account"),
        ({"api_key": "sk_test_12345678", "account": "acct_1234", "webhook_secrets": []}, 422, "api-key-or-account"),
        ({"api_key": "sk_test_12345678", "webhook_secrets": []}, 422, "webhook-secret-missing"),
        ({"api_key": "pk_test_12345678", "webhook_secrets": [OWN_SECRET]}, 422, "schema"),
        ({"api_key": "canary sk_test_12345678", "webhook_secrets": [OWN_SECRET]}, 422, "schema"),
        ({"api_key": "sk_test_12345678", "webhook_secrets": ["canary"]}, 422, "schema"),
        ({"api_key": "sk_test_12345678", "webhook_secrets": [OWN_SECRET, NEXT_SECRET, SHARED_SECRET]}, 422, "schema"),
        ({"account": "shop", "webhook_secrets": []}, 422, "schema"),
        ({"api_key": "sk_test_12345678", "webhook_secrets": [OWN_SECRET], "canary": 1}, 422, "schema"),
        ({"api_key": "sk_live_canary12345678", "webhook_secrets": [OWN_SECRET]}, 422, "provider-key-refused"),
    ],
)
async def test_what_cannot_be_an_account_is_refused_and_repeated_to_nobody(
    payments: Edge, given: dict[str, Any], status: int, code: str
) -> None:
    with capture_logs() as lines:
        refused = await payments.put(**given)
    assert (refused.status_code, problem(refused)["code"]) == (status, code)
    told = refused.text + repr(lines)
    assert not any(secret in told for secret in ("12345678", OWN_SECRET, "sk_live_canary"))
    assert "canary" not in told.replace("/canary", "")
    assert (await payments.ask("GET", ACCOUNT)).status_code == 404


async def test_only_who_may_change_accounts_may_and_a_shopper_may_not(payments: Edge) -> None:
    assert (await payments.ask("PUT", ACCOUNT, role=SHOPPER, json={"webhook_secrets": []})).status_code == 403
    assert (await payments.ask("GET", ACCOUNT, role=SHOPPER)).status_code == 403
    for role in (CLIENT, SHOPPER):
        rewrap = await payments.ask("POST", "/ops/provider-accounts/rewrap", role=role)
        assert rewrap.status_code == 403, "a tenant's own client is no operator of the platform"


async def test_what_is_sealed_for_one_tenant_opens_for_no_other(payments: Edge) -> None:
    other = await onboard(payments.shell)
    await payments.put(api_key=a_key(), webhook_secrets=[OWN_SECRET])
    await payments.put(other, api_key=a_key(), webhook_secrets=[OWN_SECRET])
    admin = await payments.place.as_admin()
    try:
        await admin.execute(
            """UPDATE provider_account a SET sealed_api_key = b.sealed_api_key, wrapped_key = b.wrapped_key
            FROM provider_account b WHERE a.tenant_id = $1 AND b.tenant_id = $2""",
            other,
            payments.tenant_id,
        )
    finally:
        await admin.close()
    with pytest.raises(SealError):
        credentials_of(await payments.stored(other), Credentials("sk_test_platform"), MasterKeys(OLD))


async def test_a_new_key_for_the_same_account_is_taken_and_another_account_only_before_the_first_payment(payments: Edge) -> None:
    """The fake has one account a key, so another key is another account; on the platform's behalf the account has a name."""
    assert (await payments.put(account="acct_first1", webhook_secrets=[])).status_code == 200
    assert (await payments.put(account="acct_second2", webhook_secrets=[])).status_code == 200
    await pay(payments)
    again = await payments.put(account="acct_second2", webhook_secrets=[NEXT_SECRET])
    assert (again.status_code, again.json()["webhook_secrets"]) == (200, [f"…{NEXT_SECRET[-4:]}"])
    moved = await payments.put(account="acct_first1", webhook_secrets=[])
    assert (moved.status_code, problem(moved)["code"]) == (409, "provider-account-in-use")
    assert (await payments.stored()).account_id == "acct_second2"


async def test_the_platform_acts_for_an_account_on_behalf_of_one_tenant_and_of_no_second_one(payments: Edge) -> None:
    account, other = f"acct_{uuid4().hex}", await onboard(payments.shell)
    assert (await payments.put(account=account, webhook_secrets=[])).status_code == 200
    taken = await payments.put(other, account=account, webhook_secrets=[])
    assert (taken.status_code, problem(taken)["code"]) == (409, "account-taken")


async def test_a_rotation_of_the_master_key_wraps_every_account_anew_and_nothing_stands_still(empty: Places, fake: str) -> None:
    keys = [a_key() for _ in range(5)]
    async with payments_edge(empty("payments"), fake, MasterKeys(OLD)) as before:
        tenants = [await onboard(before.shell) for _ in keys]
        for tenant_id, api_key in zip(tenants, keys, strict=True):
            assert (await before.put(tenant_id, api_key=api_key, webhook_secrets=[OWN_SECRET])).status_code == 200
        sealed = [(await before.stored(tenant_id)).sealed_api_key for tenant_id in tenants]
    async with payments_edge(empty("payments"), fake, MasterKeys(NEW, OLD)) as during:
        await during.gateways.of(tenants[0])
        rotate = ("POST", "/ops/provider-accounts/rewrap")
        first = await during.ask(*rotate, tenant_id=PLATFORM, role=PLATFORM_OPERATOR)
        again = await during.ask(*rotate, tenant_id=PLATFORM, role=PLATFORM_OPERATOR)
        assert (first.json(), again.json()) == ({"rewrapped": 5, "failed": 0}, {"rewrapped": 0, "failed": 0})
        assert [(await during.stored(tenant_id)).sealed_api_key for tenant_id in tenants] == sealed
        for tenant_id, api_key in zip(tenants, keys, strict=True):
            after = credentials_of(await during.stored(tenant_id), Credentials("sk_test_platform"), MasterKeys(NEW))
            assert after.api_key == api_key
            with pytest.raises(SealError):
                credentials_of(await during.stored(tenant_id), Credentials("sk_test_platform"), MasterKeys(OLD))
    stranger = MasterKeys(MasterKey(os.urandom(32)))
    async with payments_edge(empty("payments"), fake, stranger) as lost:
        nothing = await lost.ask(*rotate, tenant_id=PLATFORM, role=PLATFORM_OPERATOR)
        assert nothing.json() == {"rewrapped": 0, "failed": 5}, "said, not hidden, and nothing is overwritten"
        assert (await lost.stored(tenants[0])).master_key_id == NEW.id


# --- Webhooks -----------------------------------------------------------------------------------------------------


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
    answers = await asyncio.gather(*(payments.tell(body) for _ in range(20)))
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
        ({}, {"tenant_id": str(uuid4())}, "an event about another tenant's object"),
    ],
)
async def test_a_true_event_that_is_not_this_tenants_is_refused_with_an_alarm_and_never_stored(
    payments: Edge, members: dict[str, Any], metadata: dict[str, str] | None, reason: str
) -> None:
    thing: dict[str, Any] = {"id": "pi_x", "status": "succeeded"} | ({"metadata": metadata} if metadata else {})
    with capture_logs() as lines:
        refused = await payments.tell(event(payments, thing, **members))
    assert (refused.status_code, problem(refused)["code"]) == (400, "webhook-refused")
    [alarm] = [line for line in lines if line["event"] == "webhook.refused"]
    assert (alarm["log_level"], alarm["reason"], alarm["tenant_id"]) == ("critical", reason, str(payments.tenant_id))
    assert await payments.notices() == []


async def test_an_account_on_whose_behalf_the_platform_acts_hears_of_itself_alone(payments: Edge) -> None:
    account = f"acct_{uuid4().hex}"
    assert (await payments.put(account=account, webhook_secrets=[])).status_code == 200
    for told, status in ((account, 200), ("acct_other1", 400), (None, 400)):
        members = {} if told is None else {"account": told}
        assert (await payments.tell(event(payments, {"id": "pi_x", "status": "succeeded"}, **members))).status_code == status


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
