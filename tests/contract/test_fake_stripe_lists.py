"""The fake Stripe's lists: each object once, newest first, at the cost of a page."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

from deploy.local.fake_stripe.accounts import Account
from deploy.local.fake_stripe.listing import Listing, Window
from deploy.local.fake_stripe.store import Store
from tests.shared.fakes import INTENTS, intent_of
from tests.shared.fakes import Account as Client


async def test_paging_visits_each_intent_once_newest_first_while_more_arrive(account: Client) -> None:
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


def test_a_page_out_of_20_000_is_what_a_full_scan_would_give_and_costs_only_itself(tmp_path: Path) -> None:
    """Random windows against the obvious definition; then deep pages beside those of a list a fortieth as long."""
    chance, rows = random.Random(1), [(f"pi_{number}", number // 7) for number in range(20_000)]
    store = Store(tmp_path / "state")
    long, short = (Account(store, name).intents for name in ("acct_long", "acct_short"))
    for name, at in rows:
        long.put(intent_of(name, created=at))
    for name, at in rows[:500]:
        short.put(intent_of(f"pi_short_{name[3:]}", created=at))
    listing = long.listing()
    for _ in range(40):
        cursor, (since, until) = chance.choice(rows)[0], sorted(chance.sample(range(2900), 2))
        window = Window(chance.randint(1, 100), since=since, until=until, starting_after=cursor)
        older = [name for name, at in rows[: int(cursor[3:])] if since <= at <= until][::-1]
        found = listing.page(window)
        assert (found.ids, found.has_more) == (older[: window.limit], len(older) > window.limit)
        found = listing.page(replace(window, starting_after=None, ending_before=cursor))
        newer = [name for name, at in rows[int(cursor[3:]) + 1 :] if since <= at <= until]
        assert (found.ids, found.has_more) == (newer[: window.limit][::-1], len(newer) > window.limit)
    assert _cost_of_pages(listing, "pi_") < 10 * _cost_of_pages(short.listing(), "pi_short_")
    store.close()


def _cost_of_pages(listing: Listing, name: str) -> float:
    began = time.process_time()
    for number in range(300):
        listing.page(Window(100, starting_after=f"{name}{100 + number % 400}"))
    return time.process_time() - began
