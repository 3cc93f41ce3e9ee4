"""The fake Stripe's machine, cards and parameters against what Stripe documents, over real HTTP."""

from __future__ import annotations

import pytest
import stripe

from deploy.local.fake_stripe.intents import TRANSITIONS, Verb
from deploy.local.fake_stripe.records import Status
from tests.shared.fakes import DECLINED, INTENTS, POOR, VISA, Account


async def test_a_held_amount_is_captured_in_part_and_the_charge_tells_until_when(account: Account) -> None:
    """Create, confirm, capture through the SDK, with the amounts, the charge and its window at each step."""
    intents = account.sdk.payment_intents
    intent = await intents.create_async(
        {
            "amount": 1250,
            "currency": "GBP",
            "capture_method": "manual",
            "payment_method": VISA,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "metadata": {"tenant_id": "t1", "7": "numbers are keys too"},
        }
    )
    assert (intent.status, intent.currency, intent.livemode) == ("requires_confirmation", "gbp", False)
    assert intent.metadata.to_dict() == {"tenant_id": "t1", "7": "numbers are keys too"}

    held = await intents.confirm_async(intent.id, {"expand": ["latest_charge"]})
    charge = held.latest_charge
    assert isinstance(charge, stripe.Charge)
    assert (held.status, held.amount_capturable, charge.captured) == ("requires_capture", 1250, False)
    assert charge.payment_method_details is not None
    assert charge.payment_method_details["card"]["capture_before"] == charge.created + 7 * 24 * 3600

    taken = await intents.capture_async(intent.id, {"amount_to_capture": 1000})
    assert (taken.status, taken.amount_received, taken.amount_capturable) == ("succeeded", 1000, 0)
    after = await account.sdk.charges.retrieve_async(charge.id)
    assert (after.captured, after.amount_captured, after.amount) == (True, 1000, 1250)


SETUPS: dict[Status, tuple[dict[str, str], str | None]] = {
    Status.REQUIRES_PAYMENT_METHOD: ({}, None),
    Status.REQUIRES_CONFIRMATION: ({"payment_method": VISA}, None),
    Status.REQUIRES_CAPTURE: ({"payment_method": VISA, "confirm": "true"}, None),
    Status.SUCCEEDED: ({"payment_method": VISA, "confirm": "true", "capture_method": "automatic"}, None),
    Status.REQUIRES_ACTION: ({"payment_method": "pm_card_authenticationRequired", "confirm": "true"}, None),
    Status.CANCELED: ({}, "cancel"),
}


@pytest.mark.parametrize("status", SETUPS)
@pytest.mark.parametrize("verb", [Verb.CONFIRM, Verb.CAPTURE, Verb.CANCEL])
async def test_a_move_outside_the_table_is_refused_and_changes_nothing(account: Account, status: Status, verb: Verb) -> None:
    """TRANSITIONS is what the fake does, for each state a client can reach and each verb."""
    form, then = SETUPS[status]
    intent = (await account.create(**form)).json
    if then is not None:
        intent = (await account.ask("POST", f"{INTENTS}/{intent['id']}/{then}")).json
    assert intent["status"] == status
    wanted = {"payment_method": VISA} if verb is Verb.CONFIRM else {}
    answer = await account.ask("POST", f"{INTENTS}/{intent['id']}/{verb}", wanted)
    now = (await account.ask("GET", f"{INTENTS}/{intent['id']}")).json

    if status in TRANSITIONS[verb]:
        assert answer.status == 200
        assert now["status"] in TRANSITIONS[verb][status]
    else:
        assert (answer.status, answer.error["code"]) == (400, "payment_intent_unexpected_state")
        assert answer.error["payment_intent"] == now == intent


