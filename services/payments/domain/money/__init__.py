"""What becomes of money once it was taken: the ledger that tells of it, and refunds and disputes, which take it away again."""
