"""What checkout decides: the saga (`saga.py`), its quotes, its orders and their refunds, stock, and who waits for it. Pure."""

from services.checkout.domain import drop, order, quote, refund, saga, stock

__all__ = ["drop", "order", "quote", "refund", "saga", "stock"]
