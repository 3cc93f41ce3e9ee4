"""The account's balance: which transaction each move of money makes, and what Stripe keeps.

The fee of a charge is 1.5 % of what was captured, rounded half up, and 20 minor units; a dispute costs 1500, which
winning does not bring back; refunds are free, and keep the charge's fee.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from deploy.local.fake_stripe.cards import CARDS
from deploy.local.fake_stripe.currencies import exchanged
from deploy.local.fake_stripe.records import Change, Charge, Dispute, Refund, Settlement, Transaction

NewId = Callable[[str], str]

SETTLING_SECONDS = 2 * 24 * 3600
"""How long captured money is `pending` before it is `available`."""

DISPUTE_FEE = 1500
_PER_MILLE, _FIXED = 15, 20


def charge_fee(amount: int) -> int:
    """Return what Stripe keeps of a captured amount."""
    return (amount * _PER_MILLE + 500) // 1000 + _FIXED


def captured(charge: Charge, amount: int, *, now: int, new_id: NewId) -> Transaction:
    """Book what a capture brought."""
    return Transaction(
        id=new_id("txn"),
        amount=amount,
        fee=charge_fee(amount),
        currency=charge.currency,
        created=now,
        available_on=now if CARDS[charge.payment_method].available_at_once else now + SETTLING_SECONDS,
        type="charge",
        reporting_category="charge",
        source=charge.id,
    )


def refunded(refund: Refund, *, now: int, new_id: NewId) -> Transaction:
    """Book what a refund took."""
    return _at_once(refund.id, -refund.amount, 0, refund.currency, now, new_id, kind=("refund", "refund"))


def refund_returned(refund: Refund, *, now: int, new_id: NewId) -> Transaction:
    """Book what came back from a refund that failed or was canceled."""
    return _at_once(refund.id, refund.amount, 0, refund.currency, now, new_id, kind=("refund_failure", "refund_failure"))


def withdrawn(dispute: Dispute, *, now: int, new_id: NewId) -> Transaction:
    """Book what a dispute took, and its fee."""
    kind = ("adjustment", "dispute")
    return _at_once(dispute.id, -dispute.amount, DISPUTE_FEE, dispute.currency, now, new_id, kind=kind)


def reinstated(dispute: Dispute, *, now: int, new_id: NewId) -> Transaction:
    """Book what winning a dispute gave back."""
    return _at_once(dispute.id, dispute.amount, 0, dispute.currency, now, new_id, kind=("adjustment", "dispute_reversal"))


def settled(change: Change, settlement: Settlement | None) -> Change:
    """Bring what a change moved into the currency in which its account is settled, each movement once.

    What Stripe keeps is reckoned in that currency too. A currency without a rate is settled by itself.
    """
    if settlement is None or not change.transactions:
        return change
    return replace(change, transactions=tuple(_exchanged(each, settlement) for each in change.transactions))


def _exchanged(transaction: Transaction, settlement: Settlement) -> Transaction:
    rate = settlement.rates.get(transaction.currency)
    if rate is None or transaction.exchange_rate is not None or transaction.currency == settlement.currency:
        return transaction
    amount = exchanged(transaction.amount, transaction.currency, settlement.currency, rate)
    fee = charge_fee(amount) if transaction.type == "charge" else transaction.fee
    return replace(transaction, amount=amount, fee=fee, currency=settlement.currency, exchange_rate=rate)


def _at_once(source: str, amount: int, fee: int, currency: str, now: int, new_id: NewId, *, kind: tuple[str, str]) -> Transaction:
    return Transaction(
        id=new_id("txn"),
        amount=amount,
        fee=fee,
        currency=currency,
        created=now,
        available_on=now,
        type=kind[0],
        reporting_category=kind[1],
        source=source,
    )
