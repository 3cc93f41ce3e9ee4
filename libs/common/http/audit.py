"""The audit trail over HTTP: a tenant reads its own, in each service; the platform's operators anybody's."""

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import asyncpg
from fastapi import Query, Response
from pydantic import AwareDatetime, BaseModel, Field

from libs.common.clock import PLATFORM, rfc3339
from libs.common.errors import RejectedError
from libs.common.http.members import Moment
from libs.common.http.paging import Limit, Page, Paging
from libs.common.http.routes import Call, Caller, Facing, Routes, guard

READ = "audit:read"

PAGE = """SELECT * FROM audit_entry WHERE tenant_id = $1 AND number < $2
    AND ($3::text IS NULL OR actor = $3) AND ($4::text IS NULL OR action = $4)
    AND ($5::text IS NULL OR object_kind = $5) AND ($6::text IS NULL OR object_id = $6)
    AND ($7::timestamptz IS NULL OR at >= $7) AND ($8::timestamptz IS NULL OR at < $8)
ORDER BY number DESC LIMIT $9"""
NEWEST = 2**63 - 1

Word = Annotated[str | None, Query(pattern=r"^[^\x00]{1,500}$")]


class AuditEntry(BaseModel):
    """One act: by whom, from where, on what. The digests of the thing's states tell that it changed, and not what it is."""

    number: Annotated[int, Field(description="Its place in the tenant's chain in this service, without gaps")]
    at: Moment
    actor: Annotated[str, Field(description="A subject; a service of its own accord; empty for a stranger")]
    client_id: str
    session_id: str
    address: Annotated[str, Field(description="The network of the request: /24, or /48 of IPv6")]
    request_id: str
    by_platform: Annotated[bool, Field(description="An operator of the platform did it")]
    action: str
    object_kind: str
    object_id: str
    reason: str
    before: Annotated[str | None, Field(description="HMAC-SHA-256 of its state before, under a key of the tenant's")]
    after: str | None
    previous: Annotated[str, Field(description="The digest of the entry before; zeros before the first")]
    digest: Annotated[str, Field(description="SHA-256 of this entry and `previous`")]


def audit_routes() -> Routes:
    """The routes of one service."""
    routes = Routes(Facing.CUSTOMERS)

    async def list_audit_entries(
        call: Caller,
        tenant_id: UUID | None = None,
        actor: Word = None,
        action: Word = None,
        object_kind: Word = None,
        object_id: Word = None,
        at_or_after: AwareDatetime | None = None,
        before: AwareDatetime | None = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Response:
        """What was done here to the tenant's things, newest first. `tenant_id` is the platform's to say."""
        asked = Paging(limit, cursor, int)
        whose, below = _whose(call, tenant_id), asked.after[0] if asked.after else NEWEST
        wanted = (actor, action, object_kind, object_id, at_or_after, before)
        async with call.transaction(whose) as connection:
            found: Sequence[asyncpg.Record] = await connection.fetch(PAGE, whose, below, *wanted, asked.most)
        return asked.reply(found, _model, lambda row: [row["number"]])

    routes.get("/v1/audit-entries", response_model=Page[AuditEntry])(guard(READ)(list_audit_entries))
    return routes


def _whose(call: Call, tenant_id: UUID | None) -> UUID:
    """The caller's own trail; the platform may name another's."""
    if tenant_id is not None and call.tenant_id != PLATFORM:
        raise RejectedError("tenant-id-not-allowed", "leave tenant_id out: it is the token that says it")
    return call.tenant_id if tenant_id is None else tenant_id


def _model(row: asyncpg.Record) -> AuditEntry:
    digests = {name: row[name].hex() for name in ("previous", "digest")}
    states = {name: row[f"state_{name}"] for name in ("before", "after")}
    plain = {name: row[name] for name in AuditEntry.model_fields if name not in {"at", *digests, *states}}
    hexed = {name: None if state is None else state.hex() for name, state in states.items()}
    return AuditEntry(at=rfc3339(row["at"]), **plain, **digests, **hexed)
