"""Kafka in: the topics this service listens to. Which event types it reacts to stands in `handlers/`."""

TOPICS = ("checkout.v1", "order.v1", "fulfilment.v1", "tenant.v1")
