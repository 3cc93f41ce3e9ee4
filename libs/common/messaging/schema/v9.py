"""The kernel's ninth step: what a tenant has set aside and not decided is found without reading what others have."""

from collections.abc import Sequence


def kernel_v9() -> Sequence[str]:
    """Expand only."""
    return [
        """CREATE INDEX inbox_parked_open ON inbox_parked (tenant_id, consumer, topic)
            WHERE state IN ('waiting', 'parked', 'queued')""",
    ]
