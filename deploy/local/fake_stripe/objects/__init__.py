"""Stripe's JSON for what the fake knows, in the shape of API version 2026-10-28.endive."""
