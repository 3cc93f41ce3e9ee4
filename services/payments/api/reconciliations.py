"""HTTP in: how a tenant's books compared with the provider's, and what an operator may have compared or resolved.

Routes under `/ops` are for the platform's operators, over all tenants; whoever has a tenant is not let in.
"""

from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.clock import new_id, now, rfc3339
from libs.common.contracts.external import WRITTEN
from libs.common.decision import present
from libs.common.errors import ConflictError, NotFoundError
from libs.common.http.members import Moment
from libs.common.http.paging import Limit, Page
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply
from libs.common.http.seeing import Sight, listed
from libs.common.messaging.idempotency import Answer, Replayed
from services.payments.domain.reconciliation.comparison import COLUMNS, BreakKind, Repair
from services.payments.domain.reconciliation.reconciliation import DEEP, GRACE, Break, BreakState, Reconciliation, RunState
from services.payments.handlers.reconciliation import CloseBreak, RequestReconciliation
from services.payments.repository import BREAKS, RECONCILIATIONS, TENANTS
from services.payments.repository.bookmark import BEGINNING
from services.payments.repository.reconciliation import breaks_during, open_reconciliation

ROUTES = Routes(Facing.CUSTOMERS)
SHOWN_BREAKS = 200
RECONCILIATION = Sight(RECONCILIATIONS, "reconciliation_id")
BREAK = Sight(BREAKS, "break_id")


class SumsModel(BaseModel):
    """What one side comes to."""

    gross_minor: int
    refunded_minor: int
    disputed_minor: int
    fees_minor: int
    net_minor: int


class TotalsModel(BaseModel):
    """Both sides' sums over what was made in the window, in one currency."""

    currency: str
    ours: SumsModel
    theirs: SumsModel


class BreakModel(BaseModel):
    """A difference between the provider and us."""

    id: UUID
    kind: BreakKind
    subject: str
    our_id: UUID | None
    provider_id: str | None
    payment_id: UUID | None
    currency: str
    ours: dict[str, Any] | None
    theirs: dict[str, Any] | None
    repair: Repair | None
    state: BreakState
    first_seen_at: Moment
    last_seen_at: Moment
    seen_count: int
    closed_at: Moment | None
    closed_by: str | None
    closed_reason: str | None


class ReconciliationModel(BaseModel):
    """One comparison of the books."""

    id: UUID
    state: RunState
    window_from: str
    window_to: str
    started_at: Moment
    finished_at: Moment | None
    counts: dict[str, int]
    totals: list[TotalsModel]


class ReportModel(ReconciliationModel):
    """The same with its breaks, the oldest first."""

    tenant_id: UUID
    breaks: list[BreakModel]
    has_more_breaks: bool
    error: str | None


def _run_members(run: Reconciliation) -> dict[str, Any]:
    return {
        "id": run.id,
        "state": str(run.state),
        "window_from": rfc3339(run.window_from),
        "window_to": rfc3339(run.window_to),
        "started_at": rfc3339(run.started_at),
        "finished_at": rfc3339(run.finished_at) if run.finished_at else None,
        "counts": run.counts,
        "totals": [
            TotalsModel(currency=currency, ours=_sums(sides["ours"]), theirs=_sums(sides["theirs"]))
            for currency, sides in sorted(run.totals.items())
        ],
    }


def _run_model(run: Reconciliation) -> ReconciliationModel:
    return ReconciliationModel(**_run_members(run))


def _sums(sums: dict[str, int]) -> SumsModel:
    return SumsModel(**{f"{column}_minor": sums[column] for column in COLUMNS})


def _break_model(found: Break) -> BreakModel:
    return BreakModel(
        id=found.id,
        kind=found.kind,
        subject=str(found.subject),
        our_id=found.our_id,
        provider_id=found.provider_id,
        payment_id=found.payment_id,
        currency=found.currency,
        ours=found.ours,
        theirs=found.theirs,
        repair=found.repair,
        state=found.state,
        first_seen_at=rfc3339(found.first_seen_at),
        last_seen_at=rfc3339(found.last_seen_at),
        seen_count=found.seen_count,
        closed_at=rfc3339(found.closed_at) if found.closed_at else None,
        closed_by=found.closed_by,
        closed_reason=found.closed_reason,
    )


# --- The tenant's own ---------------------------------------------------------------------------------------------


@ROUTES.get("/v1/reconciliations", response_model=Page[ReconciliationModel])
@guard("ledger:read")
async def list_reconciliations(call: Caller, limit: Limit = 50, cursor: str | None = None) -> Response:
    """The comparisons of the tenant's books with the provider's, the newest first."""
    return await listed(call, RECONCILIATIONS, _run_model, limit, cursor, newest_first=True)


