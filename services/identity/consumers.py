"""Kafka in: the topics this service listens to. Which event types it reacts to stands in `handlers.py`."""

TOPICS = ("cart.v1", "checkout.v1", "payment.v1")
