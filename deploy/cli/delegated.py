"""Verbs whose work lies in a module of its own, imported only when the verb is called."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.errors import verb

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@verb
def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running.")] = False,
    json: Json = False,
) -> int | None:
    """Buy something, and show what became of it.

    A tenant, a small catalogue, ten orders: ordered must be captured, nothing lost, nothing twice.
    """
    from deploy.cli import demo as it

    return it.run(keep=keep, json=json)


@verb
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="A retailer's order history.")],
    *,
    invoices: Annotated[int | None, typer.Option(min=1, help="Only the first N invoices.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Shoppers at once.")] = 32,
    tenant: Annotated[str, typer.Option(metavar="SLUG")] = "online-retail",
    json: Json = False,
) -> int | None:
    """Buy a real order history, reconciled to the penny."""
    from deploy.cli import replay as it

    return it.run(file=file, invoices=invoices, concurrency=concurrency, tenant=tenant, json=json)


@verb
def onboard(
    slug: str,
    *,
    name: Annotated[str | None, typer.Option(help="The slug by default.")] = None,
    admin: Annotated[str | None, typer.Option(metavar="EMAIL", help="admin@SLUG.test by default.")] = None,
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "GBP",
    country: Annotated[str, typer.Option(help="ISO 3166.")] = "GB",
    json: Json = False,
) -> int | None:
    """Make a tenant and its first client, or find them again."""
    from deploy.cli import tenants

    return tenants.onboard(slug=slug, name=name, admin=admin, currency=currency, country=country, json=json)


@verb
def list_tenants(*, json: Json = False) -> int | None:
    """List the tenants."""
    from deploy.cli import tenants

    return tenants.list_tenants(json=json)


@verb
def publish(file: Annotated[Path, typer.Argument(help="CloudEvents, one JSON object a line.")]) -> int | None:
    """Publish facts as another system would, exactly as given."""
    from deploy.cli import feed

    return feed.publish(file=file)


@verb
def validate(file: Annotated[Path, typer.Argument(help="CloudEvents, one JSON object a line.")]) -> int | None:
    """Tell what consumers would refuse."""
    from deploy.cli import feed

    return feed.validate(file=file)


@verb
def bench_relay(
    *,
    rows: Annotated[int, typer.Option(min=1_000, help="Events a turn.")] = 100_000,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each contender; medians count.")] = 5,
    published: Annotated[int, typer.Option(min=1, help="Rows already published, for the flatness.")] = 1_000_000,
    rate: Annotated[int, typer.Option(min=1, help="Events a second, for the latency.")] = 1_000,
    seconds: Annotated[int, typer.Option(min=1, help="How long the latency is measured.")] = 30,
    json: Json = False,
) -> int | None:
    """Measure outbox to Kafka.

    Beside a loop of sends and faststream-outbox, in the same run; with the latency and the cost of idling.
    """
    from deploy.cli import bench

    options = {"rows": rows, "rounds": rounds, "published": published, "rate": rate, "seconds": seconds}
    return bench.run("relay", options, json=json)


@verb
def bench_inbox(
    *,
    rows: Annotated[int, typer.Option(min=1_000, help="Messages a turn.")] = 100_000,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each contender; medians count.")] = 5,
    json: Json = False,
) -> int | None:
    """Measure Kafka to effects.

    Beside a transaction a message and a consumer that only reads, in the same run.
    """
    from deploy.cli import bench

    return bench.run("inbox", {"rows": rows, "rounds": rounds}, json=json)


Service = Annotated[str | None, typer.Option(help="One service; all of them by default.")]


@verb
def parked_list(
    *,
    service: Service = None,
    tenant: Annotated[str | None, typer.Option(metavar="TENANT_ID")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="An event type.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why it was set aside.")] = None,
    state: Annotated[str | None, typer.Option(help="rejected, parked, queued, replayed or discarded.")] = None,
    json: Json = False,
) -> int | None:
    """List the messages that are set aside."""
    from deploy.cli import repair

    return repair.search(service=service, tenant=tenant, type_=type_, reason=reason, state=state, json=json)


@verb
def parked_show(
    parked_id: Annotated[str, typer.Argument(metavar="ID")], *, service: Service = None, json: Json = False
) -> int | None:
    """Show one of them whole."""
    from deploy.cli import repair

    return repair.show(parked_id=parked_id, service=service, json=json)


@verb
def parked_replay(
    parked_id: Annotated[str, typer.Argument(metavar="ID")], *, service: Service = None, json: Json = False
) -> int | None:
    """Decide it again, then what waits behind it."""
    from deploy.cli import repair

    return repair.decide(parked_id=parked_id, service=service, action="replay", reason="", json=json)


@verb
def parked_discard(
    parked_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    reason: Annotated[str, typer.Option(help="Why it will never be applied; audited.")],
    service: Service = None,
    json: Json = False,
) -> int | None:
    """Never decide it; what waits behind it goes on."""
    from deploy.cli import repair

    return repair.decide(parked_id=parked_id, service=service, action="discard", reason=reason, json=json)


@verb
def rebuild(service: str, projection: str, *, json: Json = False) -> int | None:
    """Rebuild a projection from its topics.

    Beside the live one, without a side effect; then the two are swapped.
    """
    from deploy.cli import repair

    return repair.rebuild(service=service, projection=projection, json=json)
