"""The verbs of `parked`; what they do is imported only when one is called."""

from typing import Annotated

import typer

from deploy.cli.delegated import Json, Service
from deploy.cli.errors import CommandError, ExitCode, verb


@verb
def listed(
    *,
    service: Service = None,
    tenant: Annotated[str | None, typer.Option(metavar="TENANT_ID")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="An event type.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why it was parked.")] = None,
    source: Annotated[str | None, typer.Option(help="Who sent it, by its ce_source.")] = None,
    state: Annotated[str | None, typer.Option(help="rejected, parked, queued, replayed or discarded.")] = None,
    json: Json = False,
) -> int | None:
    """List the messages that are parked."""
    from deploy.cli import repair

    return repair.search(service=service, json=json, tenant_id=tenant, type=type_, reason=reason, source=source, state=state)


@verb
def show(parked_id: Annotated[str, typer.Argument(metavar="ID")], *, service: Service = None, json: Json = False) -> int | None:
    """Show one of them whole."""
    from deploy.cli import repair

    return repair.show(parked_id=parked_id, service=service, json=json)


ParkedId = Annotated[str | None, typer.Argument(metavar="[ID]", help="One of them; or --all, and which.")]
All = Annotated[bool, typer.Option("--all", help="Each that is not decided, the oldest first.")]
ParkedOf = Annotated[str | None, typer.Option("--tenant", metavar="TENANT_ID", help="With --all: this tenant's.")]
OfType = Annotated[str | None, typer.Option("--type", help="With --all: those of this event type.")]
Because = Annotated[str | None, typer.Option("--because", metavar="CODE", help="With --all: those that were parked for this.")]


@verb
def replay(
    parked_id: ParkedId = None,
    *,
    every: All = False,
    tenant: ParkedOf = None,
    type_: OfType = None,
    because: Because = None,
    service: Service = None,
    json: Json = False,
) -> int | None:
    """Decide it again, then what waits behind it."""
    return _decided("replay", "", parked_id, tenant, type_, because, service, every=every, json=json)


@verb
def discard(
    parked_id: ParkedId = None,
    *,
    reason: Annotated[str, typer.Option(help="Why it will never be applied; audited.")],
    every: All = False,
    tenant: ParkedOf = None,
    type_: OfType = None,
    because: Because = None,
    service: Service = None,
    json: Json = False,
) -> int | None:
    """Never decide it; what waits behind it goes on."""
    return _decided("discard", reason, parked_id, tenant, type_, because, service, every=every, json=json)


def _decided(
    action: str,
    reason: str,
    parked_id: str | None,
    tenant: str | None,
    type_: str | None,
    because: str | None,
    service: str | None,
    *,
    every: bool,
    json: bool,
) -> int:
    """The same of the one that is meant, or of all that are found."""
    from deploy.cli import repair

    if (parked_id is None) is not every:
        raise CommandError("say which: an id, or --all", ExitCode.USAGE)
    if parked_id is not None:
        return repair.decide(parked_id=parked_id, service=service, action=action, reason=reason, json=json)
    return repair.decide_all(
        service=service, tenant=tenant, type_=type_, because=because, action=action, reason=reason, json=json
    )
