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
