"""Reconciliation of many tenants: what it costs to have them."""

from collections import Counter
from dataclasses import replace
from uuid import UUID

from services.payments.jobs.reconciliation.reconciler import Reconciler
from tests.integration.bank import bank_of
from tests.shared.callers import onboard
from tests.shared.places import Places


async def test_of_many_tenants_those_that_never_took_a_payment_are_reconciled_once_a_day(empty: Places, fake: str) -> None:
    async with bank_of(empty("payments"), fake) as bank:
        quiet = [replace(bank, tenant_id=await onboard(bank.shell)) for _ in range(3)]
        await bank.pay(1)
        runs = "SELECT tenant_id FROM reconciliation"

        async def reconciled(hours: int) -> Counter[UUID]:
            """Whose runs there are, after all that is due when the last ones were so long ago."""
            await bank.as_admin(f"UPDATE reconciliation SET started_at = started_at - interval '{hours} hours'")
            while await Reconciler(bank.shell, bank.gateway_of).run_one():
                pass
            found: Counter[UUID] = Counter()
            for each in (bank, *quiet):
                async with bank.shell.database.transaction([each.tenant_id]) as connection:
                    found[each.tenant_id] = len(await connection.fetch(runs))
            return found

        quietly = {each.tenant_id for each in quiet}
        assert await reconciled(0) == Counter({bank.tenant_id: 1, **dict.fromkeys(quietly, 1)}), "each at its beginning"
        assert await reconciled(1) == Counter({bank.tenant_id: 2, **dict.fromkeys(quietly, 1)})
        await quiet[0].pay(1)
        assert await reconciled(1) == Counter({bank.tenant_id: 3, **dict.fromkeys(quietly, 1), quiet[0].tenant_id: 2})
        assert await reconciled(24) == Counter({bank.tenant_id: 4, **dict.fromkeys(quietly, 2), quiet[0].tenant_id: 3})
