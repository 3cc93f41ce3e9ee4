"""The tenants that this service serves."""

from libs.common.contracts.checkout import TenantProvisioned
from libs.common.contracts.identity import TenantUpdated
from libs.common.decision import Message, Ref, World
from libs.common.tenancy import Tenant, project_tenant
from services.checkout.handlers.table import HANDLERS


@HANDLERS.on(TenantUpdated, lambda m: [Ref(Tenant, m.data.tenant_id)])
def update_tenant(world: World, message: Message[TenantUpdated]) -> None:
    """Know the tenant, and say so."""
    project_tenant(
        world,
        message,
        lambda tenant_id, version: TenantProvisioned(tenant_id=tenant_id, service="checkout", tenant_version=version),
        once_settled={"payments"},
    )
