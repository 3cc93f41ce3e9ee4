"""What payments decides. Pure.

Four machines, each resting on those before it: `provider` (what is asked of the provider, and what it answers), `payment`
(an amount that is held and taken), `money` (the ledger, refunds and disputes) and `reconciliation` (our books beside the
provider's). What of them waits for a person, and what may be done about it, says `review`.
"""
