"""Verbs whose work lies in a module of its own, imported only when the verb is called."""

from pathlib import Path
from typing import Annotated, Literal

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
    admin: Annotated[
        str | None, typer.Option("--admin-email", "--admin", metavar="EMAIL", help="Its owner's; admin@SLUG.test by default.")
    ] = None,
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "GBP",
    country: Annotated[str, typer.Option(help="ISO 3166.")] = "GB",
    json: Json = False,
) -> int | None:
    """Make a tenant and its first client, and invite its owner, or find them again."""
    from deploy.cli import tenants

    return tenants.onboard(slug=slug, name=name, admin=admin, currency=currency, country=country, json=json)


@verb
def list_tenants(*, json: Json = False) -> int | None:
    """List the tenants."""
    from deploy.cli import tenants

    return tenants.list_tenants(json=json)


@verb
def move(
    slug: str,
    *,
    to: Annotated[str, typer.Option(metavar="CELL", help="Where it is to be.")],
    origin: Annotated[
        str, typer.Option("--from", metavar="CELL", help="Where it was, if a move was interrupted after it was over.")
    ] = "main",
    owners: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="The addresses of the databases' owners, by cell and service; those of the running stack by default.",
        ),
    ] = None,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Give up a move that was interrupted before its door was closed.")
    ] = False,
    json: Json = False,
) -> int | None:
    """Move a tenant to another cell while it trades.

    Its rows are copied, its door is closed for seconds, and it opens in the other cell. A move that was interrupted goes on when
    the same is said again.
    """
    from deploy.cli import moving

    return moving.run(slug=slug, to=to, origin=origin, owners=owners, cancel=cancel, json=json)


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


Service = Annotated[str | None, typer.Option(help="One service; all of them by default.")]


@verb
def positions_list(*, service: Service = None, json: Json = False) -> int | None:
    """List the consumers' positions, with those whose log is not the one they knew."""
    from deploy.cli import positions

    return positions.show(service=service, json=json)


@verb
def positions_adopt(
    *,
    reason: Annotated[str, typer.Option(help="Why these logs are the right ones; audited.")],
    service: Service = None,
    json: Json = False,
) -> int | None:
    """Read the logs that are not those we knew, from their beginnings."""
    from deploy.cli import positions

    return positions.adopt(service=service, reason=reason, json=json)


@verb
def sources_list(*, service: Service = None, json: Json = False) -> int | None:
    """List the publishers that are paused, each for one tenant."""
    from deploy.cli import sources

    return sources.show(service=service, json=json)


OfTenant = Annotated[str | None, typer.Option(metavar="TENANT_ID", help="Whose; nobody's that can be believed by default.")]


@verb
def sources_pause(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="As its envelopes name it.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; audited.")],
    tenant: OfTenant = None,
    service: Service = None,
    json: Json = False,
) -> int | None:
    """Hold back what a publisher sends for one tenant."""
    from deploy.cli import sources

    return sources.decide(action="pause", source=source, tenant=tenant, service=service, body={"reason": reason}, json=json)


@verb
def sources_resume(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="As its envelopes name it.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; audited.")],
    tenant: OfTenant = None,
    skip: Annotated[bool, typer.Option("--skip", help="Give up what was held back.")] = False,
    service: Service = None,
    json: Json = False,
) -> int | None:
    """Decide what was held back, in its order, and go on."""
    from deploy.cli import sources

    body = {"reason": reason, "skip": skip}
    return sources.decide(action="resume", source=source, tenant=tenant, service=service, body=body, json=json)


@verb
def rebuild(service: str, projection: str, *, json: Json = False) -> int | None:
    """Rebuild a projection from its topics.

    Beside the live one, without a side effect; then the two are swapped.
    """
    from deploy.cli import repair

    return repair.rebuild(service=service, projection=projection, json=json)


@verb
def timeline(
    order: Annotated[str, typer.Argument(metavar="ORDER", help="An order's id or number, or a checkout's id.")],
    *,
    tenant: Annotated[str | None, typer.Option(metavar="SLUG", help="Whose; all of them are asked by default.")] = None,
    json: Json = False,
) -> int | None:
    """Tell an order's whole story.

    Requests, events, provider calls, retries and compensations of all services, with causes and durations.
    """
    from deploy.cli import timeline as it

    return it.run(order=order, tenant=tenant, json=json)


