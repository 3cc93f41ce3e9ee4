"""Time in: compare every tenant's books with the provider's, in turn.

A run is a row. Whoever takes it up has it for as long as it keeps recording; should it fall silent, the next worker does
the same window again, which changes nothing that was done.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from libs.common.cells import MAIN
from libs.common.clock import new_id, now
from libs.common.database import WHATEVER_IT_SAYS, poll
from libs.common.errors import ConflictError, ErasedError
from libs.common.messaging.shell import Shell
from libs.common.telemetry import Counter, Gauge
from services.payments.domain.reconciliation.comparison import BreakKind
from services.payments.domain.reconciliation.reconciliation import Reconciliation, window_after
from services.payments.gateway.accounts import Access
from services.payments.gateway.protocol import PaymentGateway
from services.payments.handlers.reconciliation import (
    TAKEN_OVER,
    InterruptReconciliation,
    RequestReconciliation,
    TakeUpReconciliation,
)
from services.payments.jobs.provider.calling import GatewayOf
from services.payments.jobs.reconciliation.audit import Audit
from services.payments.jobs.reconciliation.side_by_side import SideBySide
from services.payments.repository.reconciliation import due_reconciliations, last_windows, oldest_reconciliation, open_breaks

if TYPE_CHECKING:
    from libs.common.processes.parts import Worker

EVERY = timedelta(minutes=15)
"""How often a tenant is reconciled."""
EVERY_QUIET = timedelta(days=1)
"""How often one that never took a payment is: of these there may be ten thousand, and they shall cost nothing."""
LOOK_SECONDS = 1.0
"""How soon a run that an operator asks for is taken up."""
LOOKS_A_ROUND = 15
"""Of so many looks, one is for the schedule and the gauges too: these ask about every tenant."""
TOGETHER = 50
"""So many runs are carried out at a time; whoever asks for one waits for those at most."""
SCHEDULE = "schedule"

OPEN_BREAKS = Gauge("cartwright_reconciliation_breaks", "Differences between the provider and us that last", ["kind"])
OLDEST_BREAK = Gauge("cartwright_reconciliation_oldest_break_seconds", "Age of the oldest of them")
OLDEST_RUN = Gauge(
    "cartwright_reconciliation_last_run_seconds",
    "Time since the last finished run, of the tenant with payments that has waited longest",
)
RUNS = Counter("cartwright_reconciliation_runs_total", "Runs, by how they ended", ["outcome"])

log = structlog.get_logger(__name__)


async def reconcile(worker: "Worker") -> None:
    """Take up runs that are due, one at a time, for as long as the worker lives."""
    await Reconciler(worker.shell, worker.shared(Access).gateways.of).run()


class Reconciler:
    """Carries out the runs that nobody has, whosever they are."""

    def __init__(self, shell: Shell, gateway_of: GatewayOf) -> None:
        self._shell = shell
        self._gateway_of = gateway_of
        self._looks = 0
        self._worked = False

    async def run(self) -> None:
        """Look every second; a run that waits is taken up at once after the one before."""
        await poll(self._look, every=LOOK_SECONDS, waiting="reconciliation.waiting", outlives=WHATEVER_IT_SAYS)

    async def _look(self) -> bool:
        """Carry out a run that waits, if one does. The schedule is asked now and then, and for as long as there is work."""
        is_round, worked = self._looks % LOOKS_A_ROUND == 0, self._worked
        self._looks += 1
        self._worked = False
        if is_round:
            await self._show()
        self._worked = await self.run_one(EVERY if is_round or worked else None)
        return self._worked

    async def _show(self) -> None:
        """Keep the gauges. Each worker says the same."""
        async with self._shell.database.acquire() as connection:
            by_kind = await open_breaks(connection)
            OLDEST_RUN.set(await oldest_reconciliation(connection))
        for kind in BreakKind:
            count, _ = by_kind.get(kind, (0, 0.0))
            OPEN_BREAKS.labels(kind).set(count)
        OLDEST_BREAK.set(max((seconds for _, seconds in by_kind.values()), default=0))

    async def run_one(self, every: timedelta | None = EVERY) -> bool:
        """Carry out runs that are due, by the schedule too if `every` is said; answers whether there were any."""
        async with self._shell.database.acquire() as connection:
            due = await due_reconciliations(connection, every, EVERY_QUIET, TOGETHER, self._shell.cell or MAIN)
        taken: list[Reconciliation] = []
        for tenant_id, known in due:
            try:
                run_id = known or await self._begin(tenant_id)
                run = await self._tell(tenant_id, TakeUpReconciliation(reconciliation_id=run_id))
                taken += [run] if run is not None else []
            except ConflictError as error:
                log.info("reconciliation.elsewhere", tenant_id=str(tenant_id), reason=str(error), action="another worker has it")
            except ErasedError:
                log.info("reconciliation.erased", tenant_id=str(tenant_id), action="none: its tenant is being taken out")
        await self._carry_out(taken)
        return bool(due)

    async def _begin(self, tenant_id: UUID) -> UUID:
        """Ask for the tenant's next scheduled run. Raises ConflictError when somebody just has."""
        async with self._shell.database.transaction([tenant_id]) as connection:
            last_to, last_deep = await last_windows(connection, tenant_id)
        window_from, window_to = window_after(last_to, last_deep, now())
        run_id = new_id()
        await self._tell(
            tenant_id,
            RequestReconciliation(reconciliation_id=run_id, window_from=window_from, window_to=window_to, requested_by=SCHEDULE),
        )
        return run_id

    async def _carry_out(self, runs: Sequence[Reconciliation]) -> None:
        """Compare those of one account together: what the provider lists is read once."""
        of_account: dict[str, list[tuple[PaymentGateway, Reconciliation]]] = {}
        for run in runs:
            try:
                gateway = await self._gateway_of(run.tenant_id)
            except Exception as error:  # noqa: BLE001 - an account that cannot be read is its tenant's alone
                await self._ended(run, error, {})
            else:
                of_account.setdefault(gateway.books, []).append((gateway, run))
        for together in of_account.values():
            audits = [Audit(self._shell, gateway, run) for gateway, run in together]
            side_by_side = SideBySide(together[0][0], audits)
            await side_by_side.run()
            for audit in audits:
                await self._ended(audit.book, side_by_side.failed.get(audit.book.id), audit.counts)

    async def _ended(self, run: Reconciliation, error: Exception | None, counts: Mapping[str, int]) -> None:
        """Record how it ended: nothing that the provider or the database does may leave a run for ever open."""
        bound = log.bind(tenant_id=str(run.tenant_id), reconciliation_id=str(run.id), tries=run.tries)
        if error is None:
            RUNS.labels("finished").inc()
            bound.info("reconciliation.finished", **counts)
        elif isinstance(error, ConflictError) and error.code == TAKEN_OVER:
            bound.warning("reconciliation.taken_over", error=str(error))
            RUNS.labels("taken-over").inc()
        else:
            why = f"{type(error).__name__}: {error}"
            bound.warning("reconciliation.interrupted", error=why, action="tried again later, from its beginning")
            RUNS.labels("interrupted").inc()
            with suppress(ConflictError, ErasedError):  # somebody else has it by now, or nobody ever will
                await self._tell(run.tenant_id, InterruptReconciliation(reconciliation_id=run.id, tries=run.tries, why=why))

    async def _tell(self, tenant_id: UUID, command: Any) -> Any:
        return await self._shell.execute(self._shell.command(command, tenant_id))
