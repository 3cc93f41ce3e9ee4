"""Refunds that nothing was heard of, and money that belongs to no order."""
