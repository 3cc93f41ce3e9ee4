"""The kernel's fifth step: parked messages belong to their tenants."""

from collections.abc import Sequence

from libs.common.clock import PLATFORM
from libs.common.tenancy import SETTING, TENANT_IS_PRESENT

PLATFORM_IS_PRESENT = (
    f"'{PLATFORM}'::uuid = ANY ((SELECT string_to_array(nullif(current_setting('{SETTING}', true), ''), ','))::uuid[])"
)


def kernel_v5(service: str) -> Sequence[str]:
    """Row-level security for what the inbox parked.

    A transaction reaches its tenants' own. What names no tenant that can be believed may be set aside by any, and is
    reached by the platform's alone, as everybody's is: no request of a tenant's runs in one.
    """
    app = f"{service}_app"
    reached = f"({TENANT_IS_PRESENT} OR {PLATFORM_IS_PRESENT})"
    return [
        "ALTER TABLE inbox_parked ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE inbox_parked FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY tenant_or_platform_reads ON inbox_parked FOR SELECT TO {app} USING ({reached})",
        f"CREATE POLICY tenant_or_platform_decides ON inbox_parked FOR UPDATE TO {app} USING ({reached}) WITH CHECK ({reached})",
        f"""CREATE POLICY tenant_or_nobody_is_set_aside ON inbox_parked FOR INSERT TO {app}
            WITH CHECK (tenant_id IS NULL OR {TENANT_IS_PRESENT})""",
        "CREATE INDEX inbox_parked_tenant ON inbox_parked (tenant_id, consumer, topic, part, off)",
    ]
