"""What cannot be: a clear refusal each, and the provider is not called. It is the fake itself that counts the calls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from libs.common.auth import CLIENT
from libs.common.contracts.checkout import PaymentRequested
from services.payments.domain.payment.payment import PaymentState
from tests.shared.callers import Person, problem
from tests.shared.events import AMOUNT, refund_requested
from tests.shared.till import Till

COUNTING = {"match": {"path": "/v1/*"}, "fault": "latency"}
"""Strikes every call, and does nothing to it."""


@asynccontextmanager
async def no_call(till: Till) -> AsyncIterator[None]:
    """Nothing in here may reach the provider, also not a moment later."""
    await till.faults(COUNTING)
    yield
    open_calls = "SELECT count(*) FROM operation WHERE tenant_id = $1 AND due_at IS NOT NULL"
    assert (await till.as_admin(open_calls, till.tenant_id))[0][0] == 0, "no call is planned"
    assert await till.faults() == [0]


async def captured(till: Till, **members: Any) -> PaymentRequested:
    asked = await till.request(**members)
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    await till.confirm(asked)
    await till.until(asked.payment_id, PaymentState.CAPTURED)
    return asked


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"currency": "ZZZ"}, "currency-not-supported"),
        ({"currency": "gbp"}, "currency-not-supported"),
        ({"currency": "XXX"}, "currency-not-supported"),
        ({"currency": "POUNDS"}, "currency-not-supported"),
        ({"currency": ""}, "currency-not-supported"),
        ({"amount_minor": 0}, "amount-not-payable"),
        ({"amount_minor": -1}, "amount-not-payable"),
        ({"amount_minor": 100_000_000}, "amount-not-payable"),
        ({"amount_minor": 2**63}, "amount-not-payable"),
        ({"amount_minor": 1_234, "currency": "KWD"}, "amount-not-payable"),
        ({"method": ""}, "payment-method-missing"),
        *(({"method": method}, "payment-method-refused") for method in ("4242424242424242", "tok_visa", "pm_a b", "pm_")),
    ],
    ids=str,
)
async def test_a_payment_that_cannot_be_is_declined_with_its_reason_before_anybody_is_called(
    till: Till, members: dict[str, Any], code: str
) -> None:
    async with no_call(till):
        asked = await till.request(**members)
        payment = await till.known(asked.payment_id)
        assert (payment.state, payment.decline_code) == (PaymentState.DECLINED, code)
        assert [kind for kind, _ in await till.events(asked.payment_id)] == ["payment.declined"]
        await till.tell(asked)
        assert len(await till.events(asked.payment_id)) == 1, "asked for again, it stays as it is"


@pytest.mark.parametrize(("currency", "amount_minor"), [("JPY", 500), ("KWD", 1_230), ("GBP", 1), ("GBP", 99_999_999)])
async def test_a_currency_with_none_or_three_digits_and_the_smallest_and_largest_amounts_are_taken_as_they_are(
    till: Till, currency: str, amount_minor: int
) -> None:
    await captured(till, currency=currency, amount_minor=amount_minor)
    [seen] = await till.at_provider()
    assert (seen.currency, seen.amount_minor, seen.amount_received_minor) == (currency.lower(), amount_minor, amount_minor)


async def test_whatever_cannot_be_asked_of_a_payment_is_a_problem_that_says_why(till: Till) -> None:
    held, taken, dinars = await till.request(), await captured(till), await captured(till, currency="KWD", amount_minor=1_230)
    await till.until(held.payment_id, PaymentState.AUTHORIZED)
    given_back = (await till.post(f"{taken.payment_id}/refunds", {"amount_minor": 250, "reason": "returned"})).json()["id"]
    await refunded(till, UUID(given_back))
    of_held, of_taken = f"{held.payment_id}/capture", f"{taken.payment_id}/refunds"
    amounts: list[Any] = [0, -1, 1.5, "100", True, 10**30, None, [], {}]
    async with no_call(till):
        for amount in amounts[:-3]:
            assert_refused(await till.post(of_held, {"amount_minor": amount}), 422, "schema")
            assert_refused(await till.post(of_taken, {"amount_minor": amount, "reason": "x"}), 422, "schema")
        assert_refused(await till.post(of_held, {"amount_minor": AMOUNT + 1}), 409, "capture-exceeds-authorization")
        assert_refused(await till.post(of_held, {"amount_minor": 1, "currency": "EUR"}), 422, "schema")
        assert_refused(await till.post(of_taken, {"amount_minor": AMOUNT - 249, "reason": "x"}), 409, "refund-exceeds-capture")
        assert_refused(await till.post(of_taken, {"amount_minor": 1}), 422, "schema")
        five = {"amount_minor": 5, "reason": "not a multiple of ten"}
        assert_refused(await till.post(f"{dinars.payment_id}/refunds", five), 422, "amount-not-payable")
        assert_refused(await till.post(f"{held.payment_id}/refunds", {"reason": "not taken yet"}), 409, "payment-not-captured")
        assert_refused(await till.post(f"{given_back}/refunds", {"reason": "of a refund"}), 404, "payment-not-found")
        assert_refused(await till.post(f"{given_back}/capture"), 404, "payment-not-found")
        assert_refused(await till.post(f"{taken.payment_id}/capture"), 409, "payment-state")
        assert_refused(await till.post(f"{taken.payment_id}/void"), 409, "payment-state")
        verdict = {"verdict": "read-again", "reason": "x"}
        assert_refused(await till.post(f"{taken.payment_id}/resolve", verdict), 409, "nothing-unknown")
        for verb, body in {"capture": None, "void": None, "refunds": {"reason": "x"}, "resolve": verdict}.items():
            assert_refused(await till.post(f"{uuid4()}/{verb}", body), 404, "payment-not-found")
            assert_refused(await till.post(f"nonsense/{verb}", body), 404, "not-found")
            stranger = Person(uuid4(), role=CLIENT).authorization
            assert_refused(await till.post(f"{taken.payment_id}/{verb}", body, **stranger), 404, "payment-not-found")
        for path in ("payments", "refunds", "disputes", "reconciliations"):
            for key in (uuid4(), given_back if path != "refunds" else taken.payment_id, "nonsense"):
                assert_refused(await till.client.get(f"/v1/{path}/{key}", headers=till.staff), 404)


async def test_what_is_no_request_at_all_is_a_problem_too(till: Till) -> None:
    taken = await captured(till)
    url, key = f"/v1/payments/{taken.payment_id}/refunds", {"Idempotency-Key": "1"}
    json = {"Content-Type": "application/json"}
    async with no_call(till):
        for content, headers, status in (
            (b"{", key | json, 400),
            (b"\xff\xfe", key | json, 400),
            (b"[]", key | json, 422),
            (b'{"reason": "x"}', json, 400),
            (b'{"reason": "x"}', {"Idempotency-Key": "k" * 256} | json, 400),
            (b"reason=x", key | {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ):
            response = await till.client.post(url, content=content, headers=till.staff | headers)
            assert_refused(response, status)


async def test_an_orders_refund_that_cannot_be_fails_with_its_reason(till: Till) -> None:
    taken = await captured(till)
    whose = {"payment_id": taken.payment_id, "checkout_id": taken.checkout_id, "order_id": taken.order_id}
    async with no_call(till):
        for amount_minor, currency, code in (
            (AMOUNT + 1, "GBP", "refund-exceeds-capture"),
            (0, "GBP", "amount-not-payable"),
            (-5, "GBP", "amount-not-payable"),
            (5, "EUR", "refund-currency"),
        ):
            asked = refund_requested(amount_minor, currency=currency, **whose)
            await till.tell(asked, asked)
            found = await till.as_admin("SELECT state, failure_code FROM refund WHERE id = $1", asked.refund_id)
            assert [tuple(row) for row in found] == [("failed", code)], (amount_minor, currency)


async def refunded(till: Till, refund_id: UUID) -> None:
    async with asyncio.timeout(120):
        while (await till.as_admin("SELECT state FROM refund WHERE id = $1", refund_id))[0][0] != "succeeded":
            await asyncio.sleep(0.02)


def assert_refused(response: httpx.Response, status: int, code: str | None = None) -> None:
    body = problem(response)
    assert response.status_code == status, response.text
    assert code in {None, body["code"]}, response.text
