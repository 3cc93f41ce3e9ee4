"""Verbs that measure: each on servers of its own, by a module that is imported only then."""

from typing import Annotated

import typer

from deploy.cli.delegated import Json
from deploy.cli.errors import CommandError, ExitCode, verb


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


@verb
def bench_orders(
    *,
    clients: Annotated[list[int] | None, typer.Option(min=1, help="Clients at once; may be said several times.")] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="How long each turn takes orders; 15, beside another 5.")] = None,
    history: Annotated[int, typer.Option(min=0, help="Then beside so many past orders: 1000000 take 20 GB.")] = 0,
    vs: Annotated[str | None, typer.Option(metavar="REV", help="Beside another revision's code, turn after turn.")] = None,
    turns: Annotated[int, typer.Option(min=1, help="Turns of each revision at each load; medians count.")] = 6,
    json: Json = False,
) -> int | None:
    """Measure whole orders on the whole stack.

    By 1, 8, 32 and 128 clients, then at a fixed rate of arrivals; with the CPU of every process. With --vs by 1, 8 and 32,
    and at the same rate: what this code takes of what the other does.
    """
    if vs is None:
        from deploy.cli.bench.orders import run_orders

        return run_orders(clients or [1, 8, 32, 128], seconds or 15, history, json=json)
    from deploy.cli.bench.versus import run_versus

    if history:
        raise CommandError("--history and --vs are two questions: ask them one after the other", ExitCode.USAGE)
    return run_versus(vs, clients or [1, 8, 32], seconds or 5, turns, json=json)


@verb
def bench_hot_sku(
    *,
    clients: Annotated[int, typer.Option(min=1, help="Clients at once.")] = 128,
    seconds: Annotated[float, typer.Option(min=1, help="How long each turn takes orders.")] = 15,
    json: Json = False,
) -> int | None:
    """Measure a product that everybody wants.

    Beside baskets that hardly meet, in the same run.
    """
    from deploy.cli.bench.orders import run_hot_sku

    return run_hot_sku(clients, seconds, json=json)


@verb
def bench_payments(
    *,
    payments: Annotated[int, typer.Option(min=100, help="Payments a turn.")] = 2_000,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each contender; medians count.")] = 3,
    concurrency: Annotated[int, typer.Option(min=1, help="Calls in flight at once, on either side.")] = 32,
    json: Json = False,
) -> int | None:
    """Measure authorize and capture.

    Beside the bare SDK making the same three calls; then with a slow provider, on ten database connections.
    """
    from deploy.cli import bench

    return bench.run("payments", {"payments": payments, "rounds": rounds, "concurrency": concurrency}, json=json)


@verb
def bench_neighbours(
    *,
    kind: Annotated[list[str] | None, typer.Option(help="Beside this alone; may be said several times.")] = None,
    turns: Annotated[int, typer.Option(min=1, help="Turns beside each, which count together.")] = 1,
    scale: Annotated[float, typer.Option(min=0.01, max=1, help="A share of everything the loud tenant does.")] = 1.0,
    json: Json = False,
) -> int | None:
    """Measure what a quiet tenant notices of a loud one.

    Purchases and price changes alone, and beside each kind of noise, in turns on one stack.
    """
    from deploy.cli.bench.loud import KINDS
    from deploy.cli.bench.neighbours import run_neighbours

    if unknown := {*(kind or ())} - {*KINDS}:
        raise CommandError(f"no kind {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    return run_neighbours(kind or [*KINDS], turns, scale, json=json)


@verb
def bench_tokens(
    *,
    seconds: Annotated[float, typer.Option(min=1, help="How long grants are asked for.")] = 15,
    json: Json = False,
) -> int | None:
    """Measure access tokens: granted, and believed.

    Client-credential grants of one process of identity on one core, beside bare signatures; verification in any service.
    """
    from deploy.cli.bench.tokens import run_tokens

    return run_tokens(seconds, json=json)


@verb
def bench_tenants(
    *,
    count: Annotated[int, typer.Option(min=500, help="How many tenants there are in the end.")] = 10_000,
    json: Json = False,
) -> int | None:
    """Measure what one more tenant costs, among few and among many.

    Onboarding, a grant, a token believed, a second of doing nothing and the start of a process: CPU of the whole stack, and
    seconds of a start.
    """
    from deploy.cli.bench.crowd import run_tenants

    return run_tenants(count, json=json)


@verb
def bench_gateway(
    *,
    seconds: Annotated[float, typer.Option(min=4, help="How long both are asked, in turns.")] = 60,
    json: Json = False,
) -> int | None:
    """Measure what the gateway adds to a request.

    200 a second through it, beside 200 a second straight to the service, in the same run; with the gateway's CPU.
    """
    from deploy.cli.bench.front_door import run_gateway

    return run_gateway(seconds, json=json)


@verb
def bench_drops(
    *,
    buyers: Annotated[int, typer.Option(min=1, help="How many wait.")] = 20_000,
    units: Annotated[int, typer.Option(min=1, help="How many there are.")] = 1_000,
    per_minute: Annotated[int, typer.Option(min=1, help="How many are let in a minute, at most.")] = 600,
    json: Json = False,
) -> int | None:
    """Measure a crowd that waits for a few units.

    How many orders it makes, exactly, and what buyers of anything else notice of it, beside themselves alone.
    """
    from deploy.cli.bench.drops import run_drops

    return run_drops(buyers, units, per_minute, json=json)
