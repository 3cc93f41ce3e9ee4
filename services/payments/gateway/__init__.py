"""The payment provider: one Protocol in our words (`protocol.py`), and behind it Stripe, which nobody else knows.

Whose account a call goes to (`accounts.py`) and whether it may go now (`limits.py`) is decided here too. `stripe.py` alone
loads the SDK; what Stripe's JSON says stands in `reading.py` and `webhooks.py`.
"""
