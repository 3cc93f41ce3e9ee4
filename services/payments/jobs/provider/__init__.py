"""Calls to the provider that were planned, and the notices that come back from it."""
