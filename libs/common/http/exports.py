"""All that a service keeps of one tenant, to be taken away: a row a line as JSON, and last what they come to.

Paths begin with the service's name, for the first segment after `/v1` belongs to one service. What proves who somebody is, and
what is sealed, stays here: whoever reads an export could do nothing with it but harm.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from fastapi import Response
from fastapi.responses import StreamingResponse
from sqlalchemy import LargeBinary, MetaData, Table

from libs.common.clock import PLATFORM, now, rfc3339
from libs.common.errors import ForeignError
from libs.common.http.routes import Call, Caller, Routes, guard

PAGE = 500
MEDIA_TYPE = "application/x-ndjson"
OPERATOR, OWNER = "tenants:manage", "exports:read"


@dataclass(frozen=True, slots=True)
class Part:
    """One table as it is taken away."""

    table: str
    keys: Sequence[str]
    """Its primary key, without the tenant."""
    withheld: Sequence[str]

    def statement(self, *, goes_on: bool) -> str:
        """One page, from where the last one ended: the keys of each row, and the row as JSON."""
        keys = ", ".join(self.keys)
        later = f"AND ({keys}) > ({', '.join(f'${number + 4}' for number in range(len(self.keys)))})" if goes_on else ""
        order = f"ORDER BY {keys} LIMIT $3" if self.keys else "LIMIT $3"
        row = f"(to_jsonb({self.table}) - $2::text[])::text"
        columns = ", ".join([*self.keys, f"{row} AS exported"])
        return f"SELECT {columns} FROM {self.table} WHERE tenant_id = $1 {later} {order}"  # noqa: S608 - our own names


def parts_of_export(metadata: MetaData, withheld: Mapping[str, Sequence[str]], left_out: Sequence[str]) -> list[Part]:
    """Every table of a service that has a tenant, but those left out; of each what may be seen."""
    return [
        Part(str(table.name), _keys(table), [*withheld.get(table.name, ()), *_binary(table)])
        for table in metadata.sorted_tables
        if "tenant_id" in table.c and table.name not in left_out
    ]


def export_routes(service: str, parts: Sequence[Part]) -> Routes:
    """The route of one service."""
    routes = Routes()

    async def export_tenant(call: Caller, tenant_id: UUID) -> Response:
        """All that this service keeps of a tenant, a row a line; the last counts them, and has the SHA-256 of those before."""
        demand_own(call, tenant_id)
        first = await _page(call, tenant_id, parts[0], None)  # before the answer begins, so that it may still be a refusal
        return StreamingResponse(_lines(call, service, tenant_id, parts, first), media_type=MEDIA_TYPE)

    path = f"/v1/{service}-exports/{{tenant_id}}"
    routes.get(path, response_class=Response)(guard(OPERATOR, instead=OWNER, sees=_own_of_path, costly=True)(export_tenant))
    return routes


def demand_own(call: Call, tenant_id: UUID) -> None:
    """The platform takes every tenant's, everybody else their own. Raises ForeignError."""
    if call.tenant_id not in {tenant_id, PLATFORM}:
        raise ForeignError("tenant-not-found", "there is no such tenant")


async def _own_of_path(call: Call) -> None:
    demand_own(call, UUID(call.request.path_params["tenant_id"]))


async def _lines(call: Call, service: str, tenant_id: UUID, parts: Sequence[Part], first: Sequence[Any]) -> AsyncIterator[bytes]:
    """A page at a time: no transaction is open while the reader takes its time."""
    digest, counts = hashlib.sha256(), dict.fromkeys((part.table for part in parts), 0)
    for part in parts:
        rows = first if part is parts[0] else await _page(call, tenant_id, part, None)
        while rows:
            counts[part.table] += len(rows)
            lines = b"".join(b'{"table":"%b","row":%b}\n' % (part.table.encode(), row["exported"].encode()) for row in rows)
            digest.update(lines)
            yield lines
            more = len(rows) == PAGE and part.keys
            rows = await _page(call, tenant_id, part, [rows[-1][key] for key in part.keys]) if more else ()
    told = {"service": service, "tenant_id": tenant_id, "at": rfc3339(now()), "counts": counts, "sha256": digest.hexdigest()}
    yield orjson.dumps({"manifest": told}) + b"\n"


async def _page(call: Call, tenant_id: UUID, part: Part, after: Sequence[Any] | None) -> Sequence[Any]:
    async with call.transaction(tenant_id) as connection:
        statement = part.statement(goes_on=after is not None)
        rows: Sequence[Any] = await connection.fetch(statement, tenant_id, part.withheld, PAGE, *(after or ()))
        return rows


def _keys(table: Table) -> list[str]:
    return [str(column.name) for column in table.primary_key.columns if column.name != "tenant_id"]


def _binary(table: Table) -> list[str]:
    """Nobody keeps bytes here that are not sealed, or a digest of what proves somebody."""
    return [str(column.name) for column in table.columns if isinstance(column.type, LargeBinary)]
