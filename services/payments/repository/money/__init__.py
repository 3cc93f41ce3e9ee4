"""SQL of the ledger, of refunds and of disputes."""
