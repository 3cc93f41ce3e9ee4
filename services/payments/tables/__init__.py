"""The payments service's tables. The tenant leads every key; the constraints say what the machine may never leave behind."""

from services.payments.tables.accounts import PROVIDER_ACCOUNT
from services.payments.tables.connections import ACCOUNT_CONNECTION
from services.payments.tables.disputes import DISPUTE
from services.payments.tables.holdings import HOLDINGS
from services.payments.tables.ledger import LEDGER_ACCOUNT, LEDGER_ENTRY
from services.payments.tables.metadata import METADATA
from services.payments.tables.payments import ATTEMPT, OPERATION, ORDER_PAYMENT, PAYMENT, TENANT
from services.payments.tables.reconciliation import BREAK, RECONCILIATION
from services.payments.tables.refunds import REFUND
from services.payments.tables.webhooks import WEBHOOK_EVENT

__all__ = [
    "ACCOUNT_CONNECTION",
    "ATTEMPT",
    "BREAK",
    "DISPUTE",
    "HOLDINGS",
    "LEDGER_ACCOUNT",
    "LEDGER_ENTRY",
    "METADATA",
    "OPERATION",
    "ORDER_PAYMENT",
    "PAYMENT",
    "PROVIDER_ACCOUNT",
    "RECONCILIATION",
    "REFUND",
    "TENANT",
    "WEBHOOK_EVENT",
]
