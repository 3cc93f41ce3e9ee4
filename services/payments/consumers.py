"""Kafka in: the topics this service listens to. Which event types it reacts to stands in `handlers.py`."""

TOPICS = ("checkout.v1", "order.v1", "tenant.v1")