@ROUTES.get("/v1/reconciliations/{reconciliation_id}", response_model=ReportModel)
@guard("ledger:read", sees=RECONCILIATION)
async def read_reconciliation(call: Caller, reconciliation_id: UUID) -> Response:
    """One comparison, with the breaks that were there while it ran."""
    return reply(200, await _report(call, call.tenant_id, reconciliation_id, for_operators=False))


class CloseRequest(BaseModel):
    """Why a difference that nobody can mend is looked at no more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Annotated[str, Field(min_length=1, max_length=500), WRITTEN]


@ROUTES.post("/v1/reconciliations/{reconciliation_id}/breaks/{break_id}/close", response_model=BreakModel)
@guard("payments:resolve", idempotent=True, sees=RECONCILIATION, goes_on=True)
async def close_break(call: Caller, reconciliation_id: UUID, break_id: UUID, wanted: CloseRequest) -> Response:
    """Close a break that nobody can mend. It stays on record with who closed it and why; it opens anew if a side moves."""
    await RECONCILIATION.of(call, reconciliation_id)
    command = CloseBreak(break_id=break_id, reason=wanted.reason)
    done: Any = await call.execute_once(command, lambda closed: Answer(200, headers={"resource": str(closed.id)}))
    if isinstance(done, Replayed):
        return reply(200, _break_model(await BREAK.of(call, break_id)), Idempotent_Replayed="true")
    return reply(200, _break_model(done))


async def _report(call: Call, tenant_id: UUID, reconciliation_id: UUID, *, for_operators: bool) -> ReportModel:
    async with call.transaction(tenant_id) as connection:
        found = await RECONCILIATIONS.load(connection, [(tenant_id, reconciliation_id)], lock=False)
        run = present(Reconciliation, found[0] if found else None)
        breaks = await breaks_during(connection, run, after=BEGINNING, limit=SHOWN_BREAKS + 1)
    return ReportModel(
        **_run_members(run),
        tenant_id=tenant_id,
        breaks=[_break_model(each) for each in breaks[:SHOWN_BREAKS]],
        has_more_breaks=len(breaks) > SHOWN_BREAKS,
        error=run.error if for_operators else None,
    )


# --- For operators ------------------------------------------------------------------------------------------------


class ReconciliationRequest(BaseModel):
    """Whose books, how far back, and how young a difference may be to count as on its way."""

    model_config = ConfigDict(extra="forbid")

    tenant_id: UUID
    days: Annotated[int, Field(ge=1, le=400)] = DEEP.days
    grace_seconds: Annotated[int, Field(ge=0, le=86_400)] = int(GRACE.total_seconds())


class RequestedModel(BaseModel):
    """Where to look for what comes of it."""

    tenant_id: UUID
    reconciliation_id: UUID


@ROUTES.post("/ops/reconciliations", response_model=RequestedModel, status_code=202)
@guard("ops:repair", platform_only=True)
async def request_reconciliation(call: Caller, wanted: ReconciliationRequest) -> Response:
    """Have a tenant reconciled now, by whichever worker is free."""
    async with call.transaction(wanted.tenant_id) as connection:
        if not await TENANTS.load(connection, [(wanted.tenant_id, wanted.tenant_id)], lock=False):
            raise NotFoundError("tenant-not-found", "payments knows no such tenant")
        running = await open_reconciliation(connection, wanted.tenant_id)
    if running is not None:
        raise ConflictError("running", "the tenant is being reconciled", reconciliation_id=str(running), retry_after=1)
    moment = now()
    command = RequestReconciliation(
        reconciliation_id=new_id(),
        window_from=moment - timedelta(days=wanted.days),
        window_to=moment,
        grace=timedelta(seconds=wanted.grace_seconds),
        requested_by=call.principal.client_id,
    )
    await call.execute(command, tenant_id=wanted.tenant_id)
    return reply(202, RequestedModel(tenant_id=wanted.tenant_id, reconciliation_id=command.reconciliation_id))


@ROUTES.get("/ops/reconciliations/{tenant_id}/{reconciliation_id}", response_model=ReportModel)
@guard("ops:read", platform_only=True)
async def show_reconciliation(call: Caller, tenant_id: UUID, reconciliation_id: UUID) -> Response:
    """What came of one."""
    return reply(200, await _report(call, tenant_id, reconciliation_id, for_operators=True))


class OperatorsCloseRequest(CloseRequest):
    """The same of any tenant's break."""

    tenant_id: UUID


@ROUTES.post("/ops/breaks/{break_id}/close", response_model=BreakModel)
@guard("ops:repair", platform_only=True)
async def close_any_break(call: Caller, break_id: UUID, wanted: OperatorsCloseRequest) -> Response:
    """Close a tenant's break that nobody can mend."""
    closed: Break = await call.execute(CloseBreak(break_id=break_id, reason=wanted.reason), tenant_id=wanted.tenant_id)
    return reply(200, _break_model(closed))
