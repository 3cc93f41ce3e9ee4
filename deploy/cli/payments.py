"""`reconcile` and `payments …`: what operators see and settle of money, through payments' operator routes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from deploy.cli.api import Api, RefusedError, TokenSource, connected
from deploy.cli.deployment import deployment
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import print_json, progress
from deploy.cli.tenants import operator, tenants
from deploy.cli.waiting import asked_again
from libs.common.money import format_minor

_CONFLICT: Final = 409
_NOT_FOUND: Final = 404
_POLL_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 900
_FINISHED: Final = "finished"
_OVER: Final = frozenset({_FINISHED, "failed"})
_OPEN: Final = "open"

Say = Callable[[str], None]


def reconcile(*, tenant: str | None, days: int, grace_seconds: int, json: bool) -> int:
    """Compare the books of one tenant, or of all, and print the breaks; 1 when some are left that nobody could repair."""
    say = progress()

    async def run(api: Api, token: TokenSource) -> list[dict[str, Any]]:
        reports = []
        for tenant_id, slug in (await tenants_of(api, token, tenant)).items():
            say(f"reconciling {slug}")
            reports.append({"slug": slug, **await reconciled(api, token, tenant_id, days, grace_seconds)})
        return reports

    reports = _with_operator(say, run)
    is_whole = all(report["state"] == _FINISHED and not lasting(report) for report in reports)
    if json:
        print_json({"tenants": reports, "reconciled": is_whole})
    for report in () if json else reports:
        _show(report)
    return ExitCode.DONE if is_whole else ExitCode.NOT_SO


def list_unknown(*, tenant: str | None, json: bool) -> int:
    """Print the outcomes that nobody knows."""

    async def run(api: Api, token: TokenSource) -> list[dict[str, Any]]:
        found = [item async for item in _every_unknown(api, token, await _only(api, token, tenant))]
        return await _with_slugs(api, token, found)

    items = _with_operator(progress(), run)
    if json:
        print_json({"items": items})
        return ExitCode.DONE
    for item in items:
        waits = "a person" if item["awaits_person"] else f"the look at {item.get('next_look_at', '')}"
        amount = format_minor(item["amount_minor"], item["currency"])
        print(
            f"{item['payment_id']}  {item['slug']:<16} {item['kind']:<8} {amount:>14}  "
            f"since {item['first_sent_at']}, {item['tries']} tries; waits for {waits}"
        )
    print(f"{len(items)} unknown" if items else "every outcome is known")
    return ExitCode.DONE


def list_reviews(*, tenant: str | None, json: bool) -> int:
    """Print what waits for a person, and what may be done about each."""

    async def run(api: Api, token: TokenSource) -> list[dict[str, Any]]:
        everything = api.everything("payments", "/ops/reviews", await token.token(), await _only(api, token, tenant))
        return await _with_slugs(api, token, [item async for item in everything])

    items = _with_operator(progress(), run)
    if json:
        print_json({"items": items})
        return ExitCode.DONE
    for item in items:
        _show_review(item)
    print(f"{len(items)} waiting for a person" if items else "nothing waits for a person")
    return ExitCode.DONE


def resolve_unknown(*, payment_id: str, verdict: str, reason: str, json: bool) -> int:
    """Have a payment's unknown outcomes looked into at once; 1 when it has none, or there is no such payment."""

    async def run(api: Api, token: TokenSource) -> dict[str, Any]:
        tenant_id = await _tenant_of(api, token, payment_id)
        body = {"tenant_id": tenant_id, "verdict": verdict, "reason": reason}
        path = f"/ops/payments/{payment_id}/resolve"
        resolving: dict[str, Any] = (await api.call("payments", "POST", path, token=await token.token(), body=body)).body
        return resolving

    try:
        resolving = _with_operator(progress(), run)
    except RefusedError as error:
        raise CommandError(str(error), ExitCode.NOT_SO) from error
    if json:
        print_json(resolving)
    else:
        count = len(resolving["operation_ids"])
        print(f"{payment_id}: {count} of its outcomes {'is' if count == 1 else 'are'} looked into now, with {verdict}")
        print("./cartwright payments unknown list shows whether the provider bears it out")
    return ExitCode.DONE


def close_break(*, break_id: str, tenant: str, reason: str, json: bool) -> int:
    """Close a break that nobody can mend; 1 when it is closed, or there is no such break."""

    async def run(api: Api, token: TokenSource) -> dict[str, Any]:
        [tenant_id] = await tenants_of(api, token, tenant)
        path, body = f"/ops/breaks/{break_id}/close", {"tenant_id": tenant_id, "reason": reason}
        closed: dict[str, Any] = (await api.call("payments", "POST", path, token=await token.token(), body=body)).body
        return closed

    try:
        closed = _with_operator(progress(), run)
    except RefusedError as error:
        raise CommandError(str(error), ExitCode.NOT_SO) from error
    if json:
        print_json(closed)
    else:
        print(f"{break_id}: {closed['state']} by {closed['closed_by']}: {closed['closed_reason']}")
    return ExitCode.DONE


# --- Asking -------------------------------------------------------------------------------------------------------


def _with_operator(say: Say, run: Callable[[Api, TokenSource], Awaitable[Any]]) -> Any:
    """Do something with the platform operator's token on the running stack."""

    async def main() -> Any:
        async with deployment(say) as stack, connected(stack) as api:
            return await run(api, operator(api))

    return asyncio.run(main())


