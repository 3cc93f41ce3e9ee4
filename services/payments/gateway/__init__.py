"""The payment provider: one Protocol in our words (`protocol.py`), and Stripe behind it (`stripe.py`), which alone knows it."""
