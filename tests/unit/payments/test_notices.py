"""What becomes of a notice, by what its object came to when it was read."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from libs.common.messaging.shell import Failure
from services.payments.domain.provider.ladder import WAITS
from services.payments.domain.provider.outcome import (
    Declined,
    DisputeStatus,
    IntentStatus,
    RefundStatus,
    Rejected,
    SeenDispute,
    SeenRefund,
    Succeeded,
    Throttled,
    Unknown,
)
from services.payments.domain.provider.webhook import Result, Subject, TakenNotice
from services.payments.handlers.disputes import ObserveDispute
from services.payments.handlers.observations import ObserveIntent
from services.payments.handlers.refunds import ObserveRefund
from services.payments.jobs.provider.webhooks import _observation, _settled
from tests.unit.payments.books import PAYMENT, START, TENANT

NOTICE = TakenNotice(
    tenant_id=TENANT,
    id="evt_1",
    subject=Subject.INTENT,
    object_id="pi_1",
    intent_id="pi_1",
    payment_id=PAYMENT,
    status="succeeded",
    amount_minor=5,
    tries=2,
)
SEEN = Succeeded("pi_1", IntentStatus.CAPTURED, 5, "gbp", 0, 5)
REFUND = SeenRefund("re_1", "pi_1", "ch_1", 5, "gbp", RefundStatus.SUCCEEDED, None, {}, START)
DISPUTE = SeenDispute("dp_1", "pi_1", "ch_1", 5, "gbp", DisputeStatus.LOST, "fraudulent", None, 5, 0, 0, START)
DECLINED = Declined("card_declined", "pi_1")


@pytest.mark.parametrize(
    ("seen", "result", "wait"),
    [
        *((seen, Result.OBSERVED, timedelta(0)) for seen in (SEEN, REFUND, DISPUTE, DECLINED)),
        (Rejected("not-found", ""), Result.GONE, timedelta(0)),
        (Rejected("other", ""), None, WAITS[1]),
        (Unknown("timeout"), None, WAITS[1]),
        (Throttled(None), None, WAITS[1]),
        (Throttled(1.0), None, WAITS[1]),
        (Throttled(999.0), None, timedelta(seconds=999)),
    ],
)
def test_what_was_read_settles_it_and_what_could_not_be_is_due_again_later(seen: Any, result: Any, wait: timedelta) -> None:
    settled = _settled(NOTICE, seen, None)
    assert (settled.notice, settled.result, settled.wait) == (NOTICE, result, wait)


def test_what_nobody_was_let_ask_for_is_not_due_ever_later() -> None:
    waits = {_settled(replace(NOTICE, tries=tries), Throttled(1.0), None).wait for tries in (1, 2, 9)}
    assert waits == {WAITS[1]}, "an outage of an hour does not hide news for six"


def test_what_was_read_and_could_not_be_taken_in_is_due_again_each_time_later() -> None:
    failure = Failure(ValueError("no"))
    waits = [_settled(replace(NOTICE, tries=tries), SEEN, failure) for tries in (1, 2, 9)]
    assert [(each.result, each.wait) for each in waits] == [(None, WAITS[0]), (None, WAITS[1]), (None, WAITS[-1])]


def test_each_object_is_observed_by_its_own_machine_and_what_was_not_read_by_none() -> None:
    kinds = [type(_observation(PAYMENT, seen)) for seen in (SEEN, DECLINED, REFUND, DISPUTE)]
    assert kinds == [ObserveIntent, ObserveIntent, ObserveRefund, ObserveDispute]
    observed = _observation(PAYMENT, REFUND)
    assert observed is not None
    assert (observed.payment_id, observed.seen) == (PAYMENT, REFUND)
    assert [_observation(UUID(int=1), seen) for seen in (Rejected("x", ""), Unknown("x"), Throttled(None))] == [None] * 3
