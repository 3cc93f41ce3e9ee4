"""Tenants: what every service knows of one, and the row-level security that is the second lock on its data.

Each transaction names its tenants in a setting that ends with it; the policy compares with that. No setting, no rows.
The policy's expression is STABLE and evaluated once a statement (a volatile one cost 500 times as much).
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from uuid import UUID

from libs.common.cells import MAIN
from libs.common.contracts import Event
from libs.common.contracts.identity import TenantUpdated
from libs.common.decision import Aggregate, Message, Ref, World
from libs.common.standings import ERASED, ERASING

SETTING = "cartwright.tenant_ids"
ELSEWHERE = "elsewhere"
"""How one of another cell stands in a service of this one."""
SETTLING, SETTLED = "settling", "settled"
"""How one stands in a service that is not to erase it yet: something may be under way, or it has said that nothing is."""

TENANT_IS_PRESENT = f"tenant_id = ANY ((SELECT string_to_array(nullif(current_setting('{SETTING}', true), ''), ','))::uuid[])"
"""After a transaction the setting reads as an empty string, not as NULL: hence the nullif."""


def named(tenant_ids: Iterable[UUID]) -> str:
    """These tenants, as the setting has them."""
    return ",".join(sorted({str(tenant_id) for tenant_id in tenant_ids}))


def begin(tenant_ids: Iterable[UUID]) -> str:
    """Open a transaction for these tenants, in one message to the server. A UUID cannot smuggle SQL."""
    return f"BEGIN; SET LOCAL {SETTING} = '{named(tenant_ids)}'"


def protect(table: str, app_role: str, *, privileges: str = "SELECT, INSERT, UPDATE, DELETE") -> Sequence[str]:
    """The statements that put one tenant table under forced row-level security, for its migration."""
    return (
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY tenant_is_present ON {table} TO {app_role} USING ({TENANT_IS_PRESENT}) WITH CHECK ({TENANT_IS_PRESENT})",
        f"GRANT {privileges} ON {table} TO {app_role}",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Tenant(Aggregate):
    """A tenant as a service other than identity knows it, from `tenant.v1`."""

    KEY: ClassVar[str] = "tenant_id"
    slug: str
    status: str
    currency: str
    country: str
    settings: dict[str, Any] = field(default_factory=dict)
    tenant_version: int
    cell: str = MAIN
    """Where it is served, as this database has it: from elsewhere nothing is decided here. Only a move changes it."""


def tenant_ref(message: Message[Any]) -> Ref:
    """The message's own tenant, to look at."""
    return Ref(Tenant, message.tenant_id, shared=True)


def project_tenant(
    world: World,
    message: Message[TenantUpdated],
    provisioned: Callable[[UUID, int], Event],
    *,
    erased_after: Collection[str] = (),
    once_settled: Collection[str] = (),
) -> None:
    """Keep the newest state of a tenant, and say that this service can serve it; of one of another cell keep that it is there.

    One that is being erased is so here once some services have nothing of it any more, and nothing is under way in some: until
    then they may still ask something of this one, which meanwhile is settling it. Of one that is erased nothing is kept: where
    something is, this database was restored to before that, and it goes again.
    """
    update = message.data
    known = world.get(Tenant, update.tenant_id)
    if (known.cell if known else update.cell) != world.cell:
        if known is None:
            world.save(_elsewhere(update))
        return
    if known is not None and known.tenant_version >= update.version:
        return
    if update.cell != world.cell:
        # It moved away, and this database was restored to before that: two that serve it would be one too many.
        world.save(_elsewhere(update, known))
        return
    if update.status == ERASED:
        if known is not None:
            again = replace(known, status=ERASING, tenant_version=update.version)
            world.save(again, provisioned(update.tenant_id, update.version))
        return
    is_its_turn = {*erased_after} <= {*update.erased_by} and {*once_settled} <= {*update.settled_by}
    facts: dict[str, Any] = {
        "slug": update.slug,
        "status": SETTLING if update.status == ERASING and not is_its_turn else update.status,
        "currency": update.currency,
        "country": update.country,
        "settings": update.settings,
        "tenant_version": update.version,
    }
    tenant = replace(known, **facts) if known else Tenant(tenant_id=update.tenant_id, cell=update.cell, **facts)
    world.save(tenant, provisioned(update.tenant_id, update.version))


def _elsewhere(update: TenantUpdated, known: Tenant | None = None) -> Tenant:
    """What is kept of a tenant that another cell serves: where it is, and nothing else."""
    nothing: dict[str, Any] = {"slug": "", "status": ELSEWHERE, "currency": "", "country": "", "settings": {}}
    facts: dict[str, Any] = {**nothing, "tenant_version": update.version, "cell": update.cell}
    return replace(known, **facts) if known else Tenant(tenant_id=update.tenant_id, **facts)
