"""`provision`: what a deployment stands on, made on servers of others, or told before that."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli.cells import cells_of
from deploy.cli.errors import verb

if TYPE_CHECKING:
    from deploy.local.provisioning import Wanted


def _part(name: str) -> str:
    from deploy.local.provisioning import PARTS

    if name not in PARTS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(PARTS)}")
    return name


@verb
def provision(
    *,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be done, and do nothing.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            parser=_part, metavar="PART", help="See to this alone: databases, topics, users or rights. May be given twice."
        ),
    ] = None,
    partitions: Annotated[int | None, typer.Option(min=1, help="Of each topic that has several.")] = None,
    replication: Annotated[int | None, typer.Option(min=1, help="Of each topic.")] = None,
    min_in_sync: Annotated[int | None, typer.Option("--min-in-sync", min=1, help="Of each topic.")] = None,
    secrets: Annotated[
        Path | None,
        typer.Option(help="A folder for roles' addresses and users' passwords, as the chart's Secrets have them."),
    ] = None,
    cell: Annotated[
        list[str] | None, typer.Option("--cell", metavar="NAME", help="The databases of this cell too. May be given twice.")
    ] = None,
) -> None:
    """Make databases, roles, topics, users and rights on servers that are there.

    They are those of CARTWRIGHT_POSTGRES_ADMIN_URL and CARTWRIGHT_KAFKA_BOOTSTRAP_SERVERS. Doing it again changes nothing.
    """
    from deploy.local.environment import refuse_unknown_variables
    from deploy.local.provisioning import PARTS, Wanted

    refuse_unknown_variables()
    parts = [part for part in PARTS if not only or part in only]
    wanted = Wanted(parts, partitions, replication, min_in_sync, secrets, cells_of(cell))
    asyncio.run(_provision(wanted, changes=not plan))


async def _provision(wanted: "Wanted", *, changes: bool) -> None:
    from deploy.local.provisioning import provision as lacking

    count = 0
    async for line in lacking(wanted, changes=changes):
        print(line, flush=True)
        count += line[0] != "!"
    verb = "done" if changes else "to be done"
    print(f"{count} {verb}" if count else f"nothing {verb}", flush=True)
