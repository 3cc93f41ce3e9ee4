"""The command line's table of contents: every verb, and the module that declares it."""

import typer

from deploy.cli import audits, backup, benches, delegated, gateway, provision, quality, services, stack, standings
from deploy.cli import parked as repairs

app = typer.Typer(
    name="cartwright",
    help="The purchase path: cart, checkout, payments and identity, where every order happens exactly once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
tenants = typer.Typer(
    help="Tenants: onboard, list, suspend, resume, close, export, erase, move.", no_args_is_help=True, rich_markup_mode=None
)
feed = typer.Typer(help="Facts of other systems: catalogue, stock, fulfilment.", no_args_is_help=True, rich_markup_mode=None)
parked = typer.Typer(help="Messages that were parked.", no_args_is_help=True, rich_markup_mode=None)
positions = typer.Typer(help="How far each consumer has come, and of which log.", no_args_is_help=True, rich_markup_mode=None)
sources = typer.Typer(help="Publishers that are paused.", no_args_is_help=True, rich_markup_mode=None)
audit = typer.Typer(help="What was done, and by whom.", no_args_is_help=True, rich_markup_mode=None)
keys = typer.Typer(help="Keys that seal and sign.", no_args_is_help=True, rich_markup_mode=None)
payments = typer.Typer(help="What operators settle of money.", no_args_is_help=True, rich_markup_mode=None)
breaks = typer.Typer(help="Differences from the provider's books.", no_args_is_help=True, rich_markup_mode=None)
unknown = typer.Typer(help="Outcomes that nobody knows.", no_args_is_help=True, rich_markup_mode=None)
front = typer.Typer(help="What customers come through.", no_args_is_help=True, rich_markup_mode=None)
bench = typer.Typer(help="Figures of the kernel on this machine.", no_args_is_help=True, rich_markup_mode=None)

app.command()(stack.up)
app.command()(stack.down)
app.command()(stack.status)
app.command()(stack.failover)
app.command()(stack.logs)
app.command()(delegated.demo)
app.command()(delegated.replay)
app.add_typer(tenants, name="tenants")
app.add_typer(feed, name="feed")
app.add_typer(parked, name="parked")
app.add_typer(positions, name="positions")
app.add_typer(sources, name="sources")
app.add_typer(keys, name="keys")
app.add_typer(audit, name="audit")
app.command()(delegated.rebuild)
app.add_typer(payments, name="payments")
payments.add_typer(breaks, name="breaks")
payments.add_typer(unknown, name="unknown")
app.command()(delegated.timeline)
app.command()(delegated.invariants)
app.command()(delegated.reconcile)
app.command()(backup.backup)
app.command()(backup.restore)
app.command("test")(quality.run_tests)
app.command()(quality.check)
app.command()(quality.fmt)
app.add_typer(front, name="gateway")
front.command("config")(gateway.config)
app.add_typer(bench, name="bench")
app.command()(services.serve)
app.command()(services.migrate)
app.command()(provision.provision)

audit.command("verify")(audits.audit_verify)
keys.command("rotate")(delegated.keys_rotate)
# A key id may begin with a hyphen.
keys.command("revoke", context_settings={"ignore_unknown_options": True})(delegated.keys_revoke)
tenants.command("onboard")(delegated.onboard)
tenants.command("list")(delegated.list_tenants)
tenants.command("suspend")(standings.suspend)
tenants.command("resume")(standings.resume)
tenants.command("close")(standings.close)
tenants.command("export")(standings.export)
tenants.command("move")(delegated.move)
tenants.command("erase")(standings.erase)
feed.command("publish")(delegated.publish)
feed.command("validate")(delegated.validate)
parked.command("list")(repairs.listed)
parked.command("show")(repairs.show)
parked.command("replay")(repairs.replay)
parked.command("discard")(repairs.discard)
positions.command("list")(delegated.positions_list)
positions.command("adopt")(delegated.positions_adopt)
sources.command("list")(delegated.sources_list)
sources.command("pause")(delegated.sources_pause)
sources.command("resume")(delegated.sources_resume)
payments.command("reviews")(delegated.reviews_list)
breaks.command("close")(delegated.break_close)
unknown.command("list")(delegated.unknown_list)
unknown.command("resolve")(delegated.unknown_resolve)
bench.command("relay")(benches.bench_relay)
bench.command("inbox")(benches.bench_inbox)
bench.command("payments")(benches.bench_payments)
bench.command("orders")(benches.bench_orders)
bench.command("hot-sku")(benches.bench_hot_sku)
bench.command("neighbours")(benches.bench_neighbours)
bench.command("tokens")(benches.bench_tokens)
bench.command("gateway")(benches.bench_gateway)
bench.command("tenants")(benches.bench_tenants)
bench.command("drops")(benches.bench_drops)


def main() -> None:
    """Run the verb the arguments name."""
    app(prog_name="cartwright")
