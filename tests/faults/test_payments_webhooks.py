"""What the provider tells, in every order, twice and not at all: each story has one end and one set of books.

The short form draws some of each story's orders; `--long` goes through every order of its notices, each of them once, each
twice, and without any one of them.
"""

import itertools
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import aiohttp
import orjson
import pytest

from libs.common.clock import new_id, now
from services.payments.domain.payment.payment import WORKING, PaymentState
from services.payments.gateway.webhooks import read_notice
from services.payments.handlers.reconciliation import RequestReconciliation
from services.payments.jobs.reconciliation.reconciler import Reconciler
from services.payments.repository.provider import webhooks
from tests.faults.payments.stories import STORIES, Story, ends
from tests.shared.till import Till
from tests.shared.toy import seeded

MOST = 6
"""Notices of a story, the last ones where it has more."""
DRAWN = 150
"""Orders of each story, in the short form."""
AT_ONCE = 400
"""Payments that a story happens to side by side."""

AT_REST = frozenset(PaymentState) - WORKING - {PaymentState.UNKNOWN}

Order = tuple[int, ...]
"""Which of a story's notices come, and in which order."""


def orders(count: int) -> list[Order]:
    """Every order of so many: each once; each twice, in another order; all but one; and none."""
    whole = list(itertools.permutations(range(count)))
    twice = [(*order, *reversed(order)) for order in whole]
    without = [order for left_out in range(count) for order in itertools.permutations(set(range(count)) - {left_out})]
    return [*whole, *twice, *without, ()]


def drawn(every: Sequence[Order], chance: random.Random, request: pytest.FixtureRequest) -> Sequence[Order]:
    return every if request.config.getoption("--long") else [*chance.sample(every, min(DRAWN, len(every))), ()]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_notices_in_every_order_doubled_and_lost_come_to_one_end(
    till: Till, story: Story, request: pytest.FixtureRequest
) -> None:
    chance, started = seeded(time.time_ns() % 2**32), time.monotonic()
    # The first payment only shows how many notices there will be.
    _, [shown] = await told(till, story, 1)
    chosen = drawn(orders(len(shown)), chance, request)
    for start in range(0, len(chosen), AT_ONCE):
        batch = chosen[start : start + AT_ONCE]
        payment_ids, notices = await told(till, story, len(batch))
        for turn in range(max(map(len, batch))):
            bodies = [some[order[turn]] for some, order in zip(notices, batch, strict=True) if turn < len(order)]
            await deliver(till, chance.sample(bodies, len(bodies)))
            await till.settle_notices()
        whole = [key for key, order in zip(payment_ids, batch, strict=True) if set(order) == set(range(len(shown)))]
        await are_at_their_end(till, story, whole)
    await one_end(till, story)
    print(f"{len(shown)} notices, {len(chosen)} orders, {time.monotonic() - started:.0f} s")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_readings_that_come_late_doubled_and_not_at_all_come_to_one_end(till: Till, story: Story) -> None:
    """As when whoever read it was held up: what it says of the payment is old, and others have said more since."""
    chosen = orders(len(story.acts) + 1)
    payments = await till.all_known(await story.begin(till, len(chosen)))
    readings = [await story.read(till, payments)]
    for act in story.acts:
        await act(till, payments)
        readings.append(await story.read(till, payments))
    for turn in range(max(map(len, chosen))):
        come = [readings[order[turn]][index] for index, order in enumerate(chosen) if turn < len(order)]
        await till.tell(*come)
    newest = len(story.acts)
    await are_at_their_end(till, story, [key.id for key, order in zip(payments, chosen, strict=True) if newest in order])
    await one_end(till, story)


# --- What the provider tells ---------------------------------------------------------------------------------------------


async def told(till: Till, story: Story, count: int) -> tuple[Sequence[UUID], Sequence[Sequence[bytes]]]:
    """So many payments to which the story happens, and the notices of each in the order in which they were made."""
    payments = await till.all_known(await story.begin(till, count))
    for act in story.acts:
        await act(till, payments)
    of_intent = await _notices(till)
    found = [of_intent[payment.intent_id or ""][-MOST:] for payment in payments]
    assert len(set(map(len, found))) == 1, "the same happens to each"
    return [payment.id for payment in payments], found


async def _notices(till: Till) -> dict[str, list[bytes]]:
    """Every event of the account, by the payment that it is about."""
    found: defaultdict[str, list[bytes]] = defaultdict(list)
    key = {"Authorization": "Bearer " + till.gateways.platform.api_key}
    async with aiohttp.ClientSession(till.stripe_url, headers=key) as session:
        asked: dict[str, str] = {"limit": "100"}
        while True:
            async with session.get("/v1/events", params=asked) as response:
                page = await response.json()
            for event in page["data"]:
                about = event["data"]["object"]
                found[about["id"] if about["object"] == "payment_intent" else about["payment_intent"]].insert(
                    0, orjson.dumps(event)
                )
            if not page["has_more"]:
                return found
            asked["starting_after"] = page["data"][-1]["id"]


async def deliver(till: Till, bodies: Sequence[bytes]) -> None:
    """As the edge takes them in, once their signature is verified."""
    async with till.shell.database.transaction([till.tenant_id]) as connection:
        for body in bodies:
            await webhooks.store(connection, till.tenant_id, read_notice(body))


# --- The end -------------------------------------------------------------------------------------------------------------


async def are_at_their_end(till: Till, story: Story, payment_ids: Sequence[UUID]) -> None:
    """These were told all there is, and need nobody to compare."""
    await till.all_until(payment_ids, *AT_REST)
    assert Counter((await ends(till, payment_ids)).values()) == Counter({story.end: len(payment_ids)})


async def one_end(till: Till, story: Story) -> None:
    """What was not told is come upon by the reconciliation; then every payment and its books are as they must be.

    With no grace at all whatever is under way differs, so nothing is compared before it rests: neither what the notices have
    begun, nor what the first comparison has, by which every payment is at its end. Then a second finds nothing left.
    """
    payment_ids = [row["id"] for row in await till.as_admin("SELECT id FROM payment WHERE tenant_id = $1", till.tenant_id)]
    await till.all_until(payment_ids, *AT_REST)
    await compare(till)
    await are_at_their_end(till, story, payment_ids)
    await compare(till)
    breaks = "SELECT kind, subject, state FROM reconciliation_break WHERE tenant_id = $1 AND state = 'open'"
    assert await till.as_admin(breaks, till.tenant_id) == []
    await till.agreed_books()


async def compare(till: Till) -> None:
    """The books with the provider's, once, with no grace."""
    moment, run_id = now(), new_id()
    await till.tell(
        RequestReconciliation(
            reconciliation_id=run_id,
            window_from=moment - timedelta(hours=1),
            window_to=moment + timedelta(hours=1),
            grace=timedelta(0),
            requested_by="test",
        )
    )
    reconciler = Reconciler(till.shell, till.gateways.of)
    while await reconciler.run_one(None):
        pass
