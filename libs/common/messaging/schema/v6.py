"""The kernel's sixth step: messages that wait, and sources that are paused."""

from collections.abc import Sequence


def kernel_v6(service: str) -> Sequence[str]:
    """The kernel's sixth step: messages that wait for what they refer to, whose they are, and sources that are paused.

    Expand only: processes of the version before neither write the new state nor need to know it. They see a waiting
    message's followers, which are queued, and leave the key alone.
    """
    app = f"{service}_app"
    return [
        """ALTER TABLE inbox_parked
            ADD COLUMN source text,
            DROP CONSTRAINT inbox_parked_state_check,
            ADD CONSTRAINT inbox_parked_state_check
                CHECK (state IN ('rejected', 'waiting', 'parked', 'queued', 'replayed', 'discarded'))""",
        "DROP INDEX inbox_parked_key",
        "CREATE INDEX inbox_parked_key ON inbox_parked (consumer, topic, key) WHERE state IN ('waiting', 'parked', 'queued')",
        "CREATE INDEX inbox_parked_waiting ON inbox_parked (consumer, tenant_id, topic, part, off) WHERE state = 'waiting'",
        """CREATE INDEX inbox_parked_open ON inbox_parked (consumer, tenant_id, source)
            WHERE state IN ('rejected', 'waiting', 'parked', 'queued')""",
        """CREATE TABLE inbox_source (
            consumer text NOT NULL,
            tenant_id uuid NOT NULL,
            source text NOT NULL,
            state text NOT NULL CHECK (state IN ('paused', 'resuming', 'open')),
            since timestamptz NOT NULL DEFAULT now(),
            reason text NOT NULL,
            decided_by text NOT NULL,
            skipped_count bigint NOT NULL DEFAULT 0,
            missed_count bigint NOT NULL DEFAULT 0,
            offsets jsonb NOT NULL DEFAULT '{}',
            CONSTRAINT inbox_source_pkey PRIMARY KEY (consumer, tenant_id, source)
        )""",
        f"GRANT SELECT, INSERT, UPDATE ON inbox_source TO {app}",
    ]
