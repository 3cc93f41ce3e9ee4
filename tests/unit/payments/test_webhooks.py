"""Whether it is the provider who says so, what it says, and what that is worth."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from pydantic import SecretStr

from libs.common.clock import NIL
from libs.common.errors import MalformedError
from services.payments.domain.money.refund import Refund, RefundState
from services.payments.domain.money.refund_recording import worth_of_refund
from services.payments.domain.payment.observing import worth_of_intent
from services.payments.domain.payment.payment import OVER, WORKING, Payment, PaymentState
from services.payments.domain.provider.ladder import WAITS, wait_after
from services.payments.domain.provider.outcome import IntentStatus, RefundStatus
from services.payments.domain.provider.webhook import (
    TOLERANCE,
    Notice,
    Subject,
    TakenNotice,
    Worth,
    refusal,
)
from services.payments.gateway.webhooks import read_notice, verify
from services.payments.settings import Settings

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SECRET, OTHER = "whsec_first", "whsec_second"
TENANT, PAYMENT = uuid4(), uuid4()
BODY = b'{"id": "evt_1", "amount": 1250}'


def signed(body: bytes, *secrets: str, at: datetime = NOW) -> str:
    """The header as Stripe makes it: one signature for each secret that is live."""
    seconds = int(at.timestamp())
    made = [hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest() for secret in secrets]
    return ",".join([f"t={seconds}", *(f"v1={signature}" for signature in made), "v0=ignored"])


def refused(body: bytes, header: str | None, *secrets: str) -> str:
    with pytest.raises(MalformedError) as error:
        verify(body, header, secrets, NOW)
    assert SECRET not in str(error.value)
    return error.value.code


def test_a_body_that_the_tenants_secret_signed_just_now_is_believed() -> None:
    verify(BODY, signed(BODY, SECRET), [SECRET], NOW)
    for edge in (-TOLERANCE, TOLERANCE):
        verify(BODY, signed(BODY, SECRET, at=NOW + edge), [SECRET], NOW)


def test_while_a_secret_changes_over_either_end_may_have_both() -> None:
    verify(BODY, signed(BODY, OTHER), [SECRET, OTHER], NOW)
    verify(BODY, signed(BODY, OTHER, SECRET), [SECRET], NOW)
    verify(BODY, signed(BODY, OTHER, SECRET), [SECRET, OTHER], NOW)


@pytest.mark.parametrize("off", [-TOLERANCE - timedelta(seconds=1), TOLERANCE + timedelta(seconds=1), timedelta(days=3650)])
def test_a_time_too_old_or_in_the_future_is_refused_however_well_signed(off: timedelta) -> None:
    assert refused(BODY, signed(BODY, SECRET, at=NOW + off), SECRET) == "bad-time"


def test_whatever_another_secret_or_another_body_signed_is_refused() -> None:
    header = signed(BODY, SECRET)
    assert refused(BODY, header, OTHER) == "bad-signature"
    assert refused(BODY, header) == "bad-signature", "no secret, nothing to believe"
    assert refused(BODY.replace(b"1250", b"9250"), header, SECRET) == "bad-signature"
    assert refused(BODY + b" ", header, SECRET) == "bad-signature"
    assert refused(BODY, header.replace(f"t={int(NOW.timestamp())}", f"t={int(NOW.timestamp()) + 1}"), SECRET) == "bad-signature"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "signature-missing"),
        ("", "signature-missing"),
        ("nonsense", "bad-signature"),
        ("t=1,v1=", "bad-signature"),
        ("t=,v1=aa", "bad-signature"),
        ("t=-5,v1=aa", "bad-signature"),
        ("t=9999999999999999999999,v1=aa", "bad-signature"),
        ("t=²,v1=aa", "bad-signature"),
        ("v1=aa", "bad-signature"),
        ("t=1,v1=ä", "bad-signature"),
        ("t=1," + ",".join(["v1=aa"] * 5_000), "bad-signature"),
    ],
)
def test_a_header_that_is_none_is_refused(header: str | None, code: str) -> None:
    assert refused(BODY, header, SECRET) == code


def test_the_platform_has_a_secret_for_each_of_its_endpoints_and_two_while_one_changes_over() -> None:
    for given in (f"{SECRET} {OTHER}", f"{SECRET},{OTHER}", f"{SECRET}\n{OTHER}\n", f" {SECRET} , {OTHER}"):
        settings = Settings.model_construct(stripe_webhook_secret=SecretStr(given))
        assert [secret.get_secret_value() for secret in settings.stripe_webhook_secrets] == [SECRET, OTHER]
    assert Settings.model_construct(stripe_webhook_secret=None).stripe_webhook_secrets == ()


# --- What it says ---------------------------------------------------------------------------------------------------


def event(thing: Mapping[str, Any], **members: Any) -> bytes:
    return orjson.dumps(
        {
            "id": "evt_1",
            "object": "event",
            "type": "payment_intent.succeeded",
            "created": int(NOW.timestamp()),
            "livemode": False,
            "data": {"object": thing},
            **members,
        }
    )


INTENT = {
    "id": "pi_1",
    "object": "payment_intent",
    "status": "succeeded",
    "amount_received": 1250,
    "client_secret": "pi_1_secret_canary",
    "receipt_email": "canary@example.com",
    "metadata": {"tenant_id": str(TENANT), "payment_id": str(PAYMENT), "canary": "4242424242424242"},
}
REFUND = {"id": "re_1", "object": "refund", "status": "pending", "payment_intent": "pi_1", "metadata": None}
DISPUTE = {"id": "dp_1", "object": "dispute", "status": "lost", "payment_intent": {"id": "pi_1"}}


def test_of_an_event_only_that_is_kept_which_is_needed_to_look_again() -> None:
    notice = read_notice(event(INTENT))
    assert notice == Notice(
        id="evt_1",
        type="payment_intent.succeeded",
        subject=Subject.INTENT,
        object_id="pi_1",
        intent_id="pi_1",
        payment_id=PAYMENT,
        status=IntentStatus.CAPTURED,
        amount_minor=1250,
        livemode=False,
        account=None,
        occurred_at=NOW,
        tenant_id=TENANT,
    )
    assert not any(canary in repr(notice) for canary in ("secret", "4242", "example.com"))
    refund, dispute = read_notice(event(REFUND)), read_notice(event(DISPUTE, account="acct_1", livemode=True))
    assert (refund.subject, refund.object_id, refund.intent_id, refund.status) == (Subject.REFUND, "re_1", "pi_1", "pending")
    assert (dispute.subject, dispute.intent_id, dispute.status) == (Subject.DISPUTE, "pi_1", None)
    assert (dispute.account, dispute.livemode) == ("acct_1", True)
    assert read_notice(event({"id": "cus_1", "object": "customer"})).subject is Subject.OTHER
    assert read_notice(event({})).subject is Subject.OTHER
    assert read_notice(event({**INTENT, "status": "of tomorrow"})).status is None


@pytest.mark.parametrize("theirs", ["", "shop-7", "4242424242424242", "x" * 500, 7])
def test_what_another_program_of_the_account_writes_as_its_tenant_is_no_tenant_of_ours_and_no_fault(theirs: object) -> None:
    notice = read_notice(event({**INTENT, "metadata": {"tenant_id": theirs}}))
    assert notice.tenant_id == NIL
    assert refusal(notice, TENANT, livemode=False, account=None, on_behalf=False) == "an event about another tenant's object"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"{}",
        event(INTENT, id=7),
        event(INTENT, id="x" * 256),
        event(INTENT, id="e\0"),
        event(INTENT, created="yesterday"),
        event(INTENT, created=10**18),
        event({**INTENT, "id": "x" * 300}),
        event({**INTENT, "amount_received": "much"}),
        event({**INTENT, "metadata": [1]}),
        orjson.dumps({"id": "evt_1", "type": "x", "created": 1, "livemode": False, "data": {"object": [1]}}),
    ],
)
def test_what_is_signed_and_yet_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedError) as error:
        read_notice(body)
    assert error.value.code == "not-an-event"


@pytest.mark.parametrize(
    ("change", "platform", "reason"),
    [
        ({}, {}, None),
        ({"tenant_id": None}, {}, None),
        ({"tenant_id": uuid4()}, {}, "an event about another tenant's object"),
        ({"account": "acct_2"}, {}, "an event of another account"),
        ({"account": "acct_1"}, {"account": "acct_1", "on_behalf": True}, None),
        ({}, {"account": "acct_1", "on_behalf": True}, "an event of another account"),
        ({"account": "acct_2"}, {"account": "acct_1", "on_behalf": True}, "an event of another account"),
        ({}, {"account": "acct_1"}, None),
        ({"account": "acct_2"}, {"account": "acct_1"}, "an event of another account"),
        ({}, {"livemode": True}, "a test-mode event for a live account"),
        ({"livemode": True}, {}, "a live event for a test account"),
    ],
)
def test_an_event_that_is_not_for_this_tenant_and_mode_and_account_is_none_of_its_business(
    change: dict[str, Any], platform: dict[str, Any], reason: str | None
) -> None:
    notice = replace(read_notice(event(INTENT)), **change)
    account: dict[str, Any] = {"livemode": False, "account": None, "on_behalf": False, **platform}
    assert refusal(notice, TENANT, **account) == reason


# --- What it is worth -----------------------------------------------------------------------------------------------


def taken(status: str | None, amount_minor: int = 0) -> TakenNotice:
    return TakenNotice(
        tenant_id=TENANT,
        id="evt_1",
        subject=Subject.INTENT,
        object_id="pi_1",
        intent_id="pi_1",
        payment_id=PAYMENT,
        status=status,
        amount_minor=amount_minor,
        tries=1,
    )


def payment(state: PaymentState, captured_minor: int = 0) -> Payment:
    return Payment(tenant_id=TENANT, id=PAYMENT, checkout_id=uuid4(), created_at=NOW, state=state, captured_minor=captured_minor)


@pytest.mark.parametrize("state", PaymentState)
@pytest.mark.parametrize("status", [None, *IntentStatus])
def test_nothing_is_read_while_a_call_of_ours_is_about_to_tell_and_nothing_a_payment_lacks_is_passed_over(
    status: IntentStatus | None, state: PaymentState
) -> None:
    worth = worth_of_intent(taken(status), payment(state))
    if state in WORKING:
        assert worth in {Worth.NOTHING, Worth.LATER}
    if status is None and state not in WORKING:
        assert worth is Worth.READ, "a word that nobody knows here tells nothing"
    verdicts = {
        IntentStatus.AUTHORIZED: PaymentState.AUTHORIZED,
        IntentStatus.CAPTURED: PaymentState.CAPTURED,
        IntentStatus.CANCELED: PaymentState.VOIDED,
        IntentStatus.NEEDS_METHOD: PaymentState.DECLINED,
    }
    if status in verdicts and state in {PaymentState.UNKNOWN, PaymentState.REQUIRES_ACTION}:
        assert worth is Worth.READ
    if status in verdicts and state is verdicts[status]:
        assert worth is Worth.NOTHING or (status, state) == (IntentStatus.NEEDS_METHOD, PaymentState.AUTHORIZED)
    if status is IntentStatus.CAPTURED and state in OVER - {PaymentState.CAPTURED}:
        assert worth is Worth.READ, "money on a payment that is over is owed back"


def test_a_capture_that_took_more_than_is_known_is_news_and_one_that_did_not_is_none() -> None:
    authorized, captured = payment(PaymentState.AUTHORIZED, 500), payment(PaymentState.CAPTURED, 1250)
    assert worth_of_intent(taken(IntentStatus.AUTHORIZED, 500), authorized) is Worth.NOTHING
    assert worth_of_intent(taken(IntentStatus.AUTHORIZED, 900), authorized) is Worth.READ
    assert worth_of_intent(taken(IntentStatus.CAPTURED, 1250), captured) is Worth.NOTHING
    assert worth_of_intent(taken(IntentStatus.CAPTURED, 1251), captured) is Worth.READ


def test_a_refund_is_read_when_it_may_move_on_and_when_nobody_here_knows_it() -> None:
    known = Refund(
        tenant_id=TENANT,
        id=UUID(int=1),
        payment_id=PAYMENT,
        checkout_id=uuid4(),
        order_id=uuid4(),
        amount_minor=1,
        currency="GBP",
        reason="",
        asked_at=NOW,
        created_at=NOW,
        state=RefundState.SUCCEEDED,
    )
    assert worth_of_refund(taken(RefundStatus.PENDING), None) is Worth.READ
    assert worth_of_refund(taken(RefundStatus.PENDING), known) is Worth.NOTHING
    assert worth_of_refund(taken(RefundStatus.SUCCEEDED), known) is Worth.NOTHING
    assert worth_of_refund(taken(RefundStatus.FAILED), known) is Worth.READ, "a bank may return what it had accepted"
    assert worth_of_refund(taken(None), known) is Worth.READ


def test_what_cannot_be_settled_is_taken_up_ever_more_rarely_and_for_ever() -> None:
    waits = [wait_after(tries) for tries in range(1, 12)]
    assert waits == sorted(waits)
    assert waits[0] == WAITS[0]
    assert waits[-1] == WAITS[-1]
