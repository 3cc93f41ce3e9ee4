"""Every order explains itself, and one command says whether all is as it must be: each real source is corrupted in turn."""

import asyncio
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import pytest

from deploy.cli.api import Observed, RefusedError
from deploy.cli.publisher import Record, publishing
from deploy.cli.settlement import settled
from deploy.cli.tenants import operator, shops
from libs.common.clock import new_id, now, rfc3339
from libs.common.contracts import Event
from libs.common.contracts.checkout import CheckoutRequested, OrderConfirmed, OrderLine
from libs.common.contracts.payments import PaymentCaptured, PaymentUnknown
from libs.common.messaging.envelope import adapter
from tests.shared.events import order_confirmed, refund_requested
from tests.shared.market import Market
from tests.shared.variables import without_ours
from tests.shared.verbs import ROOT, buy, cartwright, check, paid, post

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _timeline(market: Market, kind: str, id_: str, *awaited: str) -> dict[str, Any]:
    """The story, once it tells of these: each topic is read on its own, and a moment behind."""
    found: dict[str, Any] = {}

    async def told() -> bool:
        path, token = f"/v1/{kind}/{id_}/timeline", await market.shop.token()
        found.update((await market.api.call("checkout", "GET", path, token=token)).body)
        return {*awaited} <= {item["name"] for item in found["items"]}

    await market.until(told)
    return found


def _causes(story: dict[str, Any]) -> dict[str, str | None]:
    return {item["name"]: item.get("cause", {}).get("name") for item in story["items"]}


WHY = {
    "request": None,
    "checkout.requested": "request",
    "cart.frozen": "checkout.requested",
    "payment.requested": "cart.frozen",
    "create": "payment.requested",
    "confirm": "create",
    "payment.authorized": "confirm",
    "order.confirmed": "payment.authorized",
    "cart.ordered": "order.confirmed",
    "capture": "order.confirmed",
    "payment.captured": "capture",
    "refund.requested": "request",
    "refund": "refund.requested",
    "refund.succeeded": "refund",
    "order.refunded": "refund.succeeded",
}
"""What leads to what in a purchase of which a part is given back."""


# --- The whole story ----------------------------------------------------------------------------------------------


async def test_an_order_tells_what_happened_in_every_service_why_and_how_long_it_took(market: Market) -> None:
    bought = await paid(market, "told")
    token = await market.shop.token()
    refund = {"lines": [{"line_id": "1", "quantity": 1}], "restock": True, "reason": "came back"}
    await post(market, token, f"/v1/orders/{bought['order_id']}/refunds", "refund-told", refund)
    story = await _timeline(market, "orders", bought["order_id"], *WHY)
    assert _causes(story) == WHY
    items = story["items"]
    seen: set[str] = set()
    for item in items:
        assert "cause" not in item or item["cause"]["id"] in seen, "a cause stands before its effects"
        seen.add(item["id"])
    calls = [item for item in items if item["kind"] == "provider-call"]
    assert [call["name"] for call in calls] == ["create", "confirm", "capture", "refund"], "as they were made"
    assert all(call["duration_ms"] >= 0 for call in calls)
    assert {item["service"] for item in items} == {"cart", "checkout", "payments"}
    first = [item for item in items if item["name"] in {"checkout.requested", "order.confirmed", "payment.captured"}]
    assert {item["trace_id"] for item in first} == {story["trace_ids"][0]}, "one purchase is one trace"
    assert not any(item["retry"] or item["compensation"] for item in items)
    said = await cartwright(market, "timeline", bought["order_id"])
    assert said.code == 0
    assert [line for line in said.out.splitlines() if "$ capture" in line and "after order.confirmed" in line]


