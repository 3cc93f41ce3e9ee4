"""The ledger: entries are added, accounts opened by their first entry, and nothing is ever changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

from libs.common.database import Connection, Rows, Select, Write
from services.payments import tables
from services.payments.domain.money.ledger import CREDITED, Account, Entry

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
