"""The tenants' own provider accounts."""

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from libs.common.database import Connection, Rows
from libs.common.messaging.shell import Shell
from libs.common.standings import elsewhere
from services.payments import tables
from services.payments.domain.provider.account import STRIPE, ProviderAccount, TenantAccount
from services.payments.repository.payment import TENANTS

ACCOUNTS = Rows(tables.PROVIDER_ACCOUNT, ProviderAccount)

OPEN_CREATE = "SELECT EXISTS (SELECT FROM operation WHERE tenant_id = $1 AND kind = 'create' AND due_at IS NOT NULL)"

NEWEST_INTENT = """SELECT intent_id FROM payment WHERE tenant_id = $1 AND intent_id IS NOT NULL
ORDER BY created_at DESC LIMIT 1"""
WRAPPED_OTHERWISE = "SELECT tenant_id FROM provider_accounts_wrapped_otherwise($1, $2, $3)"


def loading(shell_of: Callable[[UUID], Shell]) -> Callable[[UUID], Awaitable[TenantAccount | None]]:
    """How a gateway learns of a tenant's account and limits, from that tenant's database."""

    async def load(tenant_id: UUID) -> TenantAccount | None:
        shell = shell_of(tenant_id)
        async with shell.database.transaction([tenant_id]) as connection:
            return await tenant_account(connection, tenant_id, shell.cell)

    return load


async def tenant_account(connection: Connection, tenant_id: UUID, cell: str | None) -> TenantAccount | None:
    """A tenant's account and settings; None when there is no such tenant.

    Raises ElsewhereError for a tenant of another cell: it went, and its account with it, and the platform's is not its own.
    """
    tenants = await TENANTS.load(connection, [(tenant_id, tenant_id)], lock=False)
    if not tenants:
        return None
    if cell is not None and tenants[0].cell != cell:
        raise elsewhere(tenants[0].cell)
    accounts = await ACCOUNTS.load(connection, [(tenant_id, STRIPE)], lock=False)
    return TenantAccount(accounts[0] if accounts else None, tenants[0].settings)


async def newest_intent(connection: Connection, tenant_id: UUID) -> str | None:
    """The provider's name for the newest payment of this tenant that reached it."""
    intent_id: str | None = await connection.fetchval(NEWEST_INTENT, tenant_id)
    return intent_id


async def makes_payment(connection: Connection, tenant_id: UUID) -> bool:
    """Whether a payment of this tenant is being made at the provider, or it is not known what came of that."""
    is_open: bool = await connection.fetchval(OPEN_CREATE, tenant_id)
    return is_open


async def wrapped_otherwise(connection: Connection, master_key_id: str, after: UUID, how_many: int) -> Sequence[UUID]:
    """Tenants, in their order, with an account whose data key another master key wraps."""
    return [row["tenant_id"] for row in await connection.fetch(WRAPPED_OTHERWISE, master_key_id, after, how_many)]
