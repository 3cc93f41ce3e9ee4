"""Stripe's endpoints: read the parameters, ask the machines, say what to answer. No HTTP and no clock in here."""
