"""A fake Stripe with a memory: the payment part of the local stack, and a tool other teams may use (see README.md)."""