async def test_a_checkout_that_became_no_order_tells_what_was_taken_back(market: Market) -> None:
    shopper = market.shop.shopper("customer:wavering")
    cart_id = await market.cart(shopper, {"SKU-2": 1})
    method = "pm_card_authenticationRequired"
    checkout = await shopper.check_out(cart_id, key="wavering", method=method, wait_seconds=20)
    await post(market, await shopper._tokens.token(), f"/v1/checkouts/{checkout['id']}/cancel", "off")
    assert (await shopper.outcome(checkout, patience_seconds=240))["state"] == "canceled"
    story = await _timeline(market, "checkouts", checkout["id"], "cart.reopened", "payment.voided", "cancel")
    back = [item["name"] for item in story["items"] if item["compensation"]]
    assert back == ["payment.void-requested", "cancel", "payment.voided", "checkout.canceled", "cart.reopened"]
    with pytest.raises(RefusedError) as refused:
        await market.api.call("checkout", "GET", f"/v1/orders/{checkout['id']}/timeline", token=await market.shop.token())
    assert refused.value.code == "order-not-found"


async def test_a_shopper_reads_their_own_story_and_nobody_elses(market: Market) -> None:
    shopper, checkout = await buy(market, "own-story", {"SKU-3": 1})
    path = f"/v1/orders/{checkout['order_id']}/timeline"
    assert (await market.api.call("checkout", "GET", path, token=await shopper._tokens.token())).status == 200
    shopper, declined = await buy(market, "own-decline", {"SKU-3": 1}, "pm_card_chargeDeclinedInsufficientFunds")
    full = await _timeline(market, "checkouts", declined["id"], "payment.declined", "confirm")
    [said] = [item["details"] for item in full["items"] if item["name"] == "payment.declined"]
    assert said["code"]
    token = await shopper._tokens.token()
    own = (await market.api.call("checkout", "GET", f"/v1/checkouts/{declined['id']}/timeline", token=token)).body
    assert [item["name"] for item in own["items"]] == [item["name"] for item in full["items"]]
    assert not [item for item in own["items"] if {"code", "outcome"} & item["details"].keys()], "no issuer's word for shoppers"
    stranger = await market.shop.shopper("customer:curious")._tokens.token()
    with pytest.raises(RefusedError) as refused:
        await market.api.call("checkout", "GET", path, token=stranger)
    assert refused.value.status == 404


async def test_the_story_is_the_same_when_it_is_read_again_from_the_topics_and_mends_what_was_lost(
    market: Market, admin_url: str
) -> None:
    url = f"{market.api.stack.services['checkout'].ops[-1]}/ops/projections/timeline/rebuild"

    async def rebuilt() -> dict[str, Any]:
        outcome: dict[str, Any] = (await market.api.ask(url, "POST", token=await operator(market.api).token(), seconds=60)).body
        return outcome

    first = await rebuilt()
    assert (first["changed"], first["records_failed"]) == (False, 0)
    assert first["rows"] > 20
    admin = await asyncpg.connect(_database(market, admin_url, "checkout"))
    await admin.execute("UPDATE timeline_entry SET name = 'forged' WHERE name = 'order.confirmed'")
    await admin.execute("DELETE FROM timeline_entry WHERE name = 'cart.frozen'")
    older = "INSERT INTO timeline_entry SELECT tenant_id, 'older', story_id, at, service, kind, name, cause, NULL, NULL, '', '{}'"
    await admin.execute(f"{older} FROM timeline_entry WHERE kind = 'event' LIMIT 1")
    assert (await rebuilt())["changed"]
    again = await rebuilt()
    assert not again["changed"]
    assert again["rows"] >= first["rows"]
    assert await admin.fetchval("SELECT count(*) FROM timeline_entry WHERE name = 'cart.frozen'") >= 3
    assert await admin.fetchval("SELECT count(*) FROM timeline_entry WHERE name = 'forged'") == 0
    assert await admin.fetchval("SELECT count(*) FROM timeline_entry WHERE id = 'older'") == 1, "older than the topics: kept"
    await admin.close()


