"""What a tenant has that nobody else may reach: itself, clients, parked messages. All of it says CANARY where it can."""

from typing import Any
from uuid import UUID, uuid4

from libs.common.auth import CLIENT, ROLES
from libs.common.clock import PLATFORM, new_id
from libs.common.messaging.shell import Shell
from services.identity.domain.client import client_id_of, digest_of
from services.identity.handlers import CreateClient, Granter, OnboardTenant
from services.identity.handlers.api_keys import CreateApiKey
from tests.shared.callers import message, onboard
from tests.shared.places import Place

CANARY = "canary"


async def parked(place: Place, tenant_id: UUID | None, **changes: Any) -> str:
    """A message that was parked; answers its id."""
    offset = uuid4().int % 2**40
    row = {"topic": "catalog.v1", "key": f"{tenant_id}:tea".encode(), "headers": b"[]", "payload": CANARY.encode()}
    row |= {"state": "rejected", "reason": "schema", "type": "product.published", **changes}
    admin = await place.as_admin()
    try:
        await admin.execute(
            """INSERT INTO inbox_parked (consumer, topic, part, off, key, headers, payload,
            state, reason, detail, tenant_id, type)
            VALUES ($1, $2, 0, $3, $4, $5, $6, $7, $8, $9, $10, $11)""",
            *(place.service, row["topic"], offset, row["key"], row["headers"], row["payload"]),
            *(row["state"], row["reason"], CANARY, tenant_id, row["type"]),
        )
    finally:
        await admin.close()
    return f"{row['topic']}:0:{offset}"


async def tenant_of(shell: Shell, service: str) -> UUID:
    if service != "identity":
        return await onboard(shell)
    tenant_id = uuid4()
    made = OnboardTenant(slug=f"t-{tenant_id.hex[:12]}", name=CANARY, currency="GBP", country="GB", admin_email="a@shop.test")
    await shell.execute(message(made, tenant_id))
    return tenant_id


async def client_of(shell: Shell, tenant_id: UUID, scopes: list[str]) -> tuple[str, UUID]:
    subject_id, secret_id = new_id(), new_id()
    client_id = client_id_of(tenant_id, subject_id)
    granter = Granter(tenant_id=PLATFORM, client_id="platform", grantable=tuple(ROLES[CLIENT]))
    made = CreateClient(
        client_id=client_id,
        subject_id=subject_id,
        name=CANARY,
        scopes=tuple(scopes),
        secret_id=secret_id,
        secret_digest=digest_of("s"),
        granter=granter,
    )
    await shell.execute(message(made, tenant_id))
    return client_id, secret_id


async def api_key_of(shell: Shell, tenant_id: UUID) -> UUID:
    key_id = new_id()
    granter = Granter(tenant_id=tenant_id, client_id="test", grantable=("carts:read",))
    made = CreateApiKey(
        key_id=key_id, name=CANARY, scopes=("carts:read",), digest=digest_of(CANARY), expires_at=None, granter=granter
    )
    await shell.execute(message(made, tenant_id))
    return key_id
