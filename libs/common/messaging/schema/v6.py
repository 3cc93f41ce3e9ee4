"""The kernel's sixth step: messages that wait."""

from collections.abc import Sequence


def kernel_v6() -> Sequence[str]:
    """The kernel's sixth step: messages that wait for what they refer to.

    Expand only. Processes of the version before know nothing of the new state, and leave alone what is queued behind it.
    """
    return [
        """ALTER TABLE inbox_parked
            DROP CONSTRAINT inbox_parked_state_check,
            ADD CONSTRAINT inbox_parked_state_check
                CHECK (state IN ('rejected', 'waiting', 'parked', 'queued', 'replayed', 'discarded'))""",
        "DROP INDEX inbox_parked_key",
        "CREATE INDEX inbox_parked_key ON inbox_parked (consumer, topic, key) WHERE state IN ('waiting', 'parked', 'queued')",
        "CREATE INDEX inbox_parked_waiting ON inbox_parked (consumer, tenant_id, topic, part, off) WHERE state = 'waiting'",
    ]
