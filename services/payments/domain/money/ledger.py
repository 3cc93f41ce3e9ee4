"""The ledger: what happened to money, as transfers between accounts. Pure.

An entry debits one account and credits another with the same amount, so the books balance by construction. Its id is a
function of what it tells of, so that the same fact, heard of any number of times, is one entry. Nothing is ever changed:
what comes back is another entry, the other way round.

An entry is in one currency. Where the provider settles in another than the payment's, what it exchanged is a pair of
entries: out of its balance in the one, into it in the other. So the books balance in each currency by itself.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid5

from libs.common.decision import Aggregate
from services.payments.domain.payment.payment import Payment, Taken
from services.payments.domain.provider.outcome import Exchange


class Account(StrEnum):
    """Where money lies, or what became of it. Each tenant has each of them in each of its currencies."""

    PROVIDER_BALANCE = "provider_balance"
    """What the provider owes us: the one asset."""
    SALES = "sales"
    PROVIDER_FEES = "provider_fees"
    REFUNDS = "refunds"
    CHARGEBACKS = "chargebacks"
    DISPUTE_FEES = "dispute_fees"
    EXCHANGE = "exchange"
    """What was given in this currency for another, less what was got in it."""


class EntryKind(StrEnum):
    """What an entry tells of."""

    CAPTURE = "capture"
    FEE = "fee"
    FEE_RETURN = "fee_return"
    REFUND = "refund"
    REFUND_RETURN = "refund_return"
    CHARGEBACK = "chargeback"
    CHARGEBACK_RETURN = "chargeback_return"
    DISPUTE_FEE = "dispute_fee"
    DISPUTE_FEE_RETURN = "dispute_fee_return"
    EXCHANGE_OUT = "exchange_out"
    EXCHANGE_IN = "exchange_in"


K, A = EntryKind, Account
TRANSFERS: dict[EntryKind, tuple[Account, Account]] = {
    K.CAPTURE: (A.PROVIDER_BALANCE, A.SALES),
    K.FEE: (A.PROVIDER_FEES, A.PROVIDER_BALANCE),
    K.FEE_RETURN: (A.PROVIDER_BALANCE, A.PROVIDER_FEES),
    K.REFUND: (A.REFUNDS, A.PROVIDER_BALANCE),
    K.REFUND_RETURN: (A.PROVIDER_BALANCE, A.REFUNDS),
    K.CHARGEBACK: (A.CHARGEBACKS, A.PROVIDER_BALANCE),
    K.CHARGEBACK_RETURN: (A.PROVIDER_BALANCE, A.CHARGEBACKS),
    K.DISPUTE_FEE: (A.DISPUTE_FEES, A.PROVIDER_BALANCE),
    K.DISPUTE_FEE_RETURN: (A.PROVIDER_BALANCE, A.DISPUTE_FEES),
    K.EXCHANGE_OUT: (A.EXCHANGE, A.PROVIDER_BALANCE),
    K.EXCHANGE_IN: (A.PROVIDER_BALANCE, A.EXCHANGE),
}
"""What each kind debits, and what it credits."""

CREDITED = frozenset({Account.SALES})
"""Accounts whose balance is what was credited beyond what was debited; that of the others is the reverse."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry(Aggregate):
    """So much from one account to another. Made once, and never changed."""

    id: UUID
    payment_id: UUID
    kind: EntryKind
    debit: Account
    credit: Account
    amount_minor: int
    currency: str
    reference: str
    """What the provider calls the movement or its object."""
    exchange_rate: str | None = None
    """Of an exchange: at what the provider exchanged, a decimal number in text, as far as it told."""
    posted_at: datetime | None = None
    """Told when it is posted."""


def of_capture(payment: Payment, taken: Taken | None) -> tuple[Entry, ...]:
    """Money that has just become ours, and what the provider kept of it; `payment` is as it stands afterwards."""
    if taken is None:
        return ()
    return (
        *captured(payment, taken.amount_minor, taken.reference),
        *exchanged(payment, taken.amount_minor, taken.exchange, comes=True),
        *fee(payment, taken.fee_minor or 0, taken.reference, taken.exchange.currency if taken.exchange else None),
    )


def captured(payment: Payment, amount_minor: int, provider_ref: str) -> tuple[Entry, ...]:
    """The money that a capture has just taken; `payment` is as it stands afterwards, so each of several is another."""
    return transfer(payment, K.CAPTURE, uuid5(payment.id, f"capture:{payment.captured_minor}"), amount_minor, provider_ref)


def fee(payment: Payment, amount_minor: int, provider_ref: str, currency: str | None = None) -> tuple[Entry, ...]:
    """What the provider kept for itself in one movement of its balance, `provider_ref`; below zero, what it gave back."""
    kind = K.FEE if amount_minor >= 0 else K.FEE_RETURN
    return transfer(payment, kind, uuid5(payment.id, f"fee:{provider_ref}"), abs(amount_minor), provider_ref, currency)


def exchanged(payment: Payment, amount_minor: int, exchange: Exchange | None, *, comes: bool) -> tuple[Entry, ...]:
    """What the provider made of so much of the payment's money, in its account's currency, when it came or went."""
    if exchange is None or amount_minor == 0:
        return ()
    first, second = (K.EXCHANGE_OUT, K.EXCHANGE_IN) if comes else (K.EXCHANGE_IN, K.EXCHANGE_OUT)
    legs = ((first, amount_minor, payment.currency), (second, exchange.amount_minor, exchange.currency))
    return tuple(
        replace(entry, exchange_rate=exchange.rate)
        for kind, minor, currency in legs
        for entry in transfer(
            payment,
            kind,
            uuid5(payment.id, f"exchange:{exchange.reference}:{currency.upper()}"),
            minor,
            exchange.reference,
            currency,
        )
    )


def transfer(
    payment: Payment, kind: EntryKind, identity: UUID, amount_minor: int, provider_ref: str, currency: str | None = None
) -> tuple[Entry, ...]:
    """One entry about a payment, in its currency unless another is said, or none of nothing.

    `identity` is a function of the fact that it tells of.
    """
    if amount_minor == 0:
        return ()
    debit, credit = TRANSFERS[kind]
    entry = Entry(
        tenant_id=payment.tenant_id,
        id=identity,
        payment_id=payment.id,
        kind=kind,
        debit=debit,
        credit=credit,
        amount_minor=amount_minor,
        currency=(currency or payment.currency).upper(),
        reference=provider_ref,
    )
    return (entry,)
