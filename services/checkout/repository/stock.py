"""Stock."""

from libs.common.database import Rows
from services.checkout import tables
from services.checkout.domain.stock import Stock

STOCK = Rows(tables.STOCK, Stock)
