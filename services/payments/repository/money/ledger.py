"""The ledger: entries are added, accounts opened by their first entry, and nothing is ever changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any
from uuid import UUID

from sqlalchemy import and_, bindparam, or_, select

from libs.common.database import Connection, Rows, Select, Statement, Write
from services.payments import tables
from services.payments.domain.money.ledger import CREDITED, Account, Entry
from services.payments.repository.bookmark import Bookmark

OPEN = """INSERT INTO ledger_account (tenant_id, currency, code)
SELECT n.tenant_id, n.currency, n.code FROM unnest($1::uuid[], $2::text[], $3::text[]) AS n(tenant_id, currency, code)
WHERE NOT EXISTS (SELECT FROM ledger_account a
    WHERE a.tenant_id = n.tenant_id AND a.currency = n.currency AND a.code = n.code)
ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING"""


class _Entries(Rows[Entry]):
    """Rows that are only ever added, so they have no version. The app's role may not change one, nor lock one."""

    LEFT_OUT = frozenset({"version", "sequence"})

    @cached_property
    def _post(self) -> str:
        arrays = ", ".join(f"${index}::{self._type(name)}[]" for index, name in enumerate(self._names, 1))
        return (
            f"INSERT INTO ledger_entry ({self._quoted}) SELECT {self._quoted} FROM unnest({arrays}) AS v({self._quoted}) "  # noqa: S608 - our own names
            "ORDER BY tenant_id, id ON CONFLICT (tenant_id, id) DO NOTHING"
        )

    def changes(self, states: Sequence[tuple[Entry, int]]) -> list[Write]:
        """What adds those that are not there, and the accounts that they need, in one order for all who do the same."""
        entries = [entry for entry, _ in states]
        accounts = sorted({(entry.tenant_id, entry.currency, code) for entry in entries for code in (entry.debit, entry.credit)})
        return [
            Write(OPEN, [*zip(*accounts, strict=True)]),
            Write(self._post, [*zip(*map(self._encoded, entries), strict=True)]),
        ]

    def wanted(self, places: Sequence[tuple[UUID, Any]], *, lock: bool) -> Select:  # noqa: ARG002
        """What looks up the stored ones among the wanted. What never changes needs no lock."""
        return super().wanted(places, lock=False)


ENTRIES = _Entries(tables.LEDGER_ENTRY, Entry)


@cache
def _entries_where(*names: str) -> Statement:
    """One statement for each combination of filters."""
    table = tables.LEDGER_ENTRY
    conditions = {
        "payment_id": table.c.payment_id == bindparam("payment_id"),
        "kind": table.c.kind == bindparam("kind"),
        "posted_after": table.c.posted_at >= bindparam("posted_after"),
        "posted_before": table.c.posted_at < bindparam("posted_before"),
    }
    later = or_(
        table.c.posted_at > bindparam("after_at"),
        and_(table.c.posted_at == bindparam("after_at"), table.c.id > bindparam("after_id")),
    )
    query = select(table).where(
        table.c.tenant_id == bindparam("tenant_id"),
        table.c.posted_at >= bindparam("after_at"),  # what the index can begin at; the next line alone would not let it
        later,
        *(conditions[name] for name in names),
    )
    return Statement(query.order_by(table.c.posted_at, table.c.id).limit(bindparam("limit")))


async def entries(
    connection: Connection, tenant_id: UUID, filters: Mapping[str, Any], *, after: Bookmark, limit: int
) -> Sequence[Entry]:
    """One page of a tenant's entries, in the order of posting."""
    statement = _entries_where(*sorted(filters))
    rows = await statement.fetch(
        connection, tenant_id=tenant_id, after_at=after.moment, after_id=after.id, limit=limit, **filters
    )
    return [ENTRIES.decode(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Balance:
    """What was debited to and credited to one account in one currency."""

    code: Account
    currency: str
    debited_minor: int
    credited_minor: int

    @property
    def balance_minor(self) -> int:
        """What is in it, seen from its own side."""
        beyond = self.debited_minor - self.credited_minor
        return -beyond if self.code in CREDITED else beyond


BALANCES = """SELECT a.code, a.currency,
    coalesce(sum(s.debited), 0)::bigint AS debited, coalesce(sum(s.credited), 0)::bigint AS credited
FROM ledger_account a LEFT JOIN (
    SELECT currency, debit AS code, sum(amount_minor) AS debited, 0 AS credited
    FROM ledger_entry WHERE tenant_id = $1 GROUP BY 1, 2
    UNION ALL
    SELECT currency, credit, 0, sum(amount_minor) FROM ledger_entry WHERE tenant_id = $1 GROUP BY 1, 2
) s ON s.currency = a.currency AND s.code = a.code
WHERE a.tenant_id = $1 GROUP BY a.currency, a.code ORDER BY a.currency, a.code"""


async def balances(connection: Connection, tenant_id: UUID) -> Sequence[Balance]:
    """Every account of a tenant, summed over all its entries."""
    rows = await connection.fetch(BALANCES, tenant_id)
    return [Balance(Account(row["code"]), row["currency"], row["debited"], row["credited"]) for row in rows]
