"""The fake Stripe's lists: each object once, newest first, at the cost of a page."""

from __future__ import annotations

import random
import time
from dataclasses import replace

from deploy.local.fake_stripe.listing import Listing, Window
from tests.shared.fakes import INTENTS, Account


async def test_paging_visits_each_intent_once_newest_first_while_more_arrive(account: Account) -> None:
    """The SDK's own auto-paging over a list that grows at its head; then backwards by `ending_before`."""
    made = [(await account.create(customer="cus_1" if n % 3 else "cus_2")).json["id"] for n in range(25)]
    page = await account.sdk.payment_intents.list_async({"limit": 4})
    seen = []
    async for intent in page.auto_paging_iter():
        seen.append(intent.id)
        if len(seen) == 6:
            await account.create()
    assert seen == made[::-1]

    back = await account.sdk.payment_intents.list_async({"limit": 4, "ending_before": made[0]})
    assert ([row.id for row in back.data], back.has_more) == (made[4:0:-1], True)
    theirs = await account.sdk.payment_intents.list_async({"limit": 100, "customer": "cus_2"})
    assert [row.id for row in theirs.data] == [made[n] for n in range(24, -1, -1) if n % 3 == 0]
    future = await account.sdk.payment_intents.list_async({"created": {"gt": int(time.time()) + 60}})
    assert future.data == []
    unknown = await account.ask("GET", INTENTS, {"starting_after": "pi_none"})
    assert (unknown.status, unknown.error["param"]) == (400, "starting_after")
    assert (await account.ask("GET", INTENTS, {"limit": "101"})).error["code"] == "parameter_invalid_integer"


def test_a_page_out_of_50_000_is_what_a_full_scan_would_give_and_costs_only_itself() -> None:
    """Random windows against the obvious definition; then deep pages beside those of a list a hundredth as long."""
    chance, listing, rows = random.Random(1), Listing(), list[tuple[str, int]]()
    for number in range(50_000):
        rows.append((f"pi_{number}", number // 7))
        listing.add(*rows[-1])
    for _ in range(40):
        cursor, (since, until) = chance.choice(rows)[0], sorted(chance.sample(range(7200), 2))
        window = Window(chance.randint(1, 100), since=since, until=until, starting_after=cursor)
        older = [name for name, at in rows[: int(cursor[3:])] if since <= at <= until][::-1]
        found = listing.page(window)
        assert (found.ids, found.has_more) == (older[: window.limit], len(older) > window.limit)
        found = listing.page(replace(window, starting_after=None, ending_before=cursor))
        newer = [name for name, at in rows[int(cursor[3:]) + 1 :] if since <= at <= until]
        assert (found.ids, found.has_more) == (newer[: window.limit][::-1], len(newer) > window.limit)
    short = Listing()
    for row in rows[:500]:
        short.add(*row)
    assert _cost_of_pages(listing) < 20 * _cost_of_pages(short)


def _cost_of_pages(listing: Listing) -> float:
    began = time.process_time()
    for number in range(5_000):
        listing.page(Window(100, starting_after=f"pi_{100 + number % 400}"))
    return time.process_time() - began