async def test_whoever_looks_at_one_tenant_asks_for_one_however_many_there_are(market: Market) -> None:
    asked: list[Observed] = []
    api = market.api.observed_by(asked.append)
    [(slug, shop)] = [each async for each in shops(api, "invariants")]
    assert (slug, shop.tenant_id) == ("invariants", market.shop.tenant_id)
    [listing] = [each.name for each in asked if "/v1/tenants" in each.name]
    assert "slug=invariants" in listing


# --- The checker --------------------------------------------------------------------------------------------------


def _database(market: Market, admin_url: str, service: str) -> str:
    return f"{admin_url.rpartition('/')[0]}/{market.stack._prefixes[0]}{service}"


async def test_the_checker_finds_nothing_wrong_with_purchases_declines_refunds_and_cancellations(market: Market) -> None:
    _, declined = await buy(market, "declined", {"SKU-4": 1}, "pm_card_chargeDeclined")
    assert declined["state"] == "failed"
    await market.stock_of("GRATIS", 3, unit_minor=0)
    _, given = await buy(market, "lucky", {"GRATIS": 2})
    assert (given["state"], given["total_minor"]) == ("confirmed", 0)
    _, off = await buy(market, "called-off", {"SKU-3": 2})
    token = await market.shop.token()
    with suppress(RefusedError):  # its money may be taken already
        await post(market, token, f"/v1/orders/{off['order_id']}/cancel", "call-off")
    bought = await asyncio.gather(*(buy(market, f"crowd-{number}", {"SKU-0": 1, "SKU-1": 1}) for number in range(6)))
    ids = [checkout["id"] for _, checkout in bought]
    await settled(market.api, market.shop.tenant_id, ids, ids)
    said = await cartwright(market, "invariants", "--json", "--patience", "20", "--capture-limit", "5", "--orphan-limit", "5")
    assert (said.code, said.told["violations"]) == (0, [])
    [tenant] = [each for each in said.told["tenants"] if each["tenant"] == "invariants"]
    assert tenant["not_judged"] == []
    money = tenant["totals"]["GBP"]
    assert money["orders"] >= 8
    assert 0 < money["orders_minor"] <= money["captured_minor"]


async def test_the_checker_agrees_with_books_of_an_account_that_is_settled_in_another_currency(market: Market) -> None:
    await _settle(market, "PUT", {"currency": "usd", "rates": {"gbp": "1.2725"}})
    try:
        bought = await paid(market, "in-dollars")
        token = await market.shop.token()
        some = {"lines": [{"line_id": "1", "quantity": 1}], "restock": True, "reason": "came back"}
        await post(market, token, f"/v1/orders/{bought['order_id']}/refunds", "refund-dollars", some)
        said = await cartwright(market, "invariants", "--json", "--patience", "20")
        assert (said.code, said.told["violations"]) == (0, [])
        found = [each async for each in market.api.everything("payments", "/v1/ledger/accounts", token)]
        assert {each["code"] for each in found if each["currency"] == "USD"} == {"provider_balance", "provider_fees", "exchange"}
    finally:
        await _settle(market, "DELETE", {})


async def _settle(market: Market, method: str, wanted: dict[str, Any]) -> None:
    """In which currency the shared account is settled, from now on."""
    stack = market.api.stack
    asked = {"api_key": stack.stripe_api_key, **wanted}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{stack.stripe_api_base}/_control/settlement", json=asked) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def _charge(market: Market, amount: int, metadata: dict[str, str]) -> str:
    """A charge that nobody here asked for, with a tenant's name on it."""
    form = {
        "amount": str(amount),
        "currency": "gbp",
        "payment_method": "pm_card_visa",
        "payment_method_types[]": "card",
        "confirm": "true",
        **{f"metadata[{name}]": value for name, value in metadata.items()},
    }
    stack = market.api.stack
    headers = {"Authorization": f"Bearer {stack.stripe_api_key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{stack.stripe_api_base}/v1/payment_intents", data=form) as response,
    ):
        body = await response.json()
        assert (response.status, body["status"]) == (200, "succeeded"), body
        return str(body["id"])