@verb
def invariants(
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, and serve metrics.")] = False,
    tenant: Annotated[str | None, typer.Option(metavar="SLUG", help="One tenant; all of them by default.")] = None,
    patience: Annotated[float, typer.Option(min=0, help="How long something must be wrong to count.")] = 10,
    checkout_limit: Annotated[int, typer.Option(min=0, help="Seconds a checkout may take to its end.")] = 1_200,
    capture_limit: Annotated[int, typer.Option(min=0, help="Seconds from an order to its money.")] = 300,
    unknown_limit: Annotated[int, typer.Option(min=0, help="Seconds a payment's outcome may be unknown.")] = 900,
    refund_limit: Annotated[int, typer.Option(min=0, help="Seconds a refund may take.")] = 432_000,
    orphan_limit: Annotated[int, typer.Option(min=0, help="Seconds until money without an order has gone back.")] = 1_200,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")] = 5,
    metrics_host: Annotated[str, typer.Option(help="Where --watch serves metrics: an address of this machine.")] = "127.0.0.1",
    metrics_port: Annotated[int, typer.Option(min=0, help="And its port; 0 takes a free one.")] = 9185,
    json: Json = False,
) -> int | None:
    """Check what must always be so.

    Money, charges, orders, stock and ledger, from the topics, the provider's lists and what is open over HTTP.
    """
    from deploy.cli.invariants.check import Limits
    from deploy.cli.invariants.run import run
    from deploy.cli.invariants.run import watch as keep_watching

    limits = Limits(
        checkout=checkout_limit, capture=capture_limit, unknown=unknown_limit, refund=refund_limit, orphan=orphan_limit
    )
    if not watch:
        return run(tenant=tenant, limits=limits, patience_seconds=patience, json=json)
    return keep_watching(
        tenant=tenant,
        limits=limits,
        patience_seconds=patience,
        every_seconds=every,
        served_at=(metrics_host, metrics_port),
        json=json,
    )


@verb
def reconcile(
    *,
    tenant: Annotated[str | None, typer.Option(metavar="SLUG", help="One tenant; all of them by default.")] = None,
    days: Annotated[int, typer.Option(min=1, max=400, help="How far to look back.")] = 8,
    grace_seconds: Annotated[
        int, typer.Option("--grace-seconds", min=0, max=86_400, help="How young a difference may be to count as on its way.")
    ] = 900,
    json: Json = False,
) -> int | None:
    """Compare the books with the provider's, now.

    What is provable is repaired; a break that is left is a failure.
    """
    from deploy.cli import payments

    return payments.reconcile(tenant=tenant, days=days, grace_seconds=grace_seconds, json=json)


@verb
def reviews_list(
    *,
    tenant: Annotated[str | None, typer.Option(metavar="SLUG", help="One tenant; all of them by default.")] = None,
    json: Json = False,
) -> int | None:
    """List what waits for a person.

    Payments, refunds, breaks and disputes, the oldest first, with what may be done about each.
    """
    from deploy.cli import payments

    return payments.list_reviews(tenant=tenant, json=json)


@verb
def break_close(
    break_id: Annotated[str, typer.Argument(metavar="BREAK")],
    *,
    tenant: Annotated[str, typer.Option(metavar="SLUG", help="Whose books it is in.")],
    reason: Annotated[str, typer.Option(help="Why it cannot be mended; audited.")],
    json: Json = False,
) -> int | None:
    """Close one that nobody can mend.

    It stays on record, and opens anew if either side moves.
    """
    from deploy.cli import payments

    return payments.close_break(break_id=break_id, tenant=tenant, reason=reason, json=json)


@verb
def unknown_list(
    *,
    tenant: Annotated[str | None, typer.Option(metavar="SLUG", help="One tenant; all of them by default.")] = None,
    json: Json = False,
) -> int | None:
    """List the outcomes that nobody knows."""
    from deploy.cli import payments

    return payments.list_unknown(tenant=tenant, json=json)


@verb
def unknown_resolve(
    payment_id: Annotated[str, typer.Argument(metavar="PAYMENT")],
    *,
    verdict: Annotated[Literal["read-again", "did-not-happen"], typer.Option(help="What is to be believed.")],
    reason: Annotated[str, typer.Option(help="Why; audited.")],
    json: Json = False,
) -> int | None:
    """Have one looked into now.

    The provider is read before a word of yours counts.
    """
    from deploy.cli import payments

    return payments.resolve_unknown(payment_id=payment_id, verdict=verdict, reason=reason, json=json)


@verb
def keys_rotate(
    what: Annotated[
        Literal["master", "signing"],
        typer.Argument(help="What seals stored secrets, or what signs access tokens."),
    ],
    *,
    json: Json = False,
) -> int | None:
    """Change a key, and nobody notices.

    signing: the next key signs, which has been published; the one before is believed until its last token ends.
    master: the stack makes a new one, and all that is sealed is put under it. Where you set CARTWRIGHT_MASTER_KEY yourself,
    first start identity and payments with the new one, and the old one as CARTWRIGHT_PREVIOUS_MASTER_KEY; once this says
    that nothing is left, the old one may go.
    """
    from deploy.cli import keys

    return {"master": keys.rotate_master, "signing": keys.rotate_signing}[what](json=json)


@verb
def keys_revoke(
    kid: Annotated[str, typer.Argument(metavar="KID", help="The id of a signing key, as in the header of its tokens.")],
    *,
    json: Json = False,
) -> int | None:
    """Have nobody believe a signing key any more, at once."""
    from deploy.cli import keys

    return keys.revoke(kid, json=json)
