"""The replay itself: put a file's products on sale, buy it, give its cancellations back, compare four accounts of the money."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from deploy.cli.api import Api, connected
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import echo, print_json, progress
from deploy.cli.replay.buying import Bought, buy_all
from deploy.cli.replay.cancellations import Refunds, match
from deploy.cli.replay.cpu import cpu_seconds, per_order
from deploy.cli.replay.refunding import Refunded, refund_all
from deploy.cli.replay.report import Account, Report
from deploy.cli.replay.rows import CURRENCY, History, HistoryError, read_history
from deploy.cli.settlement import Settlement, read_refunds, settled
from deploy.cli.shop import Shop
from deploy.cli.supply import Offer, supply
from deploy.cli.tenants import Wish, onboarded
from deploy.local.sessions import running_stack

_CATEGORY = "gifts"
_TOLD_DISCREPANCIES = 10


def run(*, file: Path, invoices: int | None, concurrency: int, tenant: str, json: bool) -> int:
    """Replay a file and print the report; 1 when it does not reconcile."""
    history, wish = read_file(file, invoices), Wish.of(tenant, currency=CURRENCY)
    say = progress()
    say(f"{history.invoices_read} invoices read, {len(history.purchases)} to buy, {len(history.products)} products")

    async def replay() -> Report:
        async with running_stack(say=say) as stack, connected(stack, connections=concurrency + 4) as api:
            return await _replay(api, wish, history, concurrency, say)

    report = uvloop.run(replay())
    discrepancies = report.discrepancies()
    for discrepancy in discrepancies[:_TOLD_DISCREPANCIES]:
        echo(discrepancy)
    if json:
        print_json(report.as_json())
    else:
        print(report.as_text())
    return ExitCode.NOT_SO if discrepancies else ExitCode.DONE


def read_file(file: Path, invoices: int | None) -> History:
    """Read an order history. Raises CommandError with one line that says what is wrong with the file."""
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            return read_history(lines, invoices)
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}", ExitCode.USAGE) from error
    except HistoryError as error:
        raise CommandError(f"{file}: {error}", ExitCode.USAGE) from error


async def _replay(api: Api, wish: Wish, history: History, concurrency: int, say: Callable[[str], None]) -> Report:
    found = await onboarded(api, wish)
    if not found.is_active:
        raise CommandError(f"tenant {wish.slug} is {found.tenant['status']}: it cannot sell")
    if found.tenant["currency"] != CURRENCY:
        sells_in = found.tenant["currency"]
        raise CommandError(
            f"tenant {wish.slug} sells in {sells_in}, and the file's prices are in {CURRENCY}: name another with --tenant",
            ExitCode.USAGE,
        )
    shop = found.shop(api)
    await supply(shop, CURRENCY, _offers(history), say)
    known_before = frozenset([order["checkout_id"] async for order in shop.orders()])
    used = cpu_seconds(api.stack.home)
    with _bar("buying", len(history.purchases)) as advance:
        bought = await buy_all(shop, history.purchases, concurrency, advance)
    say("waiting for every capture to settle")
    settlement = await settled(api, shop.tenant_id, bought.checkout_ids, bought.confirmed.keys())
    used_now = cpu_seconds(api.stack.home)
    orders = await _orders(shop, bought)
    refunds = match(history, bought.confirmed.values())
    with _bar("refunding", len(refunds.refunds)) as advance:
        refunded = await refund_all(shop, _ids_by_invoice(bought, orders), refunds.refunds, concurrency, advance)
    accounts = {
        "file": _by_the_file(bought, refunds),
        "orders": _by_our_orders(orders, refunded),
        "provider": await _by_the_provider(api, settlement),
        "ledger": await _by_the_ledger(shop, orders),
    }
    totals = {checkout_id: [order["total_minor"] for order in found] for checkout_id, found in orders.items()}
    report = Report(history, bought, settlement, refunds, refunded, totals, accounts, known_before)
    if report.new_orders:
        say(per_order(used, used_now, report.new_orders))
    return report


def _offers(history: History) -> list[Offer]:
    wanted = history.wanted()
    return [Offer(it.sku, it.name, _CATEGORY, it.unit_minor, wanted[it.sku]) for it in history.products.values()]


Orders = dict[str, list[dict[str, Any]]]
"""Confirmed orders by checkout id."""


async def _orders(shop: Shop, bought: Bought) -> Orders:
    found: Orders = defaultdict(list)
    async for order in shop.orders():
        if order["checkout_id"] in bought.checkout_ids and order["state"] == "confirmed":
            found[order["checkout_id"]].append(order)
    return found


def _ids_by_invoice(bought: Bought, orders: Orders) -> dict[str, str]:
    return {bought.confirmed[it].number: found[0]["id"] for it, found in orders.items() if it in bought.confirmed}


def _by_the_file(bought: Bought, refunds: Refunds) -> Account:
    account = Account({checkout_id: purchase.total_minor for checkout_id, purchase in bought.confirmed.items()})
    checkouts = {purchase.number: checkout_id for checkout_id, purchase in bought.confirmed.items()}
    for refund in refunds.refunds:
        checkout_id = checkouts[refund.purchase.number]
        account.refunded[checkout_id] = account.refunded.get(checkout_id, 0) + refund.amount_minor
    return account


def _by_our_orders(orders: Orders, refunded: Refunded) -> Account:
    account = Account()
    for checkout_id, found in orders.items():
        account.gross[checkout_id] = sum(order["total_minor"] for order in found)
        account.refunded[checkout_id] = sum(refunded.by_order.get(order["id"], 0) for order in found)
    return account


async def _by_the_provider(api: Api, settlement: Settlement) -> Account:
    gross = {checkout_id: sum(amounts) for checkout_id, amounts in settlement.captured.items()}
    return Account(gross, await read_refunds(api, settlement))


async def _by_the_ledger(shop: Shop, orders: Orders) -> Account:
    """Sum the entries of the run's payments; a refund that came back is one that was not made."""
    account, checkouts = Account(), {order["payment_id"]: it for it, found in orders.items() for order in found}
    signs = {"capture": (account.gross, 1), "refund": (account.refunded, 1), "refund_return": (account.refunded, -1)}
    async for entry in shop.ledger_entries():
        checkout_id = checkouts.get(entry["payment_id"])
        if checkout_id is not None and entry["kind"] in signs:
            sums, sign = signs[entry["kind"]]
            sums[checkout_id] = sums.get(checkout_id, 0) + sign * entry["amount_minor"]
    return account


@contextmanager
def _bar(doing: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar on stderr and yield what moves it on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Twice a second: drawing shares two cores with what is being measured.
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=2) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda: bar.advance(task)
