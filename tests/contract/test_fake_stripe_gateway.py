"""Our gateway over the fake Stripe: which answers are definite, and how the others are resolved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import aiohttp
import pytest

from services.payments.domain.provider.outcome import Declined, IntentStatus, Outcome, Rejected, Succeeded, Throttled, Unknown
from services.payments.gateway.stripe import StripeGateway
from tests.shared.fakes import INTENTS, POOR, VISA, Account

PATIENCE_SECONDS = 2
"""Of our gateway: short, and long enough for a provider on a busy machine."""


@pytest.fixture
async def gateway(account: Account) -> AsyncIterator[StripeGateway]:
    """Our gateway on the same account, that does not wait long."""
    opened = StripeGateway(account.api_key, account.url, timeout_seconds=PATIENCE_SECONDS)
    yield opened
    await opened.close()


async def announced(gateway: StripeGateway, account: Account, method: str = VISA) -> str:
    """Create an intent through the gateway."""
    outcome = await gateway.create_intent(
        f"create-{uuid4()}",
        amount_minor=1250,
        currency="GBP",
        method=method,
        capture="manual",
        metadata={"order": account.api_key},
    )
    assert isinstance(outcome, Succeeded), outcome
    assert (outcome.status, outcome.currency) == (IntentStatus.NEEDS_CONFIRMATION, "gbp")
    return outcome.intent_id


async def test_the_gateway_tells_authorized_captured_canceled_and_declined_apart(
    gateway: StripeGateway, account: Account
) -> None:
    """Each definite answer, in our words."""
    paid, void, poor = [await announced(gateway, account, method) for method in (VISA, VISA, POOR)]
    authorized = await gateway.confirm_intent("a1", paid, VISA)
    assert isinstance(authorized, Succeeded)
    assert (authorized.status, authorized.amount_capturable_minor) == (IntentStatus.AUTHORIZED, 1250)
    assert authorized.expires_at is not None
    assert authorized.charge_id is not None
    assert await gateway.retrieve_intent(paid) == authorized
    captured = await gateway.capture_intent("c1", paid, 1000)
    assert isinstance(captured, Succeeded)
    assert (captured.status, captured.amount_received_minor) == (IntentStatus.CAPTURED, 1000)
    canceled = await gateway.cancel_intent("v1", void)
    assert isinstance(canceled, Succeeded)
    assert canceled.status is IntentStatus.CANCELED
    declined = await gateway.confirm_intent("a2", poor, POOR)
    assert isinstance(declined, Declined)
    assert (declined.code, declined.intent_id) == ("insufficient_funds", poor)
    assert declined.charge_id is not None
    assert await gateway.retrieve_intent(poor) == declined


async def test_the_gateway_calls_definite_only_what_stripe_promises_changed_nothing(
    gateway: StripeGateway, account: Account
) -> None:
    """Rejected and Throttled are promises; a key used for another request is none."""
    intent = await announced(gateway, account)

    def code(outcome: Outcome) -> str:
        assert isinstance(outcome, Rejected), outcome
        return outcome.code

    assert code(await gateway.capture_intent("c1", intent, 1250)) == "wrong-state"
    assert code(await gateway.retrieve_intent("pi_none")) == "not-found"
    assert code(await gateway.capture_intent("c2", intent, 0)) == "amount-out-of-range"
    stranger = StripeGateway("pk_live_no", account.url)
    assert code(await stranger.retrieve_intent(intent)) == "unauthorized"
    await stranger.close()
    await gateway.confirm_intent("a1", intent, VISA)
    assert await gateway.confirm_intent("a1", intent, POOR) == Unknown("key-used-for-another-request")
    await account.faults({"match": {"path": f"{INTENTS}/{intent}/capture"}, "fault": "429"})
    assert await gateway.capture_intent("c3", intent, 1250) == Throttled(None)


@pytest.mark.parametrize("fault", ["reset_before", "reset_after", "hang", "500", "500_after", "409", "latency"])
async def test_an_unknown_outcome_is_resolved_by_the_same_key_or_by_reading(
    gateway: StripeGateway, account: Account, fault: str
) -> None:
    """Whatever cut the answer off: never a second effect, and in the end a certain one."""
    intent = await announced(gateway, account)
    await gateway.confirm_intent("a1", intent, VISA)
    match = {"path": f"{INTENTS}/*/capture", "metadata": {"order": account.api_key}}
    rule = {"match": match, "fault": fault, "times": 1, "delay_ms": 2_000 * PATIENCE_SECONDS if fault == "latency" else 0}
    await account.faults(rule)

    assert isinstance(await gateway.capture_intent("c1", intent, 1250), Unknown)
    meanwhile = await gateway.retrieve_intent(intent)
    assert isinstance(meanwhile, Succeeded)
    happened = fault in {"reset_after", "hang", "500_after"}
    assert meanwhile.status is (IntentStatus.CAPTURED if happened else IntentStatus.AUTHORIZED)
    if fault == "latency":  # the provider had the request all the time, and acts on it late
        async with asyncio.timeout(60):
            while await gateway.retrieve_intent(intent) == meanwhile:
                await asyncio.sleep(0.1)
    again = await gateway.capture_intent("c1", intent, 1250)
    truth = await gateway.retrieve_intent(intent)
    assert isinstance(truth, Succeeded)
    if fault in {"500", "500_after"}:  # stored: the same key never tells, the object does
        assert isinstance(again, Unknown)
        assert truth == meanwhile
    else:
        assert isinstance(again, Succeeded)
        assert (again.status, truth.amount_received_minor) == (IntentStatus.CAPTURED, 1250)
    assert len((await account.ask("GET", "/v1/charges", {"payment_intent": intent})).json["data"]) == 1


async def test_nobody_listening_is_unknown_and_never_raised() -> None:
    """A refused connection too: the caller decides by its own record whether anything was sent before."""
    gateway = StripeGateway("sk_test_x", "http://127.0.0.1:9", timeout_seconds=1)
    assert isinstance(await gateway.retrieve_intent("pi_1"), Unknown)
    await gateway.close()


async def test_a_payer_whose_issuer_wants_to_see_them_is_led_to_its_page_and_back_to_the_shops(
    gateway: StripeGateway, account: Account
) -> None:
    card, back = "pm_card_threeDSecureRequired", "https://shop.test/paid?of=1#/c/7"
    intent = await announced(gateway, account, card)
    confirmed = await gateway.confirm_intent("there", intent, card, return_url=back)
    assert isinstance(confirmed, Succeeded)
    assert confirmed.status is IntentStatus.NEEDS_ACTION
    assert confirmed.action_url is not None
    form = {"outcome": "succeed"}
    async with aiohttp.ClientSession() as browser, browser.post(confirmed.action_url, data=form, allow_redirects=False) as left:
        assert left.status == 303
        at = urlsplit(left.headers["Location"])
    assert (at.scheme, at.netloc, at.path, at.fragment) == ("https", "shop.test", "/paid", "/c/7")
    told = dict(parse_qsl(at.query))
    assert (told["of"], told["redirect_status"], told["payment_intent"]) == ("1", "succeeded", intent)
    paid = await gateway.retrieve_intent(intent)
    assert isinstance(paid, Succeeded)
    assert paid.status is IntentStatus.AUTHORIZED
