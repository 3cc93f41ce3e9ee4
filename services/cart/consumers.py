"""Kafka in: the topics this service listens to. Which event types it reacts to stands in `handlers.py`."""

TOPICS = ("catalog.v1", "checkout.v1", "order.v1", "tenant.v1")
