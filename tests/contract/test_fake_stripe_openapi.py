"""Stripe's own OpenAPI as the judge: of what our gateway asks, and of everything the fake answers."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from deploy.local.fake_stripe.api import SERVED
from services.payments.gateway.protocol import PaymentGateway
from services.payments.gateway.stripe import StripeGateway
from tests.contract.openapi import Contract, installed, specification
from tests.shared.fakes import BASIC, INTENTS, POOR, VISA, Account, control

NOW = datetime(2026, 1, 2, tzinfo=UTC)
META = {"tenant_id": "t", "payment_id": "p", "refund_id": "r"}


@pytest.fixture(scope="module")
def contract(request: pytest.FixtureRequest) -> Contract:
    installed(request.config.cache.mkdir("stripe-mock"))
    return Contract(specification())


@pytest.fixture
def mock(request: pytest.FixtureRequest) -> Iterator[str]:
    """A running stripe-mock: it keeps nothing, and refuses every request that Stripe's OpenAPI does not allow."""
    binary = installed(request.config.cache.mkdir("stripe-mock"))
    command = [str(binary), "-http-addr", "127.0.0.1:0", "-https-addr", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if "for HTTP " in line or "Listening for HTTP on" in line:
                yield "http://" + line.split()[-1].removeprefix("http://").replace("localhost", "127.0.0.1")
                break
        child.terminate()


@asynccontextmanager
async def recorded(upstream: str) -> AsyncIterator[tuple[str, list[tuple[str, str, int, bytes]]]]:
    """Pass requests on, and remember each with its answer."""
    seen: list[tuple[str, str, int, bytes]] = []
    async with aiohttp.ClientSession() as session:

        async def forward(request: web.Request) -> web.Response:
            headers = {name: value for name, value in request.headers.items() if name.lower() not in {"host", "content-length"}}
            body = await request.read()
            async with session.request(request.method, upstream + request.raw_path, data=body or None, headers=headers) as answer:
                raw = await answer.read()
            seen.append((request.method, request.raw_path, answer.status, raw))
            return web.Response(body=raw, status=answer.status, content_type="application/json")

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
        await runner.cleanup()


async def drained(rows: AsyncIterator[object]) -> None:
    """Read one page: stripe-mock says for ever that there are more."""
    async for _ in rows:
        break


Calls = dict[str, list[Callable[[StripeGateway], Awaitable[object]]]]


def gateway_calls() -> Calls:
    """Return every way our gateway is used, by the method of its Protocol."""

    def create(**more: Any) -> Callable[[StripeGateway], Awaitable[object]]:
        common: dict[str, Any] = {"amount_minor": 1250, "currency": "GBP", "method": VISA, "capture": "manual", "metadata": META}
        return lambda gateway: gateway.create_intent("k1", **(common | more))

    def refund(reason: str, **more: Any) -> Callable[[StripeGateway], Awaitable[object]]:
        common: dict[str, Any] = {"intent_id": "pi_1", "amount_minor": 5, "reason": reason, "metadata": META}
        return lambda gateway: gateway.create_refund("k2", **common, **more)

    span = (NOW - timedelta(days=1), NOW)
    return {
        "create_intent": [create(), create(capture="automatic"), create(confirmation="client")],
        "confirm_intent": [lambda gateway: gateway.confirm_intent("k3", "pi_1", VISA)],
        "capture_intent": [
            lambda gateway: gateway.capture_intent("k4", "pi_1", 5),
            lambda gateway: gateway.capture_intent("k4", "pi_1", 5, final=False),
            lambda gateway: gateway.capture_intent("k4", "pi_1", 0),
        ],
        "cancel_intent": [lambda gateway: gateway.cancel_intent("k5", "pi_1")],
        "create_refund": [refund("requested_by_customer"), refund("of our own"), refund("", with_movement=True)],
        "retrieve_intent": [lambda gateway: gateway.retrieve_intent("pi_1")],
        "retrieve_refund": [lambda gateway: gateway.retrieve_refund("re_1")],
        "retrieve_dispute": [lambda gateway: gateway.retrieve_dispute("du_1")],
        "find_intent": [lambda gateway: asyncio.wait_for(gateway.find_intent("p", NOW), 2)],
        "find_refund": [lambda gateway: asyncio.wait_for(gateway.find_refund("pi_1", "r"), 2)],
        "list_intents": [lambda gateway: drained(gateway.list_intents(*span))],
        "list_refunds": [lambda gateway: drained(gateway.list_refunds(*span))],
        "list_disputes": [lambda gateway: drained(gateway.list_disputes(*span))],
        "list_transactions": [lambda gateway: drained(gateway.list_transactions(*span))],
        "account": [lambda gateway: gateway.account()],
    }


async def test_every_request_our_gateway_makes_is_one_stripe_allows(mock: str) -> None:
    calls = gateway_calls()
    public = {name for name, member in vars(PaymentGateway).items() if inspect.isfunction(member) and not name.startswith("_")}
    assert public - {"close"} == calls.keys(), "a new call of the gateway belongs into gateway_calls"
    async with recorded(mock) as (url, seen):
        for name, ways in calls.items():
            for way in ways:
                gateway = StripeGateway("sk_test_123", url, timeout_seconds=5)
                before = len(seen)
                try:
                    await way(gateway)
                except TimeoutError:  # stripe-mock's lists never end
                    assert len(seen) > before
                finally:
                    await gateway.close()
                assert len(seen) > before, f"{name} asked nothing"
        refused = [(method, path, body) for method, path, status, body in seen if status != 200]
        assert refused == []
        mutations = {path for method, path, _, _ in seen if method == "POST"}
        assert len(mutations) == 5, mutations


class Tour:
    """A walk through everything the fake serves, each answer held against Stripe's OpenAPI."""

    def __init__(self, account: Account, contract: Contract) -> None:
        self.account, self.contract = account, contract
        self.served: Counter[str] = Counter()

    async def ask(
        self,
        method: str,
        template: str,
        object_id: str = "",
        *,
        status: int = 200,
        expand: str = "",
        form: Mapping[str, str] | None = None,
        **more: str,
    ) -> dict[str, Any]:
        wanted = {**(form or {}), **more} | ({"expand[]": expand} if expand else {})
        answer = await self.account.ask(method, template.replace("{id}", object_id), wanted)
        assert answer.status == status, answer.raw
        if status == 200:
            self.contract.check(method, template, answer.json)
        else:
            self.contract.check_object("error", answer.json)
        self.served[f"{method} {template}"] += 1
        return answer.json

    async def held(self, card: str = VISA, form: Mapping[str, str] | None = None, *, status: int = 200) -> dict[str, Any]:
        wanted = BASIC | {"confirm": "true", "payment_method": card} | dict(form or {})
        return await self.ask("POST", INTENTS, status=status, form=wanted)

    async def paid(self, card: str = VISA) -> dict[str, Any]:
        held = await self.held(card)
        return await self.ask("POST", INTENTS + "/{id}/capture", held["id"], expand="latest_charge.balance_transaction")

    async def authenticated(self, intent: dict[str, Any], outcome: str) -> dict[str, Any]:
        await control(self.account, "POST", f"payment_intents/{intent['id']}/authentication", {"outcome": outcome})
        return await self.ask("GET", INTENTS + "/{id}", intent["id"], expand="latest_charge")


async def through_payments(tour: Tour) -> None:
    paid = await tour.paid()
    await tour.ask("GET", INTENTS + "/{id}", paid["id"], expand="latest_charge.balance_transaction")
    await tour.ask("GET", INTENTS, expand="data.latest_charge")
    await tour.ask("GET", "/v1/charges/{id}", paid["latest_charge"]["id"], expand="payment_intent")
    await tour.ask("GET", "/v1/charges", payment_intent=paid["id"])
    await tour.ask("POST", INTENTS + "/{id}", paid["id"], description="tea")
    await tour.ask("POST", "/v1/charges/{id}", paid["latest_charge"]["id"], description="tea")
    for kind in ("payment_intents", "charges"):
        await tour.ask("GET", f"/v1/{kind}/search", status=400, query="currency:'gbp'")
    several = await tour.held(form={"payment_method_options[card][request_multicapture]": "if_available"})
    await tour.ask("POST", INTENTS + "/{id}/capture", several["id"], amount_to_capture="500", final_capture="false")
    await tour.ask("POST", INTENTS + "/{id}/cancel", (await tour.held())["id"])
    challenged = await tour.held("pm_card_threeDSecure2Required", {"return_url": "https://shop.example/back"})
    await tour.ask("POST", INTENTS + "/{id}/confirm", challenged["id"])
    assert (await tour.authenticated(challenged, "succeed"))["status"] == "requires_capture"
    failed = await tour.authenticated(await tour.held("pm_card_authenticationRequired"), "fail")
    assert failed["last_payment_error"]["code"] == "payment_intent_authentication_failure"


async def through_money(tour: Tour) -> None:
    refund = await tour.ask(
        "POST", "/v1/refunds", payment_intent=(await tour.paid())["id"], amount="50", expand="balance_transaction"
    )
    await tour.ask("GET", "/v1/refunds/{id}", refund["id"])
    await tour.ask("POST", "/v1/refunds/{id}", refund["id"], form={"metadata[a]": "1"})
    await tour.ask("POST", "/v1/refunds/{id}/cancel", refund["id"], status=400)
    pending = await tour.ask("POST", "/v1/refunds", payment_intent=(await tour.paid("pm_card_pendingRefund"))["id"])
    await control(tour.account, "POST", f"refunds/{pending['id']}", {"status": "failed"})
    await tour.ask("GET", "/v1/refunds/{id}", pending["id"], expand="failure_balance_transaction")
    await tour.ask("GET", "/v1/refunds", expand="data.charge")
    for evidence in ("winning_evidence", "losing_evidence", "anything"):
        case = await tour.paid("pm_card_createDispute")
        (dispute,) = (await tour.ask("GET", "/v1/disputes", payment_intent=case["id"]))["data"]
        await tour.ask("POST", "/v1/disputes/{id}", dispute["id"], form={"evidence[uncategorized_text]": evidence})
    await tour.paid("pm_card_createDisputeInquiry")
    (inquiry, *_) = (await tour.ask("GET", "/v1/disputes", expand="data.charge"))["data"]
    await tour.ask("GET", "/v1/disputes/{id}", inquiry["id"])
    await tour.ask("POST", "/v1/disputes/{id}/close", inquiry["id"])
    transactions = await tour.ask("GET", "/v1/balance_transactions", limit="100", expand="data.source")
    await tour.ask("GET", "/v1/balance_transactions/{id}", transactions["data"][0]["id"])


async def through_the_account(tour: Tour) -> None:
    await tour.ask("GET", "/v1/balance")
    await tour.ask("GET", "/v1/account")
    wanted = {"enabled_events[]": "source.chargeable"}
    hook = await tour.ask("POST", "/v1/webhook_endpoints", url="http://127.0.0.1:9/", form=wanted)
    await tour.ask("POST", "/v1/webhook_endpoints/{id}", hook["id"], disabled="true")
    await tour.ask("GET", "/v1/webhook_endpoints/{id}", hook["id"])
    await tour.ask("GET", "/v1/webhook_endpoints")
    await tour.ask("DELETE", "/v1/webhook_endpoints/{id}", hook["id"])
    events = (await tour.ask("GET", "/v1/events", limit="100"))["data"]
    await tour.ask("GET", "/v1/events/{id}", events[0]["id"])
    for event in events:
        told = event["data"]["object"]
        tour.contract.check_object(told["object"], told)
    assert len({event["type"] for event in events}) >= 15


async def through_refusals(tour: Tour) -> None:
    for card in (POOR, "pm_card_chargeDeclinedExpiredCard", "pm_card_radarBlock"):
        error = (await tour.held(card, status=402))["error"]
        tour.contract.check_object("payment_intent", error["payment_intent"])
        await tour.ask("GET", "/v1/charges/{id}", error["charge"])
    paid = await tour.paid()
    await tour.ask("POST", INTENTS + "/{id}/capture", paid["id"], status=400)
    await tour.ask("POST", "/v1/refunds", status=400, payment_intent=paid["id"], amount="99999")
    await tour.ask("GET", "/v1/refunds/{id}", "re_none", status=404)


async def test_everything_the_fake_answers_is_what_stripe_says_it_answers(account: Account, contract: Contract) -> None:
    tour = Tour(account, contract)
    for walk in (through_payments, through_money, through_refusals, through_the_account):
        await walk(tour)
    assert {served.name for served in SERVED} - tour.served.keys() == set(), "what is served is to be judged too"
