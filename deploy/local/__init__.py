"""The embedded stack: Postgres, Kafka, the fake Stripe and the services as child processes on the loopback.

Start reading at `stack.py`; each part has a module of its own.
"""
