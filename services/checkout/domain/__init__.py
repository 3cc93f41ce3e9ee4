"""What checkout decides: the saga (`saga.py`), its quotes, its orders and their refunds, and stock. Pure."""

from services.checkout.domain import order, quote, refund, saga, stock

__all__ = ["order", "quote", "refund", "saga", "stock"]