async def _forge(market: Market, event: Event) -> None:
    """Publish an event by hand, as somebody would who has got hold of the broker and of its owner's name."""
    tenant, subject = market.shop.tenant_id, str(getattr(event, event.AGGREGATE))
    key = f"{tenant}:{subject}"
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": str(new_id()),
        "ce_source": f"/cartwright/{event.PUBLISHER}",
        "ce_type": event.TYPE,
        "ce_subject": subject,
        "ce_time": rfc3339(now() - timedelta(hours=1)),
        "ce_tenantid": str(tenant),
        "ce_partitionkey": key,
        "ce_sequence": "1000",
        "ce_relayposition": f"{event.PUBLISHER}/1.1.1",
        "content-type": "application/json",
    }
    headers = [(name, text.encode()) for name, text in attributes.items()]
    async with publishing(market.api.stack) as publisher:
        value = adapter(type(event)).dump_json(event, exclude_none=True)
        await publisher.publish([Record(event.TOPIC, key.encode(), value, headers)])


def _order(number: int, total_minor: int) -> OrderConfirmed:
    """An order that no checkout became."""
    line = OrderLine(line_id="1", sku="SKU-0", name="SKU-0", quantity=1, unit_minor=total_minor, total_minor=total_minor)
    return order_confirmed(total_minor, number=number, lines=(line,), placed_at=now() - timedelta(hours=1))


async def test_a_second_charge_and_one_without_an_order_on_the_providers_list_are_found(market: Market) -> None:
    bought = await paid(market, "charged-twice")
    tenant_id = str(market.shop.tenant_id)
    await _charge(market, 202, {"tenant_id": tenant_id, "checkout_id": bought["id"]})
    stray = await _charge(market, 303, {"tenant_id": tenant_id, "checkout_id": str(uuid4())})
    said = await check(market, "--orphan-limit", "0")
    assert said.code == 1
    assert said.violations >= {("second-charge", bought["id"]), ("capture-without-order", stray)}
    assert said.violations <= {
        ("second-charge", bought["id"]),
        ("capture-without-order", stray),
        ("ledger-differs", "GBP"),
    }, "the ledger does not know of either, and nothing else is wrong"


async def test_an_order_by_hand_shows_by_its_number_its_missing_money_and_its_goods(market: Market) -> None:
    last = max([order["number"] async for order in market.shop.orders()])
    forged = _order(last + 2, 555)
    await _forge(market, forged)
    found = (await check(market, "--capture-limit", "60")).violations
    assert {
        ("order-number-gap", str(last + 1)),
        ("order-without-capture", str(forged.order_id)),
        ("stock-leak", "SKU-0"),
    } <= found
    captured = PaymentCaptured(
        payment_id=forged.payment_id,
        checkout_id=forged.checkout_id,
        order_id=forged.order_id,
        amount_minor=555,
        captured_minor=555,
    )
    await _forge(market, captured)
    found = (await check(market)).violations
    assert ("capture-lost", str(forged.order_id)) in found, "payments says so, and the provider does not"
    await _forge(market, replace(forged, order_id=uuid4()))
    found = (await check(market)).violations
    assert {("order-number-twice", str(last + 2)), ("second-order", str(forged.checkout_id))} <= found


async def test_what_never_ends_is_found_beyond_its_limit(market: Market) -> None:
    checkout = CheckoutRequested(checkout_id=uuid4(), cart_id=uuid4(), subject_id=uuid4())
    unknown = PaymentUnknown(payment_id=uuid4(), checkout_id=uuid4())
    refund = refund_requested(1, reason="forged")
    await _forge(market, checkout)
    await _forge(market, refund)
    await _forge(market, unknown)
    late = {
        ("checkout-stuck", str(checkout.checkout_id)),
        ("payment-unknown", str(unknown.payment_id)),
        ("refund-stuck", str(refund.refund_id)),
    }
    assert late <= (await check(market, "--refund-limit", "60")).violations
    patient = await check(market, "--checkout-limit", "7200", "--unknown-limit", "7200", "--refund-limit", "7200")
    assert not late & patient.violations


