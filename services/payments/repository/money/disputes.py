"""Disputes."""

from libs.common.database import Rows
from services.payments import tables
from services.payments.domain.money.dispute import Dispute

DISPUTES = Rows(tables.DISPUTE, Dispute)
