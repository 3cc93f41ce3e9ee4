"""The machine that holds an amount and takes it: a payment and its attempts.

What it is (`payment.py`, `attempt.py`), what is asked of it (`asking.py`), what the provider is asked for it (`planning.py`),
and what comes of that (`recording.py`) or is seen besides (`observing.py`). It knows nothing of refunds, disputes and books.
"""
