"""`restore --report`: books compared, invariants looked at, and every gap between the databases and what others know."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from deploy.cli.api import Api, RefusedError, connected
from deploy.cli.deployment import deployment
from deploy.cli.errors import ExitCode
from deploy.cli.gaps import Gap, Known, Told, gaps, refunded, tenant_gaps, unexplained
from deploy.cli.invariants.check import Limits
from deploy.cli.invariants.facts import Facts
from deploy.cli.invariants.run import checking
from deploy.cli.output import print_json, progress
from deploy.cli.payments import lasting, reconciled
from deploy.cli.publisher import client_arguments
from deploy.cli.shop import Shop
from deploy.cli.tenants import operator, shops
from deploy.cli.waiting import asked_again
from deploy.local.description import StackDescription
from deploy.local.state import Home, default_home
from libs.common.clock import now
from libs.common.contracts.identity import TenantUpdated
from libs.common.messaging.envelope import Reader, Received
from libs.common.messaging.reading import Consumer
from libs.common.standings import GONE

_PATIENCE_SECONDS: Final = 5.0
_ERASING_SECONDS: Final = 120
_POLL_SECONDS: Final = 1.0
_NOT_FOUND: Final = 404
_LONGEST_GRACE_SECONDS: Final = 86_400
_CLIENT_ID: Final = "identity.restored"
_TENANTS: Final = "tenant.v1"
_ERASED_TENANT: Final = "tenant-back"


def report(*, tenant: str | None, days: int, json: bool) -> int:
    """Print all of it; 1 when there is anything that somebody has to decide about."""
    told = asyncio.run(_reported(tenant, days, progress()))
    if json:
        print_json(told)
    else:
        _show(told)
    return ExitCode.DONE if not (told["gaps"] or told["breaks"] or told["violations"]) else ExitCode.NOT_SO


async def _reported(tenant: str | None, days: int, say: Callable[[str], None]) -> dict[str, Any]:
    restored = Home(default_home()).read().get("restored")
    async with deployment(say) as stack, connected(stack) as api:
        of_tenants = await _tenants_once_erased(api, say)
        breaks = [each async for each in _breaks(api, tenant, days, _grace_seconds(restored), say)]
        say("looking at what others know")
        async with checking(api, Limits(), tenant) as checker:
            look = await checker.settled(_PATIENCE_SECONDS)
            heard = [books.together() for books in checker.books]
        found = {slug: shop async for slug, shop in shops(api, tenant)}
        of_orders = [gap for facts in heard if facts.tenant in found for gap in await _gaps(found[facts.tenant], facts)]
    return {
        "restored": restored,
        "gaps": [asdict(gap) for gap in [*of_tenants, *of_orders]],
        "breaks": breaks,
        "violations": [asdict(violation) for violation in look.violations],
    }


def _grace_seconds(restored: Mapping[str, Any] | None) -> int:
    """What is younger than the restore is on its way; all that is older is compared."""
    age = (now() - datetime.fromisoformat(restored["at"])).total_seconds() if restored else 0.0
    return min(int(age), _LONGEST_GRACE_SECONDS)


# --- Tenants ------------------------------------------------------------------------------------------------------


async def _tenants_once_erased(api: Api, say: Callable[[str], None]) -> list[Gap]:
    """Wait until those that were erased are so again, or it is clear that somebody has to see why not."""
    told = await _told(api.stack)
    say(f"{sum(each.is_erased for each in told.values())} tenants were erased once: they must be so again")

    async def look() -> list[Gap]:
        everyone = api.everything("identity", "/v1/tenants", await operator(api).token())
        return tenant_gaps(told, {UUID(each["tenant_id"]): each["status"] async for each in everyone})

    def left(found: list[Gap]) -> int:
        return sum(gap.kind == _ERASED_TENANT for gap in found)

    return await asked_again(look, left, patience_seconds=_ERASING_SECONDS, pause_seconds=_POLL_SECONDS)


async def _told(stack: StackDescription) -> dict[UUID, Told]:
    """What identity has said of every tenant, by the topic that forgets none."""
    found: dict[UUID, Told] = {}
    reader = Reader([TenantUpdated], topic_prefix=stack.topic_prefix)
    consumer = Consumer(
        stack.topic_prefix + _TENANTS,
        client_id=_CLIENT_ID,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        **client_arguments(stack),
    )
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        while behind := [each for each, end in ends.items() if await consumer.position(each) < end]:
            for records in (await consumer.getmany(*behind, timeout_ms=500)).values():
                for record in records:
                    event = reader.read(record)
                    if isinstance(event, Received) and isinstance(event.message.data, TenantUpdated):
                        _take(found, event.message.data)
    finally:
        await consumer.stop()
    return found


def _take(found: dict[UUID, Told], event: TenantUpdated) -> None:
    before = found.get(event.tenant_id)
    is_erased = event.status in GONE or (before is not None and before.is_erased)
    newest = event if before is None or event.version >= before.version else before
    slug = event.slug or (before.slug if before else "")
    found[event.tenant_id] = Told(slug=slug, version=newest.version, status=newest.status, is_erased=is_erased)


# --- Orders and money ---------------------------------------------------------------------------------------------


async def _breaks(api: Api, tenant: str | None, days: int, grace_seconds: int, say: Callable[[str], None]) -> Any:
    """Yield what is left of the differences from the provider's books."""
    async for slug, shop in shops(api, tenant):
        say(f"reconciling {slug}")
        compared = await reconciled(api, operator(api), str(shop.tenant_id), days, grace_seconds)
        for each in lasting(compared):
            yield {"tenant": slug, **each}


async def _gaps(shop: Shop, facts: Facts) -> list[Gap]:
    """The databases are asked last: what happens meanwhile they know."""
    given = refunded(facts)
    known = {UUID(order["id"]): await _known(shop, order, asks=UUID(order["id"]) in given) async for order in shop.orders()}
    missing = {checkout_id for checkout_id in unexplained(facts) if not await _knows_checkout(shop, checkout_id)}
    return gaps(facts, known, missing)


async def _known(shop: Shop, order: Mapping[str, Any], *, asks: bool) -> Known:
    refunds = (await shop.order(order["id"]))["refunds"] if asks else None
    return Known(
        is_canceled=order["state"] == "canceled",
        refund_ids=None if refunds is None else frozenset(UUID(each["id"]) for each in refunds),
    )


async def _knows_checkout(shop: Shop, checkout_id: UUID) -> bool:
    try:
        await shop.api.call("checkout", "GET", f"/v1/checkouts/{checkout_id}", token=await shop.token())
    except RefusedError as error:
        if error.status != _NOT_FOUND:
            raise
        return False
    return True


# --- Telling ------------------------------------------------------------------------------------------------------


def _show(told: Mapping[str, Any]) -> None:
    if told["restored"]:
        print(f"restored to {told['restored']['to']} at {told['restored']['at']}")
    for gap in told["gaps"]:
        print(Gap(**gap))
    for each in told["breaks"]:
        print(f"{each['tenant']}  {each['kind']:<12} {each.get('provider_id') or each.get('our_id')}: break {each['id']}")
    for each in told["violations"]:
        print(f"{each['tenant']}  {each['invariant']:<12} {each['subject']}: {each['detail']}")
    count = len(told["gaps"]), len(told["breaks"]), len(told["violations"])
    print(f"{count[0]} gaps, {count[1]} breaks, {count[2]} violations" if any(count) else "nothing is missing")
