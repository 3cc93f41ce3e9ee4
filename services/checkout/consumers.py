"""Kafka in: the topics this service listens to. Which event types it reacts to stands in `handlers/`."""

TOPICS = ("cart.v1", "payment.v1", "inventory.v1", "fulfilment.v1", "tenant.v1")
