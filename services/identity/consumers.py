"""Kafka in: the topics this service listens to. Which event types it reacts to stands in `handlers.py`."""

from services.identity.handlers import HANDLERS

TOPICS = tuple(dict.fromkeys(event.TOPIC for event in HANDLERS.events()))
"""Where the other services say that they can serve a tenant."""
