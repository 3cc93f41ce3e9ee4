"""The kernel's fourth step: the partitions of each topic, and an end for what was decided."""

from collections.abc import Sequence

KEEP_DECIDED = "30 days"
"""How long the outbox remembers an event that was parked, once somebody decided about it."""


def kernel_v4(service: str) -> Sequence[str]:
    """The kernel's fourth step: how many partitions each topic had at first, and an end for what was decided long ago."""
    relay = f"{service}_relay"
    return [
        """CREATE TABLE outbox_topic (
            topic text PRIMARY KEY,
            partition_count int NOT NULL CHECK (partition_count > 0),
            first_used_at timestamptz NOT NULL DEFAULT now()
        )""",
        f"GRANT SELECT, INSERT ON outbox_topic TO {relay}",
        f"""CREATE POLICY relay_forgets_decided ON outbox_parked AS RESTRICTIVE FOR DELETE TO {relay}
            USING (state IN ('replayed', 'discarded') AND decided_at < now() - interval '{KEEP_DECIDED}')""",
        f"GRANT DELETE ON outbox_parked TO {relay}",
    ]