async def tenants_of(api: Api, token: TokenSource, slug: str | None) -> Mapping[str, str]:
    """The slugs of the tenants by their ids: of the one that is asked for, or of all."""
    slugs = {each["tenant_id"]: each["slug"] async for each in tenants(api, await token.token(), slug)}
    if slug is not None and not slugs:
        raise CommandError(f"there is no tenant {slug!r}: see ./cartwright tenants list", ExitCode.USAGE)
    return slugs


async def _only(api: Api, token: TokenSource, slug: str | None) -> Mapping[str, str]:
    """What asks for one tenant's alone; nothing when it is for all."""
    return {"tenant_id": next(iter(await tenants_of(api, token, slug)))} if slug else {}


async def _with_slugs(api: Api, token: TokenSource, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with their tenants' slugs: of those tenants alone, however many there are."""
    slugs: dict[str, str] = {}
    for tenant_id in {item["tenant_id"] for item in items}:
        try:
            tenant = (await api.call("identity", "GET", f"/v1/tenants/{tenant_id}", token=await token.token())).body
        except RefusedError as error:
            if error.status != _NOT_FOUND:
                raise
        else:
            slugs[tenant_id] = tenant["slug"]
    return [{"slug": slugs.get(item["tenant_id"], ""), **item} for item in items]


async def reconciled(api: Api, token: TokenSource, tenant_id: str, days: int, grace_seconds: int) -> dict[str, Any]:
    """Have one tenant reconciled, after whatever run is under way, and wait for the end of it."""
    body = {"tenant_id": tenant_id, "days": days, "grace_seconds": grace_seconds}
    path = ""

    async def finished() -> dict[str, Any] | None:
        nonlocal path
        if not path:
            path = await _requested(api, token, body)
            return None
        report: dict[str, Any] = (await api.call("payments", "GET", path, token=await token.token())).body
        return report if report["state"] in _OVER else None

    report = await asked_again(
        finished, lambda report: report is None, patience_seconds=_PATIENCE_SECONDS, pause_seconds=_POLL_SECONDS
    )
    if report is None:
        raise CommandError("payments' workers do not come to reconcile: see ./cartwright status", ExitCode.ENVIRONMENT)
    return report


async def _requested(api: Api, token: TokenSource, body: object) -> str:
    """Where the asked-for run is shown; nothing while another one of the tenant is under way."""
    try:
        asked = (await api.call("payments", "POST", "/ops/reconciliations", token=await token.token(), body=body)).body
    except RefusedError as error:
        if error.status != _CONFLICT:
            raise
        return ""
    return f"/ops/reconciliations/{asked['tenant_id']}/{asked['reconciliation_id']}"


async def _every_unknown(api: Api, token: TokenSource, filters: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
    async for item in api.everything("payments", "/ops/payments/unknown", await token.token(), filters):
        yield item


async def _tenant_of(api: Api, token: TokenSource, payment_id: str) -> str:
    async for item in _every_unknown(api, token, {}):
        if item["payment_id"] == payment_id:
            return str(item["tenant_id"])
    raise CommandError(f"nothing of {payment_id} is unknown: see ./cartwright payments unknown list", ExitCode.NOT_SO)


# --- Telling ------------------------------------------------------------------------------------------------------


def lasting(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The breaks that nobody could repair."""
    return [each for each in report["breaks"] if each["state"] == _OPEN]


def _show(report: Mapping[str, Any]) -> None:
    counts = report["counts"]
    print(f"{report['slug']}: {report['state']}, {counts.get('compared', 0)} compared, {counts.get('in_flight', 0)} on their way")
    if "error" in report:
        print(f"  {report['error']}")
    for total in report["totals"]:
        for side in ("ours", "theirs"):
            sums = {name.removesuffix("_minor"): amount for name, amount in total[side].items()}
            print(f"  {side:<6}", ", ".join(f"{name} {format_minor(sum_, total['currency'])}" for name, sum_ in sums.items()))
    for each in report["breaks"]:
        print(
            f"  {each['state']:<8} {each['kind']:<13} {each['subject']:<11} {each.get('provider_id') or each.get('our_id')}"
            f" ({each['id']})"
            f"  here {_side(each.get('ours'), each)}, there {_side(each.get('theirs'), each)}; since {each['first_seen_at']}"
        )
    if report["has_more_breaks"]:
        print("  and more: GET /v1/reconciliations shows the oldest only")
    if not report["breaks"]:
        print("  no break")


def _show_review(item: Mapping[str, Any]) -> None:
    amount = format_minor(item["amount_minor"], item["currency"]) if "amount_minor" in item else ""
    until = f", until {item['respond_by']}" if "respond_by" in item else ""
    why = f" ({item['why']})" if "why" in item else ""
    print(f"{item['id']}  {item['slug']:<16} {item['kind']:<22} {amount:>14}  {item['subject']}{why}")
    print(f"    {item['meaning']}; since {item['since']}{until}")
    for action in item["actions"]:
        print(f"    {action['method']} {action['path']}: {action['effect']}")


def _side(side: Mapping[str, Any] | None, found: Mapping[str, Any]) -> str:
    if side is None:
        return "nothing"
    return f"{side['state']} {format_minor(side['amount_minor'], found['currency'])}"
