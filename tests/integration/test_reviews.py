"""What waits for a person is in one list, with what may be done about it, until it has been done."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from starlette.routing import Match

from libs.common.clock import PLATFORM, now
from libs.common.http.routes import GuardedRoute
from libs.common.messaging.shell import Shell
from services.payments.domain.provider.operation import SURE_AFTER
from services.payments.domain.provider.outcome import DisputeStatus, RefundStatus, Unknown
from services.payments.domain.reconciliation.comparison import BreakKind, Found, Side, Standing, Subject
from services.payments.domain.review import ReviewKind
from services.payments.handlers.disputes import ObserveDispute
from services.payments.handlers.reconciliation import RecordFindings, RequestReconciliation, TakeUpReconciliation
from services.payments.handlers.refunds import ObserveRefund
from services.payments.jobs.money.orphans import ask_for_orders
from services.payments.repository.reviews import OF_TENANT, count_reviews
from tests.shared.callers import Person, edge, message, onboard, problem
from tests.shared.events import payment_requested
from tests.shared.paying import AMOUNT, always, answer, captured, dispute_seen, opened, refund_of, wanted
from tests.shared.places import Place, Places

OPERATOR = Person(PLATFORM, role="platform-operator")
SILENT = always(Unknown("no answer"))
PART = 100


@dataclass
class Desk:
    """Payments, and a person who looks at what waits."""

    place: Place
    http: httpx.AsyncClient
    shell: Shell

    async def reviews(self, headers: dict[str, str], path: str = "/v1/reviews", **asked: Any) -> list[dict[str, Any]]:
        """All of them, page by page of one."""
        found: list[dict[str, Any]] = []
        while True:
            page = (await self.http.get(path, params={"limit": 1, **asked}, headers=headers)).json()
            found += page["items"]
            if page["next_cursor"] is None:
                return found
            asked["cursor"] = page["next_cursor"]

    async def kinds(self, headers: dict[str, str]) -> set[str]:
        return {each["kind"] for each in await self.reviews(headers)}

    async def does(self, action: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
        """Exactly what the list says may be done."""
        body = {name: "seen to" if value == "{reason}" else value for name, value in action.get("body", {}).items()}
        given: dict[str, Any] = {"json": body} if action["method"] == "POST" else {}
        keyed = {**headers, "Idempotency-Key": uuid4().hex}
        return await self.http.request(action["method"], action["path"], headers=keyed, **given)


@pytest.fixture
async def desk(empty: Places) -> AsyncIterator[Desk]:
    place = empty("payments")
    async with edge(place) as (http, shell):
        yield Desk(place, http, shell)


# --- What waits ---------------------------------------------------------------------------------------------------


async def unended(shell: Shell, tenant_id: UUID, looks: int = SURE_AFTER) -> UUID:
    requested = payment_requested(amount_minor=AMOUNT)
    await shell.execute(message(requested, tenant_id))
    for _ in range(looks):
        await answer(shell, tenant_id, SILENT)
    return requested.payment_id


async def refund_failed_late(shell: Shell, tenant_id: UUID) -> UUID:
    """Told done, and then returned by the bank."""
    payment_id = await captured(shell, tenant_id)
    refund = wanted(payment_id, PART)
    await shell.execute(message(refund, tenant_id))
    [call] = [each for each in await opened(shell, tenant_id) if each.refund_id == refund.refund_id]
    await answer(shell, tenant_id)
    failed = ObserveRefund(payment_id=payment_id, seen=refund_of(call, RefundStatus.FAILED))
    await shell.execute(message(failed, tenant_id))
    return refund.refund_id


async def orphaned(shell: Shell, tenant_id: UUID) -> UUID:
    payment_id = await captured(shell, tenant_id, confirm=False)
    async with shell.database.transaction([tenant_id]) as connection:
        # As after a provider that captured of its own accord.
        change = "state = 'captured', captured_minor = authorized_minor, look_at = NULL"
        await connection.execute(f"UPDATE payment SET {change} WHERE id = $1", payment_id)
    assert await ask_for_orders(shell, timedelta(0)) >= 1
    return payment_id


async def broken(shell: Shell, tenant_id: UUID, payment_id: UUID) -> None:
    run_id, begun = uuid4(), now() - timedelta(days=1)
    ours = Side(
        subject=Subject.PAYMENT,
        our_id=payment_id,
        provider_id="pi_lost",
        payment_id=payment_id,
        standing=Standing.MOVED,
        state="captured",
        amount_minor=AMOUNT,
        currency="GBP",
        made_at=begun,
        since=begun,
    )
    for command in (
        RequestReconciliation(
            reconciliation_id=run_id, window_from=begun, window_to=now(), grace=timedelta(0), requested_by="a test"
        ),
        TakeUpReconciliation(reconciliation_id=run_id),
        RecordFindings(reconciliation_id=run_id, tries=1, found=(Found(kind=BreakKind.MISSING_THERE, ours=ours, theirs=None),)),
    ):
        await shell.execute(message(command, tenant_id))


async def disputed(shell: Shell, tenant_id: UUID, status: DisputeStatus) -> UUID:
    payment_id = await captured(shell, tenant_id)
    case = replace(dispute_seen(status, AMOUNT, 0, 1_500), provider_id=f"dp_{payment_id.hex}")
    await shell.execute(message(ObserveDispute(payment_id=payment_id, seen=case), tenant_id))
    return payment_id


async def everything(shell: Shell, tenant_id: UUID) -> dict[str, UUID]:
    """One of each kind: the id by which it can be told."""
    refund_id, orphan_id = await refund_failed_late(shell, tenant_id), await orphaned(shell, tenant_id)
    disputed_id = await disputed(shell, tenant_id, DisputeStatus.NEEDS_RESPONSE)
    await broken(shell, tenant_id, disputed_id)
    unknown_id = await unended(shell, tenant_id)
    return {"refund": refund_id, "orphan": orphan_id, "disputed": disputed_id, "unknown": unknown_id}


# --- The list -----------------------------------------------------------------------------------------------------


async def test_a_person_sees_all_that_waits_in_one_list_and_what_the_machine_ends_by_itself_is_not_in_it(desk: Desk) -> None:
    tenant_id, other_id = await onboard(desk.shell), await onboard(desk.shell)
    client, other = (Person(each, role="client").authorization for each in (tenant_id, other_id))
    await disputed(desk.shell, tenant_id, DisputeStatus.UNDER_REVIEW)
    await captured(desk.shell, tenant_id)
    await unended(desk.shell, tenant_id, SURE_AFTER - 1)
    assert await desk.reviews(client) == []
    await answer(desk.shell, tenant_id)  # or the next of it is answered below
    ids = await everything(desk.shell, tenant_id)
    await disputed(desk.shell, other_id, DisputeStatus.WARNING_NEEDS_RESPONSE)
    found = await desk.reviews(client)
    assert sorted((each["kind"], each["amount_minor"]) for each in found) == [
        ("break-open", AMOUNT),
        ("dispute-wants-evidence", AMOUNT),
        ("money-without-order", AMOUNT),
        ("outcome-unknown", AMOUNT),
        ("refund-failed", PART),
    ]
    by_kind = {each["kind"]: each for each in found}
    assert [each["since"] for each in found] == sorted(each["since"] for each in found)
    assert (by_kind["refund-failed"]["id"], by_kind["refund-failed"]["why"]) == (str(ids["refund"]), "expired_or_canceled_card")
    assert by_kind["money-without-order"]["payment_id"] == str(ids["orphan"])
    assert (by_kind["outcome-unknown"]["payment_id"], by_kind["outcome-unknown"]["why"]) == (str(ids["unknown"]), "no answer")
    assert by_kind["dispute-wants-evidence"]["respond_by"] > by_kind["dispute-wants-evidence"]["since"]
    for kind in ReviewKind:
        assert [each["kind"] for each in await desk.reviews(client, kind=kind)] == [kind]
    assert await desk.kinds(other) == {"dispute-wants-evidence"}
    shopper = await desk.http.get("/v1/reviews", headers=Person(tenant_id).authorization)
    assert problem(shopper)["code"] == "permission-missing"


async def test_operators_see_what_waits_at_every_tenant_or_at_one_and_the_gauge_counts_the_same(desk: Desk) -> None:
    tenants = [await onboard(desk.shell) for _ in range(2)]
    for tenant_id in tenants:
        await everything(desk.shell, tenant_id)
    found = await desk.reviews(OPERATOR.authorization, "/ops/reviews")
    assert [each["since"] for each in found] == sorted(each["since"] for each in found)
    wanted_pairs = sorted((str(tenant_id), str(kind)) for tenant_id in tenants for kind in ReviewKind)
    assert sorted((each["tenant_id"], each["kind"]) for each in found) == wanted_pairs
    own = await desk.reviews(OPERATOR.authorization, "/ops/reviews", tenant_id=tenants[0])
    assert own == [each for each in found if each["tenant_id"] == str(tenants[0])]
    some = await desk.reviews(OPERATOR.authorization, "/ops/reviews", kind="break-open")
    assert some == [each for each in found if each["kind"] == "break-open"]
    async with desk.shell.database.acquire() as connection:
        assert await count_reviews(connection) == dict.fromkeys(ReviewKind, 2)
    client = Person(tenants[0], role="client").authorization
    assert problem(await desk.http.get("/ops/reviews", headers=client))["code"] == "platform-only"


async def test_each_action_that_is_offered_is_a_call_that_may_be_made_with_the_permission_it_names(desk: Desk) -> None:
    tenant_id = await onboard(desk.shell)
    await everything(desk.shell, tenant_id)
    client, operator = Person(tenant_id, role="client").authorization, OPERATOR.authorization
    transport: Any = desk.http._transport
    routes = [each for each in transport.app.routes if isinstance(each, GuardedRoute)]
    offered = [
        *((action, client) for each in await desk.reviews(client) for action in each["actions"]),
        *((action, operator) for each in await desk.reviews(operator, "/ops/reviews") for action in each["actions"]),
    ]
    assert len(offered) == 9 + 5
    for action, headers in offered:
        scope = {"type": "http", "method": action["method"], "path": action["path"], "root_path": "", "headers": []}
        [route] = [each for each in routes if each.matches(scope)[0] is Match.FULL]
        assert route.rule.permission == action["permission"], action
        assert route.rule.platform_only == (headers is operator), action
        done = await desk.does(action, headers)
        assert done.status_code < 500 or action["path"].endswith("/resolve"), (action, done.text)
        assert done.status_code not in {400, 401, 403, 404, 405, 415, 422}, (action, done.text)


async def test_what_was_seen_to_is_no_longer_in_the_list(desk: Desk) -> None:
    tenant_id = await onboard(desk.shell)
    await everything(desk.shell, tenant_id)
    client = Person(tenant_id, role="client").authorization
    waiting = {each["kind"]: each for each in await desk.reviews(client)}
    _, close = waiting["break-open"]["actions"]
    assert (await desk.does(close, client)).status_code == 200
    _, close = waiting["refund-failed"]["actions"]
    closed = await desk.does(close, client)
    assert (closed.status_code, closed.json()["state"]) == (200, "failed"), "no money moves"
    assert problem(await desk.does(close, client))["code"] == "refund-closed"
    _, give_back = waiting["money-without-order"]["actions"]
    assert (await desk.does(give_back, client)).status_code == 202
    await answer(desk.shell, tenant_id)
    disputed_id = UUID(waiting["dispute-wants-evidence"]["payment_id"])
    won = replace(dispute_seen(DisputeStatus.WON, AMOUNT, AMOUNT, 1_500), provider_id=f"dp_{disputed_id.hex}")
    await desk.shell.execute(message(ObserveDispute(payment_id=disputed_id, seen=won), tenant_id))
    assert await desk.reviews(client) == []


async def test_a_refund_that_did_not_fail_is_not_closed_and_one_that_is_paid_again_waits_no_more(desk: Desk) -> None:
    tenant_id = await onboard(desk.shell)
    client = Person(tenant_id, role="client").authorization
    payment_id = await captured(desk.shell, tenant_id)
    fine = wanted(payment_id, PART)
    await desk.shell.execute(message(fine, tenant_id))
    close = {"method": "POST", "path": f"/v1/refunds/{fine.refund_id}/close", "body": {"reason": "{reason}"}}
    assert problem(await desk.does(close, client))["code"] == "refund-state"
    await answer(desk.shell, tenant_id)
    await refund_failed_late(desk.shell, tenant_id)
    [failed] = await desk.reviews(client)
    await desk.shell.execute(message(wanted(UUID(failed["payment_id"]), None), tenant_id))
    await answer(desk.shell, tenant_id)
    assert await desk.reviews(client) == []


async def test_a_page_is_read_by_indexes_alone_and_each_kind_has_its_own(desk: Desk) -> None:
    tenant_id = await onboard(desk.shell)
    async with desk.shell.database.transaction([tenant_id]) as connection:
        await connection.execute("SET LOCAL enable_seqscan = off")
        after, first = now() - timedelta(days=9), UUID(int=0)
        plan = "\n".join(row[0] for row in await explained(connection, tenant_id, after, first))
    indexes = ("operation_unended", "refund_failed_open", "payment_without_order", "reconciliation_break_open")
    assert "Seq Scan" not in plan, plan
    assert [each for each in (*indexes, "dispute_wants_evidence") if each not in plan] == [], plan


async def explained(connection: Any, tenant_id: UUID, after: Any, first: UUID) -> list[asyncpg.Record]:
    found: list[asyncpg.Record] = await connection.fetch(f"EXPLAIN {OF_TENANT}", tenant_id, None, after, first, 50)
    return found
