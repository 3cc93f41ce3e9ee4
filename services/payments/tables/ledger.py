"""The ledger: transfers between accounts. One row debits and credits the same amount, so no journal can be out of balance."""

from sqlalchemy import BigInteger, CheckConstraint, ForeignKeyConstraint, Index, PrimaryKeyConstraint, Table, Text, Uuid

from libs.common.database.tables import MOMENT, optional, required
from services.payments.tables.metadata import METADATA

LEDGER_ACCOUNT = Table(
    "ledger_account",
    METADATA,
    *required(Uuid, "tenant_id"),
    *required(Text, "currency", "code"),
    PrimaryKeyConstraint("tenant_id", "currency", "code", name="ledger_account_pkey"),
    CheckConstraint("char_length(currency) = 3", name="ledger_account_currency"),
    CheckConstraint(
        "code IN ('provider_balance', 'sales', 'provider_fees', 'refunds', 'chargebacks', 'dispute_fees', 'exchange')",
        name="ledger_account_code",
    ),
)

LEDGER_ENTRY = Table(
    "ledger_entry",
    METADATA,
    *required(Uuid, "tenant_id", "id", "payment_id"),
    *required(Text, "kind", "debit", "credit"),
    *required(BigInteger, "amount_minor"),
    *required(Text, "currency", "reference"),
    *optional(Text, "exchange_rate"),
    *required(MOMENT, "posted_at"),
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
        " OR kind = 'dispute_fee_return' AND debit = 'provider_balance' AND credit = 'dispute_fees'"
        " OR kind = 'exchange_out' AND debit = 'exchange' AND credit = 'provider_balance'"
        " OR kind = 'exchange_in' AND debit = 'provider_balance' AND credit = 'exchange'",
        name="ledger_entry_kind",
    ),
    # A decimal number in text: what the provider said, and nothing that was rounded on the way.
    CheckConstraint(
        "exchange_rate IS NULL OR kind IN ('exchange_out', 'exchange_in') AND exchange_rate ~ '^[0-9]+([.][0-9]+)?$'",
        name="ledger_entry_exchange",
    ),
    Index("ledger_entry_posted", "tenant_id", "posted_at", "id"),
    Index("ledger_entry_by_payment", "tenant_id", "payment_id", "posted_at", "id"),
)
