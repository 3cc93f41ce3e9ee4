"""Step 12: the relay's timeline has a floor, for a database that was restored on the timeline that it had."""

from collections.abc import Sequence


def kernel_v12(service: str) -> Sequence[str]:
    """Expand only. A relay of the version before goes on with the server's own timeline."""
    del service
    return ["ALTER TABLE outbox_cursor ADD COLUMN timeline_floor bigint NOT NULL DEFAULT 0"]
