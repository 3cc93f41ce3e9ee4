"""What our gateway sends, byte by byte: recorded on its way to the fake Stripe, so that what is asked is also answered."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import web

from services.payments.domain.provider.account import UNLIMITED, Limits, SeenAccount
from services.payments.domain.provider.outcome import (
    Declined,
    DisputeStatus,
    IntentStatus,
    RefundStatus,
    Rejected,
    SeenRefund,
    Succeeded,
    Throttled,
    TransactionKind,
    Unknown,
)
from services.payments.gateway.accounts import Credentials
from services.payments.gateway.limits import Buckets, Guard
from services.payments.gateway.protocol import GatewayUnavailableError
from services.payments.gateway.stripe import Stripe, StripeGateway
from tests.shared.fakes import Process

VISA, DECLINED = "pm_card_visa", "pm_card_chargeDeclined"
T0 = datetime(2026, 1, 1, tzinfo=UTC)
T1 = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass
class Sent:
    """One request as it left us."""

    method: str
    path: str
    pairs: dict[str, str]
    headers: dict[str, str]


@dataclass
class Wire:
    """Between our gateway and the fake; `fault` makes it answer that status itself, with these headers."""

    url: str = ""
    sent: list[Sent] = field(default_factory=list)
    fault: tuple[int, dict[str, str]] | None = None

    @property
    def last(self) -> Sent:
        return self.sent[-1]


@pytest.fixture
async def wire(process: Process) -> AsyncIterator[Wire]:
    wire = Wire()
    async with aiohttp.ClientSession() as session:

        async def forward(request: web.Request) -> web.Response:
            body = await request.read()
            pairs = parse_qsl(body.decode() if body else request.query_string, strict_parsing=bool(body))
            wire.sent.append(
                Sent(
                    request.method,
                    request.raw_path.partition("?")[0],
                    dict(pairs),
                    {k.lower(): v for k, v in request.headers.items()},
                )
            )
            if wire.fault is not None:
                status, headers = wire.fault
                return web.json_response({"error": {"type": "api_error"}}, status=status, headers=headers)
            headers = {name: value for name, value in request.headers.items() if name.lower() not in {"host", "content-length"}}
            async with session.request(
                request.method, process.url + request.path_qs, data=body or None, headers=headers
            ) as answer:
                passed = {
                    name: value for name, value in answer.headers.items() if name.lower().startswith(("idempotent", "retry"))
                }
                return web.Response(
                    body=await answer.read(), status=answer.status, headers=passed, content_type="application/json"
                )

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        [port] = [address[1] for address in runner.addresses]
        wire.url = f"http://127.0.0.1:{port}"
        yield wire
        await runner.cleanup()


@pytest.fixture
async def provider(wire: Wire) -> AsyncIterator[Stripe]:
    provider = Stripe(wire.url, timeout_seconds=5)
    yield provider
    await provider.close()


@pytest.fixture
def api_key() -> str:
    return f"sk_test_{uuid4().hex}"


@pytest.fixture
async def gateway(provider: Stripe, api_key: str) -> StripeGateway:
    return provider.client(Credentials(api_key), Guard("test", UNLIMITED))


METADATA = {"tenant_id": "t", "payment_id": "p", "checkout_id": "c", "order_id": "o", "quote_hash": "q"}


async def made(gateway: StripeGateway, payment_id: str = "p", method: str = VISA) -> str:
    created = await gateway.create_intent(
        f"create-{payment_id}",
        amount_minor=1250,
        currency="GBP",
        method=method,
        capture="manual",
        metadata={**METADATA, "payment_id": payment_id},
    )
    assert isinstance(created, Succeeded), created
    return created.intent_id


async def test_each_call_sends_its_key_its_account_and_exactly_its_parameters(
    wire: Wire, gateway: StripeGateway, api_key: str
) -> None:
    intent_id = await made(gateway)
    metadata = {f"metadata[{name}]": value for name, value in METADATA.items()}
    assert (wire.last.method, wire.last.path) == ("POST", "/v1/payment_intents")
    assert wire.last.pairs == {
        "amount": "1250",
        "currency": "gbp",
        "capture_method": "manual",
        "payment_method": VISA,
        "automatic_payment_methods[enabled]": "true",
        "automatic_payment_methods[allow_redirects]": "never",
        "payment_method_options[card][request_multicapture]": "if_available",
        **metadata,
    }
    assert wire.last.headers["idempotency-key"] == "create-p"
    assert wire.last.headers["authorization"] == f"Bearer {api_key}"
    assert "stripe-account" not in wire.last.headers
    assert "x-stripe-client-telemetry" not in wire.last.headers
    await gateway.confirm_intent("confirm", intent_id, VISA)
    assert (wire.last.path, wire.last.pairs) == (
        f"/v1/payment_intents/{intent_id}/confirm",
        {"payment_method": VISA, "expand[0]": "latest_charge"},
    )
    captured = await gateway.capture_intent("capture", intent_id, 1000)
    assert isinstance(captured, Succeeded)
    assert captured.amount_received_minor == 1000
    assert (wire.last.path, wire.last.pairs, wire.last.headers["idempotency-key"]) == (
        f"/v1/payment_intents/{intent_id}/capture",
        {"amount_to_capture": "1000", "expand[0]": "latest_charge.balance_transaction"},
        "capture",
    )
    await gateway.cancel_intent("cancel", intent_id)
    assert (wire.last.path, wire.last.pairs) == (f"/v1/payment_intents/{intent_id}/cancel", {})
    assert isinstance(await gateway.retrieve_intent(intent_id), Succeeded)
    assert (wire.last.method, wire.last.path) == ("GET", f"/v1/payment_intents/{intent_id}")


async def test_the_payer_confirms_with_any_method_and_a_part_that_is_not_the_last_keeps_the_rest(
    wire: Wire, gateway: StripeGateway
) -> None:
    created = await gateway.create_intent(
        "client",
        amount_minor=1250,
        currency="GBP",
        method="",
        capture="manual",
        metadata={},
        confirmation="client",
    )
    assert isinstance(created, Succeeded)
    assert (created.status, bool(created.client_secret)) == (IntentStatus.NEEDS_METHOD, True)
    assert wire.last.pairs == {
        "amount": "1250",
        "currency": "gbp",
        "capture_method": "manual",
        "automatic_payment_methods[enabled]": "true",
        "payment_method_options[card][request_multicapture]": "if_available",
    }
    await gateway.capture_intent("part", created.intent_id, 100, final=False)
    assert wire.last.pairs["final_capture"] == "false"
    await gateway.capture_intent("rest", created.intent_id, 0)
    assert (wire.last.pairs["amount_to_capture"], "final_capture" in wire.last.pairs) == ("0", False)


async def test_a_payer_who_is_to_prove_themselves_is_asked_to_by_the_issuer_of_a_card_that_would_not_ask(
    wire: Wire, gateway: StripeGateway
) -> None:
    common: dict[str, Any] = {
        "amount_minor": 1250,
        "currency": "GBP",
        "method": "pm_card_threeDSecureOptional",
        "capture": "manual",
    }
    created = await gateway.create_intent("proof", **common, metadata={}, challenge=True)
    assert wire.last.pairs["payment_method_options[card][request_three_d_secure]"] == "any"
    assert wire.last.pairs["payment_method_options[card][request_multicapture]"] == "if_available"
    assert isinstance(created, Succeeded)
    confirmed = await gateway.confirm_intent("confirm-proof", created.intent_id, "pm_card_threeDSecureOptional")
    assert isinstance(confirmed, Succeeded)
    assert confirmed.status is IntentStatus.NEEDS_ACTION


async def test_a_refund_names_its_payment_and_a_reason_only_if_it_is_one_of_stripes(wire: Wire, gateway: StripeGateway) -> None:
    metadata = {"tenant_id": "t", "refund_id": "r"}
    for reason, sent in (("requested_by_customer", {"reason": "requested_by_customer"}), ("too small", {})):
        await gateway.create_refund("refund", intent_id="pi_1", amount_minor=300, reason=reason, metadata=metadata)
        assert (wire.last.path, wire.last.headers["idempotency-key"]) == ("/v1/refunds", "refund")
        assert wire.last.pairs == {
            "payment_intent": "pi_1",
            "amount": "300",
            "metadata[tenant_id]": "t",
            "metadata[refund_id]": "r",
            **sent,
        }
    asked: dict[str, Any] = {"intent_id": "pi_1", "amount_minor": 300, "reason": "", "metadata": metadata}
    await gateway.create_refund("refund", **asked, with_movement=True)
    assert {name for name in wire.last.pairs if name.startswith("expand")} == {"expand[0]", "expand[1]"}


async def test_what_is_read_is_named_in_the_path_and_no_id_leads_anywhere_else(wire: Wire, gateway: StripeGateway) -> None:
    await gateway.retrieve_refund("re_1")
    assert (wire.last.method, wire.last.path) == ("GET", "/v1/refunds/re_1")
    await gateway.retrieve_dispute("dp_1")
    assert (wire.last.method, wire.last.path) == ("GET", "/v1/disputes/dp_1")
    await gateway.retrieve_intent("../refunds?x=")
    assert wire.last.path.startswith("/v1/payment_intents/..%2Frefunds%3Fx")
    assert set(wire.last.pairs) == {"expand[0]"}


async def test_calls_on_anothers_behalf_carry_that_account_and_see_that_account_alone(
    wire: Wire, provider: Stripe, api_key: str
) -> None:
    platform = provider.client(Credentials(api_key), Guard("platform", UNLIMITED))
    shop = provider.client(Credentials(api_key, "acct_shop1"), Guard("acct_shop1", UNLIMITED))
    intent_id = await made(shop)
    assert wire.last.headers["stripe-account"] == "acct_shop1"
    assert isinstance(await shop.retrieve_intent(intent_id), Succeeded)
    elsewhere = await platform.retrieve_intent(intent_id)
    assert isinstance(elsewhere, Rejected)
    assert elsewhere.code == "not-found"
    assert "stripe-account" not in wire.last.headers
    own, other = await platform.account(), await shop.account()
    assert isinstance(own, SeenAccount)
    assert isinstance(other, SeenAccount)
    assert own != other


async def test_a_hold_is_taken_in_parts_and_its_fee_comes_with_the_capture(gateway: StripeGateway) -> None:
    intent_id = await made(gateway, "parts")
    await gateway.confirm_intent("confirm", intent_id, VISA)
    part = await gateway.capture_intent("part", intent_id, 300, final=False)
    assert isinstance(part, Succeeded)
    assert (part.status, part.amount_received_minor, part.amount_capturable_minor) == (IntentStatus.AUTHORIZED, 300, 950)
    rest = await gateway.capture_intent("rest", intent_id, 900)
    assert isinstance(rest, Succeeded)
    assert (rest.status, rest.amount_received_minor, rest.amount_capturable_minor) == (IntentStatus.CAPTURED, 1200, 0)
    assert (rest.fee_minor or 0) > 0
    assert await gateway.retrieve_intent(intent_id) == rest


async def test_refunds_are_made_read_found_and_listed_alike(gateway: StripeGateway) -> None:
    intent_id = await made(gateway, "refunded")
    await gateway.confirm_intent("confirm", intent_id, VISA)
    await gateway.capture_intent("capture", intent_id, 1250)
    metadata = {"payment_id": "refunded", "refund_id": "r-1"}
    refund = await gateway.create_refund("refund", intent_id=intent_id, amount_minor=400, reason="too small", metadata=metadata)
    assert isinstance(refund, SeenRefund)
    assert (refund.status, refund.amount_minor, refund.currency, refund.intent_id) == (
        RefundStatus.SUCCEEDED,
        400,
        "gbp",
        intent_id,
    )
    assert refund.metadata == metadata
    assert await gateway.retrieve_refund(refund.provider_id) == refund
    assert await gateway.find_refund(intent_id, "r-1") == refund
    assert isinstance(await gateway.find_refund(intent_id, "r-2"), Rejected)
    start, end = datetime.now(UTC) - timedelta(minutes=1), datetime.now(UTC) + timedelta(minutes=1)
    assert [seen async for seen in gateway.list_refunds(start, end)] == [refund]
    too_much = await gateway.create_refund("more", intent_id=intent_id, amount_minor=900, reason="", metadata={})
    assert isinstance(too_much, Rejected)
    moved = [seen async for seen in gateway.list_transactions(start, end)]
    assert {(seen.kind, seen.amount_minor) for seen in moved} == {(TransactionKind.CHARGE, 1250), (TransactionKind.REFUND, -400)}
    assert all(seen.net_minor == seen.amount_minor - seen.fee_minor for seen in moved)
    assert {seen.source_id for seen in moved} >= {refund.provider_id}


async def test_a_dispute_is_read_with_the_money_it_took(gateway: StripeGateway) -> None:
    intent_id = await made(gateway, "disputed", "pm_card_createDispute")
    await gateway.confirm_intent("confirm", intent_id, "pm_card_createDispute")
    await gateway.capture_intent("capture", intent_id, 1250)
    start, end = datetime.now(UTC) - timedelta(minutes=1), datetime.now(UTC) + timedelta(minutes=1)
    [dispute] = [seen async for seen in gateway.list_disputes(start, end)]
    assert (dispute.intent_id, dispute.amount_minor, dispute.status) == (intent_id, 1250, DisputeStatus.NEEDS_RESPONSE)
    assert (dispute.withdrawn_minor, dispute.reinstated_minor, dispute.fee_minor > 0) == (1250, 0, True)
    assert dispute.respond_by is not None
    assert await gateway.retrieve_dispute(dispute.provider_id) == dispute
    kinds = {seen.kind: seen async for seen in gateway.list_transactions(start, end)}
    assert kinds[TransactionKind.DISPUTE].amount_minor == -1250
    seen = await gateway.retrieve_intent(intent_id)
    assert isinstance(seen, Succeeded)
    assert seen.disputed


@pytest.mark.parametrize("status", [409, 429, 500, 503])
async def test_nothing_is_ever_sent_twice_by_itself(wire: Wire, gateway: StripeGateway, status: int) -> None:
    wire.fault = (status, {"Stripe-Should-Retry": "true", "Retry-After": "3"})
    outcome = await gateway.confirm_intent("once", "pi_1", VISA)
    assert outcome == (Throttled(3.0) if status == 429 else Unknown(f"http-{status}"))
    assert len(wire.sent) == 1


async def test_a_failure_that_is_stored_under_its_key_is_told_from_a_new_one(wire: Wire, gateway: StripeGateway) -> None:
    wire.fault = (500, {"Idempotent-Replayed": "true"})
    assert await gateway.confirm_intent("stored", "pi_1", VISA) == Unknown("http-500", stored=True)


async def test_a_decline_names_the_charge_that_failed(gateway: StripeGateway) -> None:
    declined = await gateway.confirm_intent("declined", await made(gateway, "no", DECLINED), DECLINED)
    assert isinstance(declined, Declined)
    assert declined.code == "generic_decline"
    assert (declined.charge_id or "").startswith("ch_")


async def test_a_payment_is_found_by_its_metadata_and_certainly_absent_only_after_the_whole_list(
    wire: Wire, gateway: StripeGateway
) -> None:
    await asyncio.gather(*(made(gateway, f"other-{number}") for number in range(120)))
    wanted = await made(gateway, "wanted")
    await asyncio.gather(*(made(gateway, f"later-{number}") for number in range(120)))
    since = datetime.now(UTC) - timedelta(seconds=30)
    found = await gateway.find_intent("wanted", since)
    assert isinstance(found, Succeeded)
    assert found.intent_id == wanted
    assert await gateway.find_intent("never made", since) == Rejected("not-found", "no intent was made for payment never made")
    pages = [sent for sent in wire.sent if sent.method == "GET"][-3:]
    assert [sent.pairs["limit"] for sent in pages] == ["100"] * 3
    assert ["starting_after" in sent.pairs for sent in pages] == [False, True, True]
    long_ago = await gateway.find_intent("wanted", since - timedelta(days=2))
    assert isinstance(long_ago, Succeeded), "it may have been made long after it was first sent"
    wire.fault = (500, {})
    assert await gateway.find_intent("never made", since) == Unknown("http-500")
    wire.fault = (429, {"Retry-After": "2"})
    assert await gateway.find_refund("pi_1", "r") == Throttled(2.0)


async def test_a_list_has_every_row_of_its_time_once_or_says_that_it_broke_off(wire: Wire, gateway: StripeGateway) -> None:
    made_ids = {await made(gateway, f"listed-{number}") for number in range(105)}
    now = datetime.now(UTC)
    rows = [seen async for seen in gateway.list_intents(now - timedelta(minutes=1), now + timedelta(minutes=1))]
    assert {seen.intent_id for seen in rows} == made_ids
    assert len(rows) == len(made_ids)
    assert all(seen.metadata["tenant_id"] == "t" for seen in rows)
    assert [seen async for seen in gateway.list_intents(T0, T1)] == []
    assert wire.last.pairs == {
        "limit": "100",
        "created[gte]": str(int(T0.timestamp())),
        "created[lt]": str(int(T1.timestamp())),
        "expand[0]": "data.latest_charge.balance_transaction",
    }
    wire.fault = (503, {})
    for rows_of in (gateway.list_intents, gateway.list_refunds, gateway.list_disputes, gateway.list_transactions):
        with pytest.raises(GatewayUnavailableError):
            [seen async for seen in rows_of(T0, T1)]
    assert [sent.path for sent in wire.sent[-3:]] == ["/v1/refunds", "/v1/disputes", "/v1/balance_transactions"]


async def test_what_a_limit_holds_back_never_reaches_the_wire(wire: Wire, provider: Stripe, api_key: str) -> None:
    one_a_minute = Limits(per_second=1 / 60, endpoint_per_second=1 / 60)
    gateway = provider.client(Credentials(api_key), Guard("slow", one_a_minute))
    assert isinstance(await gateway.retrieve_intent("pi_1"), Rejected)
    held_back: Any = await gateway.retrieve_intent("pi_1")
    assert isinstance(held_back, Throttled)
    assert 50 < (held_back.retry_after or 0) <= 60
    with pytest.raises(GatewayUnavailableError) as broken_off:
        [seen async for seen in gateway.list_intents(T0, T1)]
    assert broken_off.value.retry_after is not None
    shared = provider.client(Credentials(api_key), Guard("fast", UNLIMITED), Buckets(one_a_minute, 0.0))
    await shared.retrieve_intent("pi_1")
    assert len(wire.sent) == 2
