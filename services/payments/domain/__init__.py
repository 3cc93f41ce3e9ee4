"""What payments decides. Pure.

A payment and its attempts (`payment.py`, `attempt.py`), what is asked of it (`asking.py`), what the provider is asked for it
(`planning.py`, `operation.py`, `outcome.py`), and what comes of that (`recording.py`) or is seen besides (`observing.py`).
"""
