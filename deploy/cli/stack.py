"""`up`, `down`, `status` and `logs`: the local stack."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deploy.cli.cells import cells_of
from deploy.cli.errors import CommandError, ExitCode, verb
from deploy.cli.output import print_json, progress

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from deploy.local.description import StackDescription
    from deploy.local.state import Home

Kind = Literal["embedded", "containers", "cluster"]
Access = Literal["open", "publishers", "closed"]


@verb
def up(
    *,
    detach: Annotated[bool, typer.Option("--detach", help="Return when everything is ready.")] = False,
    supervise: Annotated[bool, typer.Option("--supervise", help="Restart what crashes.")] = False,
    faults: Annotated[Path | None, typer.Option(help="Faults for the fake Stripe, as JSON.")] = None,
    kind: Annotated[Kind, typer.Option("--stack", help="How Postgres and Kafka are run.")] = "embedded",
    cluster: Annotated[
        bool, typer.Option("--cluster", help="The same as --stack cluster: PostgreSQL with a standby, three brokers.")
    ] = False,
    access: Annotated[
        Access | None,
        typer.Option("--broker", help="What Kafka lets those do who have no credentials.", show_default="publishers"),
    ] = None,
    open_broker: Annotated[bool, typer.Option("--open-broker", help="The same as --broker open: everything.")] = False,
    bare: Annotated[bool, typer.Option("--bare", help="Make no shops and log-ins to try it with.")] = False,
    workers: Annotated[
        list[str] | None,
        typer.Option("--workers", metavar="SERVICE=COUNT", help="So many of its workers, such as checkout=3."),
    ] = None,
    apis: Annotated[
        list[str] | None,
        typer.Option("--apis", metavar="SERVICE=COUNT", help="So many of its APIs; the gateway balances them."),
    ] = None,
    cell: Annotated[
        list[str] | None,
        typer.Option("--cell", metavar="NAME", help="Have this cell too, from now on: databases and workers of its own."),
    ] = None,
    opens: Annotated[bool, typer.Option("--open", help="Open the shop in a browser.")] = False,
    behind: Annotated[bool, typer.Option("--behind", hidden=True)] = False,
) -> int:
    """Start the stack, and stay until Ctrl-C.

    With --detach, return when it is ready. A running stack is found; --detach restarts what has died in it, --workers and
    --apis have it run so many from now on. It ends with addresses and log-ins to try it with, unless it is bare, or the
    databases are on a server of your own.
    """
    from deploy.local.environment import refuse_unknown_variables
    from deploy.local.state import Home, default_home
    from deploy.local.supervisor import BEHIND

    refuse_unknown_variables()
    kind = "cluster" if cluster else kind
    home, plan, wanted = Home(default_home()), _read_faults(faults), _wanted_access(access, open_broker=open_broker)
    greeting, copies, cells = _Greeting(is_bare=bare, opens=opens), _copies(workers, apis), cells_of(cell)
    if home.holder() and not behind:
        _demand_cells(home, cells)
        return _join_running(home, plan, copies, wanted, repair=detach, greeting=greeting)
    if not detach:
        stack = _Wanted(kind, wanted or "publishers", copies, cells, supervises=supervise)
        return _stay(home, stack, plan, greeting=None if behind else greeting)
    options = [*BEHIND, "--stack", kind, *(["--supervise"] if supervise else []), *(["--broker", wanted] if wanted else [])]
    options += [*_repeated("--workers", workers), *_repeated("--apis", apis), *_repeated("--cell", cell)]
    if faults:
        options += ["--faults", str(faults.resolve())]
    return _go_behind(home, options, greeting)


@verb
def down(*, purge: Annotated[bool, typer.Option("--purge", help="Delete its state as well.")] = False) -> None:
    """Stop the stack; --purge deletes its state."""
    from deploy.local.sessions import shut_down
    from deploy.local.state import Home, default_home

    home, say = Home(default_home()), progress()
    stopped = shut_down(home)
    say("the stack is stopped" if stopped else "no stack was running")
    if purge and home.purge():
        say(f"{home.path} is deleted")


@verb
def failover() -> int:
    """Have PostgreSQL's standby take over from its primary, which is dead or ends for it.

    Of a stack that `up --cluster` runs; the old primary then follows the new one. On Kubernetes the database's operator does it.
    """
    from deploy.local.sessions import fail_over
    from deploy.local.state import Home, default_home

    stack = asyncio.run(fail_over(Home(default_home()), progress()))
    _show(stack)
    return ExitCode.DONE if stack.state == "running" else ExitCode.NOT_SO


@verb
def status(*, as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> int:
    """Show where everything listens, and how it is."""
    from deploy.local.observing import observe
    from deploy.local.state import Home, default_home

    stack = asyncio.run(observe(Home(default_home())))
    if as_json:
        print_json(stack.as_json())
    else:
        _show(stack)
    return ExitCode.ENVIRONMENT if stack.state == "stopped" else ExitCode.DONE


@verb
def logs(
    process: Annotated[str | None, typer.Argument(help="cart.api, checkout.worker, kafka, …; all without it.")] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay and show what comes.")] = False,
) -> None:
    """Show the end of the logs."""
    from deploy.local.logs import show_logs
    from deploy.local.state import Home, default_home

    home = Home(default_home())
    names = sorted(file.stem for file in home.logs.glob("*.log"))
    if process is not None and process not in names:
        raise CommandError(f"there is no log of {process}; there are: {', '.join(names) or 'none yet'}", ExitCode.USAGE)
    show_logs([home.log(name) for name in names if process in (None, name)], follow=follow)


def _wanted_access(access: Access | None, *, open_broker: bool) -> Access | None:
    from deploy.local.environment import variable

    wanted: Access | None = "open" if open_broker else access
    if open_broker and access not in (None, "open"):
        raise CommandError(f"--open-broker and --broker {access} contradict each other", ExitCode.USAGE)
    if wanted and variable("KAFKA_BOOTSTRAP_SERVERS"):
        message = "CARTWRIGHT_KAFKA_BOOTSTRAP_SERVERS is set: who may do what there is not decided by --broker"
        raise CommandError(message, ExitCode.USAGE)
    return wanted


@dataclass(frozen=True, slots=True)
class _Greeting:
    """What `up` ends with beside the addresses."""

    is_bare: bool
    opens: bool

    async def give(self, stack: "StackDescription") -> None:
        from deploy.cli import welcome
        from deploy.local.environment import variable

        if not self.is_bare and not variable("POSTGRES_ADMIN_URL"):
            print("\n".join(await welcome.told(stack, progress())), flush=True)
        if self.opens:
            welcome.opened(stack)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """How a stack is to be run."""

    kind: Kind
    access: Access
    copies: dict[str, int]
    cells: tuple[str, ...]
    supervises: bool


def _copies(workers: list[str] | None, apis: list[str] | None) -> dict[str, int]:
    from deploy.local.copies import asked
    from deploy.local.errors import StackError

    try:
        return asked("worker", workers or ()) | asked("api", apis or ())
    except StackError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error


def _demand_cells(home: "Home", wanted: tuple[str, ...]) -> None:
    """Raise CommandError for a cell that a running stack does not have: its APIs were told of the others when they started."""
    if missing := {*wanted} - {*home.read().get("cells", ())}:
        message = f"the stack is running without cell {', '.join(sorted(missing))}: stop it with ./cartwright down first"
        raise CommandError(message, ExitCode.NOT_SO)


def _repeated(option: str, values: list[str] | None) -> list[str]:
    return [word for value in values or () for word in (option, value)]


def _stay(home: "Home", wanted: _Wanted, faults: object, *, greeting: _Greeting | None) -> int:
    from deploy.local.stack import Stack
    from deploy.local.supervisor import run_until_told

    stack = Stack.from_environment(
        home.path,
        copies=wanted.copies,
        cells=wanted.cells,
        kind=wanted.kind,
        access=wanted.access,
        supervise=wanted.supervises,
        say=progress(),
    )

    async def greet(greeting: _Greeting, description: "StackDescription") -> None:
        _show(description)
        await greeting.give(description)
        print("Ctrl-C stops the stack and keeps its state.", flush=True)

    greeted: list[asyncio.Task[None]] = []

    def ready(description: "StackDescription") -> None:
        if greeting is not None:  # meanwhile it listens: Ctrl-C waits for no greeting
            greeted.append(asyncio.create_task(greet(greeting, description)))

    return asyncio.run(run_until_told(stack, faults=faults, ready=ready))


def _go_behind(home: "Home", options: list[str], greeting: _Greeting) -> int:
    from deploy.cli.output import echo
    from deploy.local.observing import observe
    from deploy.local.supervisor import start_in_background

    code = start_in_background(home, options, echo)
    if code == ExitCode.DONE:
        asyncio.run(_greet(observe(home), greeting))
    return code


async def _greet(stack: "Awaitable[StackDescription]", greeting: _Greeting) -> None:
    seen = await stack
    _show(seen)
    await greeting.give(seen)


def _join_running(
    home: "Home", faults: object, copies: dict[str, int], wanted: Access | None, *, repair: bool, greeting: _Greeting
) -> int:
    from deploy.local.observing import observe
    from deploy.local.sessions import join

    has = asyncio.run(observe(home)).kafka_access
    if wanted and has != wanted:
        raise CommandError(f"the stack is running with --broker {has}: ./cartwright down stops it", ExitCode.NOT_SO)

    progress()("the stack is running already")
    asyncio.run(_greet(join(home, faults, copies, repair=repair, say=progress()), greeting))
    return ExitCode.DONE


def _read_faults(file: Path | None) -> object:
    """Read the plan before anything is started, so that a mistake in it is told at once."""
    if file is None:
        return None
    from deploy.local.fake_stripe.faults import PlanError, read_plan

    try:
        plan = json.loads(file.read_text())
        read_plan(plan)
    except PlanError as error:
        raise CommandError(f"--faults {file} is no fault plan: {error}", ExitCode.USAGE) from error
    except (OSError, ValueError) as error:
        raise CommandError(f"--faults {file} cannot be read as JSON: {error}", ExitCode.USAGE) from error
    return plan


def _show(stack: "StackDescription") -> None:
    print(f"{stack.state}  {stack.home}")
    if stack.state == "stopped":
        print("./cartwright up starts the stack")
        return
    print(f"  gateway   {stack.gateway_url or 'none: customers reach each service at its own address'}")
    for name, service in stack.services.items():
        missing = [kind for kind, pids in (("api", service.api), ("worker", service.workers)) if not pids]
        print(f"  {name:<9} {service.url}", f"({' and '.join(missing)} not running)" if missing else "")
    for name, cell in stack.cells.items():
        missing = [f"{service}'s worker" for service, pids in cell.workers.items() if not pids]
        print(f"  cell      {name}", f"({' and '.join(missing)} not running)" if missing else "")
    print(f"  postgres  {stack.postgres_host}:{stack.postgres_port}")
    print(f"  kafka     {stack.kafka_bootstrap_servers}", f"(--broker {stack.kafka_access})" if stack.kafka_access else "")
    if stack.kafka_sasl:
        print(f"  kafka     {stack.kafka_sasl.bootstrap_servers} ({stack.kafka_sasl.mechanism})")
    print(f"  stripe    {stack.stripe_api_base}", flush=True)
