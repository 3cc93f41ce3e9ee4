"""`backup` and `restore`: the databases kept sealed, as of every second, and put back."""

import asyncio
import signal
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.errors import CommandError, ExitCode, verb
from deploy.cli.output import print_json, progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.backup.keeping import Wanted
    from deploy.backup.store import Store
    from deploy.local.state import Home

LATEST = "latest"

Folder = Annotated[
    Path | None, typer.Option(help="Where backups lie; beside the state directory by default, which is not where they are safe.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@verb
def backup(
    *,
    folder: Folder = None,
    once: Annotated[bool, typer.Option("--once", help="Take one now, with the log up to now, and end.")] = False,
    every_hours: Annotated[float, typer.Option(min=0.01, help="Between base backups.")] = 24,
    keep_days: Annotated[float, typer.Option(min=0.01, help="So far back every second can be gone back to.")] = 14,
    status: Annotated[
        bool, typer.Option("--status", help="Say how far back and forth it reaches; 1 when that is over a minute ago.")
    ] = False,
    json: Json = False,
) -> int:
    """Keep sealed backups of the four databases, until Ctrl-C.

    They are the running stack's, or those of CARTWRIGHT_POSTGRES_ADMIN_URL, whose user needs REPLICATION and pg_monitor. A base
    backup now and then, and the log as it is written: what is stored is never a minute behind.
    """
    from deploy.backup.keeping import Wanted
    from deploy.local.environment import refuse_unknown_variables

    refuse_unknown_variables()
    home, store = _store(folder, makes_key=not status)
    if status:
        return _show_status(store, json=json)
    wanted = Wanted(timedelta(hours=every_hours), timedelta(days=keep_days))
    asyncio.run(_keep(home, store, wanted, progress(), once=once))
    return ExitCode.DONE


@verb
def restore(
    *,
    to: Annotated[
        str | None, typer.Option(metavar="TIME", help="RFC 3339, such as 2026-11-30T10:15:00Z; or latest.", show_default=False)
    ] = None,
    folder: Folder = None,
    into: Annotated[
        Path | None,
        typer.Option(help="Lay it out in this folder, for a server that is run elsewhere, and leave the stack's alone."),
    ] = None,
    delete_replaced: Annotated[
        bool, typer.Option("--delete-replaced", help="Delete the databases that restored ones took the place of.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Say what others know and the running stack's databases do not; 1 when there is any.")
    ] = False,
    tenant: Annotated[str | None, typer.Option(metavar="SLUG", help="With --report: one tenant; all of them by default.")] = None,
    days: Annotated[int, typer.Option(min=1, max=400, help="With --report: how far to look back at the provider.")] = 8,
    json: Json = False,
) -> int:
    """Put the databases back as they were at a moment.

    The stack must not run. What was there is kept beside, until --delete-replaced. Kafka and the provider have gone on: --report
    says, of the stack that runs again, what they know and the databases do not.
    """
    from deploy.local.environment import refuse_unknown_variables

    refuse_unknown_variables()
    if (to is not None) + delete_replaced + report != 1:
        raise CommandError("say one of --to TIME, --report and --delete-replaced", ExitCode.USAGE)
    if report:
        from deploy.cli import restored

        return restored.report(tenant=tenant, days=days, json=json)
    if delete_replaced:
        return _delete_replaced(json=json)
    told = asyncio.run(_restored(_moment(to or ""), folder, into.expanduser().resolve() if into else None, progress()))
    if json:
        print_json(told)
    else:
        print(
            f"restored in {told['seconds']:.1f} s; the last transaction in it is of {told['last_commit'] or 'before the backup'}"
        )
        if told["replaced"]:
            print(f"what was there is kept in {told['replaced']}: ./cartwright restore --delete-replaced")
    return ExitCode.DONE


def _store(folder: Path | None, *, makes_key: bool) -> "tuple[Home, Store]":
    from deploy.backup.keys import backup_keys
    from deploy.backup.store import Store
    from deploy.local.state import Home, default_home

    home = Home(default_home())
    home.prepare()
    where = folder.expanduser().resolve() if folder else home.path.with_name(f"{home.path.name}.backups")
    return home, Store(where, backup_keys(home, make=makes_key))


def _found(home: "Home") -> "Callable[[], str | None]":
    """Where the administrator connects, whenever asked; None while no stack runs."""
    from deploy.local.database_server import running_server
    from deploy.local.environment import variable

    return lambda: variable("POSTGRES_ADMIN_URL") or running_server(home)


async def _keep(home: "Home", store: "Store", wanted: "Wanted", say: "Callable[[str], None]", *, once: bool) -> None:
    from deploy.backup.keeping import Keeper

    keeper = Keeper(store, home, _found(home), wanted, say)
    if once:
        base = await keeper.take()
        say(f"any second from {base.ended_at:%F %T} UTC on can be gone back to, as far as the log in {store.folder} reaches")
        return
    leave = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, leave.set)
    say(f"backups are kept in {store.folder}; Ctrl-C ends that")
    await keeper.run(leave)


def _show_status(store: "Store", *, json: bool) -> int:
    from deploy.backup.keeping import BEHIND
    from libs.common.clock import now

    bases = store.bases()
    reached = store.reached(bases[-1].series) if bases else None
    behind = (now() - reached).total_seconds() if reached else None
    told = {
        "folder": str(store.folder),
        "base_backups": [base.ended_at.isoformat() for base in bases],
        "reaches_until": reached.isoformat() if reached else None,
        "seconds_behind": behind,
    }
    if json:
        print_json(told)
    elif reached:
        print(f"{len(bases)} base backups since {bases[0].ended_at:%F %T} UTC; all until {reached:%F %T} UTC, {behind:.0f} s ago")
    else:
        print(f"there is no backup in {store.folder}")
    return ExitCode.DONE if behind is not None and behind <= BEHIND.total_seconds() else ExitCode.NOT_SO


def _moment(given: str) -> datetime | None:
    """A moment, or None for the latest there is."""
    if given == LATEST:
        return None
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        message = f"--to {given!r} is no time of RFC 3339 with its zone, such as 2026-11-30T10:15:00Z, and not {LATEST}"
        raise CommandError(message, ExitCode.USAGE)
    return at


async def _restored(to: datetime | None, folder: Path | None, into: Path | None, say: "Callable[[str], None]") -> dict[str, Any]:
    from contextlib import nullcontext

    from deploy.backup.restoring import planned
    from deploy.backup.restoring import restore as put_back
    from deploy.local.environment import variable
    from libs.common.clock import now

    if variable("POSTGRES_ADMIN_URL") and not into:
        message = "CARTWRIGHT_POSTGRES_ADMIN_URL is a server elsewhere: --into FOLDER lays out a data directory for it"
        raise CommandError(message, ExitCode.USAGE)
    home, store = _store(folder, makes_key=False)
    with nullcontext() if into else home.hold():
        plan = planned(store, to)
        done = await put_back(store, home, plan, say, into)
        told = {
            "to": to.isoformat() if to else plan.reached.isoformat(),
            "at": now().isoformat(),
            "base_backup": done.base.ended_at.isoformat(),
            "last_commit": done.last_commit,
            "seconds": round(done.seconds, 3),
            "data": str(done.data),
            "replaced": str(done.replaced) if done.replaced else None,
        }
        if not into:
            home.record(restored=told)
    return told


def _delete_replaced(*, json: bool) -> int:
    import shutil

    from deploy.backup.restoring import replaced_ones
    from deploy.local.state import Home, default_home

    gone = replaced_ones(Home(default_home()))
    for each in gone:
        shutil.rmtree(each)
    if json:
        print_json({"deleted": [str(each) for each in gone]})
    else:
        print("\n".join(f"{each} is deleted" for each in gone) or "there is nothing to delete")
    return ExitCode.DONE
