"""The kernel's eighth step: sources that are paused."""

from collections.abc import Sequence

from libs.common.clock import PLATFORM
from libs.common.messaging.schema.v5 import PLATFORM_IS_PRESENT
from libs.common.tenancy import TENANT_IS_PRESENT


def kernel_v8(service: str) -> Sequence[str]:
    """What one source has refused, counted by tenant; which sources are paused, and which stretch of each partition that is.

    Expand only. Processes of the version before park what they set aside without its source: it is not counted.
    """
    app = f"{service}_app"
    reached = f"({TENANT_IS_PRESENT} OR {PLATFORM_IS_PRESENT})"
    return [
        "ALTER TABLE inbox_parked ADD COLUMN source text",
        f"""CREATE INDEX inbox_parked_source ON inbox_parked (consumer, source, coalesce(tenant_id, '{PLATFORM}'::uuid), state)
            WHERE state IN ('rejected', 'waiting', 'parked', 'queued') AND source IS NOT NULL""",
        """CREATE TABLE inbox_source (
            consumer text NOT NULL,
            tenant_id uuid NOT NULL,
            source text NOT NULL,
            state text NOT NULL CONSTRAINT inbox_source_state_check CHECK (state IN ('paused', 'resuming', 'live')),
            reason text NOT NULL,
            paused_by text NOT NULL,
            paused_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT inbox_source_pkey PRIMARY KEY (tenant_id, consumer, source)
        )""",
        """CREATE TABLE inbox_source_range (
            consumer text NOT NULL,
            tenant_id uuid NOT NULL,
            source text NOT NULL,
            topic text NOT NULL,
            part int NOT NULL,
            first_off bigint NOT NULL,
            last_off bigint NOT NULL,
            records bigint NOT NULL,
            watermarks jsonb NOT NULL,
            CONSTRAINT inbox_source_range_pkey PRIMARY KEY (tenant_id, consumer, source, topic, part)
        )""",
        *(
            statement
            for table in ("inbox_source", "inbox_source_range")
            for statement in (
                f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
                f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
                f"CREATE POLICY tenant_or_platform ON {table} TO {app} USING ({reached}) WITH CHECK ({reached})",
                f"GRANT SELECT, INSERT, UPDATE ON {table} TO {app}",
            )
        ),
    ]
