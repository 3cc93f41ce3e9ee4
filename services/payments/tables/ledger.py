"""The ledger: transfers between accounts. One row debits and credits the same amount, so no journal can be out of balance."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
)

from services.payments.tables.metadata import METADATA

LEDGER_ACCOUNT = Table(
    "ledger_account",
    METADATA,
    Column("tenant_id", Uuid, nullable=False),
    Column("currency", Text, nullable=False),
    Column("code", Text, nullable=False),
    PrimaryKeyConstraint("tenant_id", "currency", "code", name="ledger_account_pkey"),
    CheckConstraint("char_length(currency) = 3", name="ledger_account_currency"),
    CheckConstraint(
        "code IN ('provider_balance', 'sales', 'provider_fees', 'refunds', 'chargebacks', 'dispute_fees')",
        name="ledger_account_code",
    ),
)

LEDGER_ENTRY = Table(
    "ledger_entry",
    METADATA,
    Column("tenant_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("payment_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("debit", Text, nullable=False),
    Column("credit", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("posted_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("tenant_id", "id", name="ledger_entry_pkey"),
    ForeignKeyConstraint(["tenant_id", "payment_id"], ["payment.tenant_id", "payment.id"], name="ledger_entry_of_payment"),
    ForeignKeyConstraint(
        ["tenant_id", "currency", "debit"],
        ["ledger_account.tenant_id", "ledger_account.currency", "ledger_account.code"],
        name="ledger_entry_debits",
    ),
    ForeignKeyConstraint(
        ["tenant_id", "currency", "credit"],
        ["ledger_account.tenant_id", "ledger_account.currency", "ledger_account.code"],
        name="ledger_entry_credits",
    ),
    CheckConstraint("amount_minor > 0", name="ledger_entry_amount"),
    # What each kind moves, and between which accounts: anything else is no entry of ours.
    CheckConstraint(
        "kind = 'capture' AND debit = 'provider_balance' AND credit = 'sales'"
        " OR kind = 'fee' AND debit = 'provider_fees' AND credit = 'provider_balance'"
        " OR kind = 'fee_return' AND debit = 'provider_balance' AND credit = 'provider_fees'"
        " OR kind = 'refund' AND debit = 'refunds' AND credit = 'provider_balance'"
        " OR kind = 'refund_return' AND debit = 'provider_balance' AND credit = 'refunds'"
        " OR kind = 'chargeback' AND debit = 'chargebacks' AND credit = 'provider_balance'"
        " OR kind = 'chargeback_return' AND debit = 'provider_balance' AND credit = 'chargebacks'"
        " OR kind = 'dispute_fee' AND debit = 'dispute_fees' AND credit = 'provider_balance'"
        " OR kind = 'dispute_fee_return' AND debit = 'provider_balance' AND credit = 'dispute_fees'",
        name="ledger_entry_kind",
    ),
    Index("ledger_entry_posted", "tenant_id", "posted_at", "id"),
    Index("ledger_entry_by_payment", "tenant_id", "payment_id", "posted_at", "id"),
)
