"""The payments service's tables. The tenant leads every key; the constraints say what the machine may never leave behind."""

from services.payments.tables.metadata import METADATA
from services.payments.tables.payments import OPERATION, PAYMENT, TENANT

__all__ = ["METADATA", "OPERATION", "PAYMENT", "TENANT"]
