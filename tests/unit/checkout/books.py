"""What must always be so of the books of stock."""

from services.checkout.domain.stock import Stock


def assert_kept(stock: Stock) -> None:
    """The books balance, in all and at each location, and nothing is below zero."""
    levels = stock.levels.values()
    assert stock.adjusted == stock.on_hand + stock.reserved + stock.sold
    assert stock.on_hand == sum(level.on_hand for level in levels)
    assert stock.reserved == sum(level.reserved for level in levels)
    assert stock.sold == sum(level.sold for level in levels)
    assert all(min(level.on_hand, level.reserved, level.sold) >= 0 for level in levels)
    assert min(stock.promised, stock.owed) >= 0
    assert not (stock.owed and stock.on_hand), "what is on hand is owed to nobody"
