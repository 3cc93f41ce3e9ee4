"""Disputes."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, select

from libs.common.database import Connection, Rows, Statement
from services.payments import tables
from services.payments.domain.money.dispute import Dispute

DISPUTES = Rows(tables.DISPUTE, Dispute)


@cache
def _disputes_where(*columns: str) -> Statement:
    """One statement for each combination of filters."""
    table = tables.DISPUTE
    query = select(table).where(table.c.tenant_id == bindparam("tenant_id"), table.c.id > bindparam("after"))
    for column in columns:
        query = query.where(table.c[column] == bindparam(f"the_{column}"))
    return Statement(query.order_by(table.c.id).limit(bindparam("limit")))


async def disputes(
    connection: Connection, tenant_id: UUID, filters: Mapping[str, Any], *, after: UUID, limit: int
) -> Sequence[Dispute]:
    """One page of a tenant's disputes by id, of those whose columns are as the filters say."""
    statement = _disputes_where(*sorted(filters))
    values = {f"the_{column}": value for column, value in filters.items()}
    rows = await statement.fetch(connection, tenant_id=tenant_id, after=after, limit=limit, **values)
    return [DISPUTES.decode(row) for row in rows]