@pytest.mark.parametrize(("card", "reason"), [(DECLINED, "generic_decline"), (POOR, "insufficient_funds")])
async def test_a_decline_returns_the_intent_for_another_card(account: Account, card: str, reason: str) -> None:
    """402 with Stripe's error, a failed charge, and nothing held; the next card may succeed."""
    intent = (await account.create(payment_method=card)).json
    with pytest.raises(stripe.CardError) as caught:
        await account.sdk.payment_intents.confirm_async(intent["id"])
    error = caught.value.error
    assert error is not None
    assert (error.type, error.code, error.decline_code) == ("card_error", "card_declined", reason)
    assert error.payment_intent is not None
    assert error.payment_intent.status == "requires_payment_method"
    assert error.payment_intent.last_payment_error is not None
    assert (error.payment_intent.last_payment_error.decline_code, error.payment_intent.payment_method) == (reason, None)
    assert error.charge is not None
    failed = await account.sdk.charges.retrieve_async(error.charge)
    assert (failed.status, failed.paid, failed.amount_captured) == ("failed", False, 0)

    held = await account.sdk.payment_intents.confirm_async(intent["id"], {"payment_method": VISA})
    assert (held.status, held.last_payment_error) == ("requires_capture", None)
    charges = await account.sdk.charges.list_async({"payment_intent": intent["id"]})
    assert [charge.status for charge in charges.data] == ["succeeded", "failed"]


@pytest.mark.parametrize(
    ("form", "code", "param"),
    [
        ({"amount": ""}, "parameter_missing", "amount"),
        ({"amount": "12.50"}, "parameter_invalid_integer", "amount"),
        ({"amount": "0"}, "amount_too_small", "amount"),
        ({"amount": "-1"}, "amount_too_small", "amount"),
        ({"amount": "100000000"}, "amount_too_large", "amount"),
        ({"currency": "zzz"}, None, "currency"),
        ({"colour": "blue"}, "parameter_unknown", "colour"),
        ({"capture_method": "later"}, None, "capture_method"),
        ({"payment_method": "pm_card_unheardOf"}, "resource_missing", "payment_method"),
        ({"metadata[k]": "v" * 501}, None, "metadata[k]"),
        ({"automatic_payment_methods[enabled]": "true"}, None, "allowed_payment_method_types"),
    ],
)
async def test_a_bad_parameter_is_named_and_nothing_is_made(
    account: Account, form: dict[str, str], code: str | None, param: str
) -> None:
    """400 with Stripe's code and the parameter's name."""
    refused = await account.create(**form)
    assert refused.status == 400
    assert (refused.error.get("code"), refused.error["param"]) == (code, param)
    assert (await account.ask("GET", INTENTS)).json["data"] == []


async def test_payment_method_types_is_refused_from_the_endive_version_on(account: Account) -> None:
    """docs.stripe.com/changelog/endive/2026-09-30: the code is `payment_method_types_no_longer_supported`."""
    form = {"amount": "5", "currency": "gbp", "payment_method_types[]": "card"}
    new = await account.ask("POST", INTENTS, form, headers={"Stripe-Version": "2026-10-28.endive"})
    old = await account.ask("POST", INTENTS, form, headers={"Stripe-Version": "2025-03-31.basil"})
    assert (new.status, new.error["code"]) == (400, "payment_method_types_no_longer_supported")
    assert (old.status, old.headers["stripe-version"]) == (200, "2025-03-31.basil")


async def test_a_confirmation_that_might_redirect_needs_somewhere_to_return_to(account: Account) -> None:
    """Stripe's default since 2023-08-16, and the reason the gateway asks for methods that never redirect."""
    intent = (await account.ask("POST", INTENTS, {"amount": "5", "currency": "gbp", "payment_method": VISA})).json
    path = f"{INTENTS}/{intent['id']}/confirm"
    refused = await account.ask("POST", path)
    assert (refused.status, refused.error["param"]) == (400, "return_url")
    assert (await account.ask("POST", path, {"return_url": "https://shop.test/"})).status == 200


@pytest.mark.parametrize("kind", [stripe.PaymentIntent, stripe.Charge])
async def test_an_object_has_every_member_the_sdk_declares_as_required(account: Account, kind: type) -> None:
    """The SDK's classes are generated from Stripe's OpenAPI for the version it pins."""
    intent = (await account.create(payment_method=VISA, confirm="true", **{"expand[]": "latest_charge"})).json
    found = intent if kind is stripe.PaymentIntent else intent["latest_charge"]
    required = {
        name
        for name, hint in kind.__annotations__.items()
        if not any(word in str(hint) for word in ("Optional", "None", "ClassVar"))
    }
    assert len(required) > 5
    assert required <= set(found)
