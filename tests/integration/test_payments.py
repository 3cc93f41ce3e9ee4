"""Payments as they run: the executor, its recovery and its watch on a real Postgres, against the fake Stripe's own process."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast
from uuid import UUID, uuid4

import aiohttp
import pytest

from libs.common.contracts.checkout import OrderCanceled, PaymentVoidRequested
from libs.common.contracts.fulfilment import FulfilmentLine, ShipmentDispatched
from libs.common.messaging.hints import Hints
from libs.common.messaging.shell import Shell
from services.payments.domain.payment.payment import PaymentState
from services.payments.domain.provider.operation import OPERATIONS_DUE, Operation
from services.payments.domain.provider.outcome import Outcome, Succeeded
from services.payments.gateway.protocol import PaymentGateway
from services.payments.handlers import HANDLERS
from services.payments.handlers.payments import VoidPayment
from services.payments.jobs.payment import look_at_due
from services.payments.repository import ROWS
from services.payments.repository.payment import ATTEMPTS
from tests.shared.callers import Person, message, problem
from tests.shared.events import AMOUNT
from tests.shared.fakes import started
from tests.shared.places import Places
from tests.shared.till import FINAL, HASTY_SECONDS, MISHAPS, UNREADABLE, Till, till_at


@pytest.fixture(scope="module")
def stripe_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process = started(tmp_path_factory.mktemp("stripe") / "journal")
    yield process.url
    process.kill()


@pytest.fixture
async def till(shared: Places, stripe_url: str) -> AsyncIterator[Till]:
    async with till_at(shared("payments"), stripe_url) as till:
        yield till


@pytest.fixture
async def hasty_till(shared: Places, stripe_url: str) -> AsyncIterator[Till]:
    """One that gives a call up soon, where many hang."""
    async with till_at(shared("payments"), stripe_url, call_seconds=HASTY_SECONDS) as till:
        yield till


async def test_an_order_is_paid_with_one_charge_one_attempt_and_books_that_balance(till: Till) -> None:
    asked = await till.request()
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    await till.confirm(asked)
    payment = await till.until(asked.payment_id, PaymentState.CAPTURED)
    [seen] = await till.at_provider()
    assert (seen.amount_received_minor, payment.captured_minor) == (AMOUNT, AMOUNT)
    assert seen.metadata["payment_id"] == str(asked.payment_id)
    attempts = await till.as_admin("SELECT state FROM attempt WHERE payment_id = $1", asked.payment_id)
    assert [row["state"] for row in attempts] == ["succeeded"]
    entries = await till.as_admin("SELECT amount_minor FROM ledger_entry WHERE payment_id = $1 AND kind = 'capture'", payment.id)
    assert [row["amount_minor"] for row in entries] == [AMOUNT]
    assert [kind for kind, _ in await till.events(payment.id)] == ["payment.authorized", "payment.captured"]


async def test_whatever_a_third_of_the_calls_come_to_every_payment_is_captured_once(hasty_till: Till) -> None:
    till = hasty_till
    everywhere = {"path": "/v1/payment_intents*"}
    rules = [{"match": everywhere, "fault": fault, "probability": 0.06, "seed": n} for n, fault in enumerate(MISHAPS)]
    await till.faults(*rules)
    asked = [await till.request() for _ in range(40)]
    for each in asked:
        await till.confirm(each)  # remembered, whatever the payment is doing
    async with asyncio.timeout(60):
        while True:
            states = Counter([(await till.known(each.payment_id)).state for each in asked])
            if set(states) <= FINAL:
                break
            await till.hurry()
            await asyncio.sleep(0.2)
            if states[PaymentState.CAPTURED] > len(asked) // 2:
                await till.faults()
    assert states == {PaymentState.CAPTURED: len(asked)}
    seen = await till.at_provider()
    taken = Counter(each.metadata["payment_id"] for each in seen if each.amount_received_minor)
    assert taken == {str(each.payment_id): 1 for each in asked}
    assert sum(each.amount_received_minor for each in seen) == AMOUNT * len(asked)


async def test_a_call_whose_row_a_restore_lost_is_made_again_under_its_key_and_charges_nobody_twice(till: Till) -> None:
    await till.faults({"match": {"path": "*/capture"}, "fault": "reset_after", "times": 1}, UNREADABLE)
    asked = await till.request()
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    await till.confirm(asked)
    await till.until(asked.payment_id, PaymentState.UNKNOWN)
    await till.faults()
    lost = await till.as_admin("DELETE FROM operation WHERE payment_id = $1 AND kind = 'capture' RETURNING id", asked.payment_id)
    assert len(lost) == 1
    await till.look(asked.payment_id)
    payment = await till.until(asked.payment_id, PaymentState.CAPTURED)
    again = await till.as_admin("SELECT id FROM operation WHERE payment_id = $1 AND kind = 'capture'", asked.payment_id)
    assert [row["id"] for row in again] == [row["id"] for row in lost]
    assert [each.amount_received_minor for each in await till.at_provider()] == [payment.captured_minor] == [AMOUNT]


async def test_an_intent_whose_making_left_a_stored_500_is_found_by_our_id_and_not_made_twice(till: Till) -> None:
    await till.faults({"match": {"method": "POST", "path": "/v1/payment_intents"}, "fault": "500_after", "times": 1})
    asked = await till.request()
    await till.until(asked.payment_id, PaymentState.UNKNOWN)
    await till.hurry()
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    assert len(await till.at_provider()) == 1


async def test_a_hold_that_lapsed_at_the_provider_is_noticed_when_its_time_has_come(till: Till) -> None:
    asked = await till.request()
    payment = await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    assert payment.intent_id is not None
    await (await till.gateways.of(till.tenant_id)).cancel_intent(f"elsewhere-{payment.id}", payment.intent_id)
    await till.look(payment.id)
    assert (await till.known(payment.id)).state is PaymentState.EXPIRED
    assert [kind for kind, _ in await till.events(payment.id)] == ["payment.authorized", "payment.expired"]


async def test_an_order_that_is_canceled_leaves_nothing_held_and_nothing_kept(till: Till) -> None:
    held, taken = await till.request(capture="on-shipment"), await till.request()
    for asked in (held, taken):
        await till.until(asked.payment_id, PaymentState.AUTHORIZED)
        await till.confirm(asked)
    await till.until(taken.payment_id, PaymentState.CAPTURED)
    for asked in (held, taken):
        whose: dict[str, Any] = {"order_id": asked.order_id, "checkout_id": asked.checkout_id, "payment_id": asked.payment_id}
        canceled = OrderCanceled(**whose, cart_id=uuid4(), reason="canceled")
        await till.shell.execute(message(canceled, till.tenant_id))
    await till.until(held.payment_id, PaymentState.VOIDED)
    paid_back = await till.known(taken.payment_id)
    assert paid_back.refunding_minor + paid_back.refunded_minor == AMOUNT


async def test_the_first_shipment_takes_the_money_of_an_order_that_is_paid_when_it_leaves(till: Till) -> None:
    asked = await till.request(capture="on-shipment")
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    await till.confirm(asked)
    for number in ("1", "2"):
        shipped = ShipmentDispatched(
            order_id=asked.order_id, shipment_id=number, lines=(FulfilmentLine(line_id="1", quantity=1),)
        )
        await till.shell.execute(message(shipped, till.tenant_id))
    await till.until(asked.payment_id, PaymentState.CAPTURED)
    assert [each.amount_received_minor for each in await till.at_provider()] == [AMOUNT]


# --- By hand ------------------------------------------------------------------------------------------------------


async def test_what_cannot_be_captured_or_voided_is_a_problem_and_no_call(till: Till) -> None:
    asked = await till.request()
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    count = "SELECT count(*) FROM operation WHERE payment_id = $1"
    [(before,)] = await till.as_admin(count, asked.payment_id)
    for body, status, code in (
        ({"amount_minor": AMOUNT + 1}, 409, "capture-exceeds-authorization"),
        ({"amount_minor": 0}, 422, "schema"),
        ({"amount_minor": -1}, 422, "schema"),
        ({"amount_minor": 1.5}, 422, "schema"),
        ({"amount_minor": 1, "currency": "EUR"}, 422, "schema"),
    ):
        response = await till.post(f"{asked.payment_id}/capture", body)
        assert (response.status_code, problem(response)["code"]) == (status, code), body
    for verb in ("capture", "void"):
        assert problem(await till.post(f"{uuid4()}/{verb}"))["status"] == 404
    assert problem(await till.post(f"{asked.payment_id}/resolve", {"verdict": "it-is-fine", "reason": "x"}))["status"] == 422
    assert problem(await till.post(f"{asked.payment_id}/resolve", {"verdict": "read-again", "reason": "x"}))["status"] == 409
    shopper = Person(till.tenant_id).authorization | {"Idempotency-Key": "1"}
    refused = await till.client.post(f"/v1/payments/{asked.payment_id}/capture", headers=shopper)
    assert problem(refused)["status"] == 403
    [(after,)] = await till.as_admin(count, asked.payment_id)
    assert after == before


async def test_a_capture_by_hand_happens_once_however_often_it_is_asked_for_and_a_void_comes_too_late(till: Till) -> None:
    asked = await till.request()
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    replies = await asyncio.gather(*(till.post(f"{asked.payment_id}/capture", {"amount_minor": 1_000}, "k") for _ in range(5)))
    assert {reply.status_code for reply in replies} <= {200, 202}
    assert sum("idempotent-replayed" not in reply.headers for reply in replies) == 1
    payment = await till.until(asked.payment_id, PaymentState.CAPTURED)
    assert (payment.captured_minor, payment.held_minor) == (1_000, 250)
    assert [each.amount_received_minor for each in await till.at_provider()] == [1_000]
    assert problem(await till.post(f"{asked.payment_id}/void"))["code"] == "payment-state"


async def test_a_void_by_hand_lets_go_and_repeating_it_says_so(till: Till) -> None:
    asked = await till.request()
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    assert (await till.post(f"{asked.payment_id}/void")).status_code == 202
    await till.until(asked.payment_id, PaymentState.VOIDED)
    again = await till.post(f"{asked.payment_id}/void")
    assert (again.status_code, again.json()["state"]) == (200, "voided")


@pytest.mark.parametrize(("fault", "after"), [("reset_before", "declined"), ("reset_after", "authorized")])
async def test_a_person_who_says_it_did_not_happen_is_believed_only_if_the_provider_has_nothing(
    till: Till, fault: str, after: str
) -> None:
    await till.faults({"match": {"path": "*/confirm"}, "fault": fault, "times": 1}, UNREADABLE)
    asked = await till.request()
    await till.until(asked.payment_id, PaymentState.UNKNOWN)
    await till.faults()
    response = await till.post(f"{asked.payment_id}/resolve", {"verdict": "did-not-happen", "reason": "their support says so"})
    assert response.status_code == 202, response.text
    await till.until(asked.payment_id, PaymentState(after))
    published = await till.events(asked.payment_id)
    assert [kind for kind, _ in published] == ["payment.unknown", f"payment.{after}"]
    assert "cartwright/payments" not in published[-1][1], "the event tells who decided"


async def test_a_void_that_overtakes_the_answer_leaves_nothing_held(till: Till) -> None:
    asked = await till.request()
    void = PaymentVoidRequested(checkout_id=asked.checkout_id, payment_id=asked.payment_id, reason="timed-out")
    await till.shell.execute(message(void, till.tenant_id))
    await till.until(asked.payment_id, PaymentState.VOIDED)
    assert [each.amount_capturable_minor for each in await till.at_provider()] == [0]
    async with till.shell.database.transaction([till.tenant_id]) as connection:
        rows = await connection.fetch("SELECT id FROM attempt WHERE payment_id = $1", asked.payment_id)
        attempts = await ATTEMPTS.load(connection, [(till.tenant_id, row["id"]) for row in rows], lock=False)
    assert all(attempt.state != "open" for attempt in attempts)


async def test_parts_are_taken_until_the_rest_is_let_go_and_never_more_than_was_held(till: Till) -> None:
    asked = await till.request()
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    for part in (300, 450):
        reply = await till.post(f"{asked.payment_id}/capture", {"amount_minor": part, "final": False})
        assert reply.status_code == 202, reply.text
        await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    refused = await till.post(f"{asked.payment_id}/capture", {"amount_minor": 501})
    assert (problem(refused)["code"], problem(refused)["held_minor"]) == ("capture-exceeds-authorization", 500)
    assert (await till.post(f"{asked.payment_id}/void")).status_code == 202
    payment = await till.until(asked.payment_id, PaymentState.CAPTURED)
    [seen] = await till.at_provider()
    assert (payment.captured_minor, seen.amount_received_minor, seen.amount_capturable_minor) == (750, 750, 0)
    entries = await till.as_admin("SELECT amount_minor FROM ledger_entry WHERE payment_id = $1 AND kind = 'capture'", payment.id)
    assert sorted(row["amount_minor"] for row in entries) == [300, 450]


async def test_what_a_process_without_calls_plans_is_called_out_to_those_that_make_them(till: Till) -> None:
    asked = await till.request()
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    url = till.place.url("app")
    api_hints, worker_hints = Hints(url, listen=False), Hints(url)
    api = Shell(till.shell.database, ROWS, HANDLERS, service="payments", hints=api_hints, announce=frozenset({Operation}))
    with worker_hints.expect(OPERATIONS_DUE) as connected:
        await api_hints.start()
        await worker_hints.start()
        async with asyncio.timeout(30):
            await connected
    with worker_hints.expect(OPERATIONS_DUE) as called:
        await api.execute(message(VoidPayment(payment_id=asked.payment_id, reason="requested"), till.tenant_id))
        async with asyncio.timeout(30):
            await called
    await till.until(asked.payment_id, PaymentState.VOIDED)
    await api_hints.close()
    await worker_hints.close()


# --- The payer's part ---------------------------------------------------------------------------------------------


async def authenticate(till: Till, payment_id: UUID, outcome: str) -> None:
    payment = await till.known(payment_id)
    url = f"{till.stripe_url}/_control/payment_intents/{payment.intent_id}/authentication"
    async with aiohttp.ClientSession() as session, session.post(url, json={"outcome": outcome}) as response:
        assert response.status == 200, await response.text()


@pytest.mark.parametrize(("outcome", "after"), [("succeed", "authorized"), ("fail", "declined")])
async def test_a_challenge_is_shown_to_its_payer_alone_kept_nowhere_and_resumed_by_looking(
    till: Till, outcome: str, after: str
) -> None:
    payer = Person(till.tenant_id)
    asked = await till.request("pm_card_authenticationRequired", subject_id=payer.subject)
    await till.until(asked.payment_id, PaymentState.REQUIRES_ACTION)
    path = f"/v1/payments/{asked.payment_id}"
    shown = await till.client.get(path, headers=payer.authorization)
    secret = shown.json()["client_secret"]
    assert shown.json()["next_action"]["type"] == "authenticate"
    assert shown.headers["cache-control"] == "no-store"
    assert "client_secret" not in (await till.client.get(path, headers=till.staff)).json()
    assert (await till.client.get(path, headers=Person(till.tenant_id).authorization)).status_code == 404
    await authenticate(till, asked.payment_id, outcome)
    await till.look(asked.payment_id)
    assert (await till.known(asked.payment_id)).state == after
    kept = "SELECT count(*) FROM {} AS t WHERE strpos(t::text, $1) > 0"
    for table in ("payment", "operation", "attempt", "idempotency_key", "outbox_event"):
        assert (await till.as_admin(kept.format(table), secret))[0]["count"] == 0, table
    kinds = [kind for kind, _ in await till.events(asked.payment_id)]
    assert kinds == ["payment.action-required", f"payment.{after}"]


@dataclass
class Garbling:
    """A provider that tells of one payment what nobody can reckon with."""

    gateway: PaymentGateway
    intent_id: str | None

    async def retrieve_intent(self, intent_id: str) -> Outcome:
        seen = await self.gateway.retrieve_intent(intent_id)
        return (
            replace(seen, amount_minor=cast("int", "much"))
            if isinstance(seen, Succeeded) and intent_id == self.intent_id
            else seen
        )


async def test_a_payment_that_cannot_be_followed_keeps_no_other_from_being_followed(till: Till) -> None:
    asked = [each.payment_id for each in await till.request_many(3, "pm_card_authenticationRequired")]
    for payment in await till.all_until(asked, PaymentState.REQUIRES_ACTION):
        await authenticate(till, payment.id, "succeed")
    garbled = (await till.known(asked[1])).intent_id

    async def gateway_of(tenant_id: UUID) -> PaymentGateway:
        return cast("PaymentGateway", Garbling(await till.gateways.of(tenant_id), garbled))

    await till.as_admin("UPDATE payment SET look_at = now() WHERE id = ANY ($1)", asked)
    assert await look_at_due(till.shell, gateway_of) >= len(asked)
    after = {payment.id: payment.state for payment in await till.all_known(asked)}
    assert [after[each] for each in asked] == ["authorized", "requires_action", "authorized"]
    await till.look(asked[1])
    assert (await till.known(asked[1])).state == "authorized", "it is looked at again, by its ladder"


async def test_a_payer_who_looks_after_their_challenge_needs_to_wait_for_no_poll(till: Till) -> None:
    payer = Person(till.tenant_id)
    asked = await till.request("pm_card_authenticationRequired", subject_id=payer.subject)
    await till.until(asked.payment_id, PaymentState.REQUIRES_ACTION)
    await authenticate(till, asked.payment_id, "succeed")
    seen = await till.client.get(f"/v1/payments/{asked.payment_id}", headers=payer.authorization)
    assert (seen.json()["state"], "client_secret" in seen.json()) == ("authorized", False)


async def test_a_payer_pays_in_their_own_browser_after_a_card_that_was_declined(till: Till) -> None:
    payer = Person(till.tenant_id)
    asked = await till.request("", confirmation="client", subject_id=payer.subject)
    await till.until(asked.payment_id, PaymentState.REQUIRES_ACTION)
    shown = (await till.client.get(f"/v1/payments/{asked.payment_id}", headers=payer.authorization)).json()
    assert shown["next_action"] == {"type": "confirm"}
    for card in ("pm_card_chargeDeclined", "pm_card_visa"):
        await confirm_in_browser(till, asked.payment_id, shown["client_secret"], card)
        await till.look(asked.payment_id)
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    attempts = await till.as_admin("SELECT state FROM attempt WHERE payment_id = $1 ORDER BY number", asked.payment_id)
    assert [row["state"] for row in attempts] == ["declined", "succeeded"]


async def confirm_in_browser(till: Till, payment_id: UUID, client_secret: str, card: str) -> None:
    """As Stripe.js does: with the publishable key and the payment's own secret."""
    payment = await till.known(payment_id)
    url = f"{till.stripe_url}/v1/payment_intents/{payment.intent_id}/confirm"
    form = {"client_secret": client_secret, "payment_method": card, "return_url": "https://shop.test/back"}
    key = {"Authorization": "Bearer " + till.gateways.platform.api_key.replace("sk_", "pk_")}
    async with aiohttp.ClientSession(headers=key) as session, session.post(url, data=form) as response:
        assert response.status in {200, 402}, await response.text()


@pytest.mark.parametrize(
    ("card", "exactly", "told"),
    [
        ("StolenCard", "stolen_card", "card_declined"),
        ("IncorrectCvc", "incorrect_cvc", "card_declined"),
        ("Fraudulent", "fraudulent", "card_declined"),
        ("InsufficientFunds", "insufficient_funds", "insufficient_funds"),
    ],
)
async def test_a_shopper_reads_of_an_issuers_word_only_what_is_of_use_to_them(
    till: Till, card: str, exactly: str, told: str
) -> None:
    asked = await till.request(f"pm_card_chargeDeclined{card}")
    await till.until(asked.payment_id, PaymentState.DECLINED)
    payer = Person(till.tenant_id, subject=asked.subject_id).authorization
    for headers, code in ((till.staff, exactly), (payer, told)):
        one = await till.client.get(f"/v1/payments/{asked.payment_id}", headers=headers)
        listed = await till.client.get("/v1/payments", headers=headers, params={"checkout_id": str(asked.checkout_id)})
        assert [each["decline_code"] for each in (one.json(), *listed.json()["items"])] == [code, code]
        assert code == exactly or exactly not in one.text + listed.text
