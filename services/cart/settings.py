"""What the cart service reads from its environment."""

from libs.common.settings import Settings as Settings  # noqa: PLC0414 - the service has no setting of its own
