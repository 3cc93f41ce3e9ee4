"""What payments decides. Pure.

The machine (`payment.py`), its calls to the provider (`operation.py`, `outcome.py`), and what comes of them (`recording.py`).
"""