async def test_goods_and_entries_that_come_from_nowhere_are_found_in_the_open_books(market: Market, admin_url: str) -> None:
    before = (await check(market)).violations
    assert ("stock-leak", "SKU-4") not in before
    stock = await asyncpg.connect(_database(market, admin_url, "checkout"))
    await stock.execute("UPDATE stock SET on_hand = on_hand - 1, adjusted = adjusted - 1 WHERE sku = 'SKU-4'")
    await stock.close()
    assert (await check(market)).violations - before == {("stock-leak", "SKU-4")}


async def test_the_ledger_must_agree_with_the_provider(market: Market, admin_url: str) -> None:
    shop = await market.another_shop("second-books")
    quiet = ("--tenant", "second-books")
    assert (await check(market, *quiet)).code == 0
    books = await asyncpg.connect(_database(market, admin_url, "payments"))
    payment_id = await books.fetchval("SELECT id FROM payment LIMIT 1")
    await books.execute("SET session_replication_role = replica")  # past the foreign keys and the ledger's own guard
    accounts = (
        "INSERT INTO ledger_account (tenant_id, currency, code) VALUES ($1, 'GBP', 'sales'), ($1, 'GBP', 'provider_balance')"
    )
    await books.execute(accounts, shop.tenant_id)
    await books.execute(
        """INSERT INTO ledger_entry (tenant_id, id, payment_id, kind, debit, credit, amount_minor, currency, reference, posted_at)
        VALUES ($1, $2, $3, 'capture', 'provider_balance', 'sales', 700, 'GBP', 'forged', now())""",
        shop.tenant_id,
        uuid4(),
        payment_id,
    )
    await books.close()
    said = await check(market, *quiet)
    assert (said.code, said.violations) == (1, {("ledger-differs", "GBP")})


async def test_what_the_timeline_cannot_read_is_set_aside_where_operators_look(market: Market) -> None:
    headers = [("ce_type", b"order.confirmed"), ("ce_tenantid", str(market.shop.tenant_id).encode())]
    async with publishing(market.api.stack) as publisher:
        await publisher.publish([Record("order.v1", b"junk", b"{}", headers)])
    found: list[str] = []

    async def listed() -> bool:
        said = await cartwright(market, "parked", "list", "--service", "checkout", "--json")
        found.extend(each["id"] for each in said.told["items"] if each["id"].startswith("timeline:"))
        return bool(found)

    await market.until(listed)
    shown = await cartwright(market, "parked", "show", found[0], "--service", "checkout", "--json")
    assert (shown.code, shown.told["reason"], shown.told["payload"]) == (0, "schema", "{}")
    decided = await cartwright(market, "parked", "discard", found[0], "--service", "checkout", "--reason", "junk", "--json")
    assert decided.code == 0


async def test_a_record_that_nobody_can_read_is_found_and_watching_tells_it_with_its_figures(market: Market) -> None:
    options = ("--watch", "--tenant", "second-books", "--patience", "0", "--every", "0.2", "--metrics-port", "0")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli", "invariants", *options),
        cwd=ROOT,
        env=without_ours() | {"CARTWRIGHT_HOME": str(market.stack.home.path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(240):
        address = (await process.stderr.readline()).decode().rpartition(" ")[2].strip()
        lines = [(await process.stdout.readline()).decode() for _ in range(2)]
        async with aiohttp.ClientSession() as session, session.get(address) as response:
            figures = await response.text()
    process.terminate()
    await process.communicate()
    assert [line for line in lines if "unreadable-record" in line]
    assert 'cartwright_invariant_violations{invariant="unreadable-record"} 1.0' in figures
    assert 'cartwright_invariant_violations{invariant="ledger-differs"} 1.0' in figures
