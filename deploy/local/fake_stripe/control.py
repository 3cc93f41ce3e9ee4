"""What is ours and not Stripe's: readiness, reset, the fault plan and a summary of the money, under /_control."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.local.fake_stripe.faults import Plan, PlanError, read_plan
from deploy.local.fake_stripe.intents import Status

if TYPE_CHECKING:
    from deploy.local.fake_stripe.api import Api
    from deploy.local.fake_stripe.books import Books


def routes(api: Api) -> list[Route]:
    """Return the control routes of one fake."""

    async def readyz(_: Request) -> Response:
        return _json({"status": "ready"})

    async def reset(_: Request) -> Response:
        api.books.clear()
        api.plan = Plan()
        return _json({"status": "empty"})

    async def faults(request: Request) -> Response:
        if request.method == "PUT":
            try:
                api.plan = read_plan(orjson.loads(await request.body()))
            except (PlanError, orjson.JSONDecodeError) as error:
                return _json({"error": str(error)}, 400)
        elif request.method == "DELETE":
            api.plan = Plan()
        return _json(api.plan.view())

    async def ledger(request: Request) -> Response:
        return _json(_summary(api.books, request.query_params.get("by", "tenant_id")))

    return [
        Route("/_control/readyz", readyz, methods=["GET"]),
        Route("/_control/reset", reset, methods=["POST"]),
        Route("/_control/faults", faults, methods=["GET", "PUT", "DELETE"]),
        Route("/_control/ledger", ledger, methods=["GET"]),
    ]


def _summary(books: Books, name: str) -> dict[str, Any]:
    """Sum every account's intents by the metadata entry `name` and currency."""
    rows: defaultdict[tuple[str, str, str], dict[str, int]] = defaultdict(
        lambda: {"intents": 0, "held_count": 0, "held_minor": 0, "captured_count": 0, "captured_minor": 0}
    )
    for account in books.accounts():
        for intent in account.intents.values():
            row = rows[account.name, intent.metadata.get(name, ""), intent.currency]
            row["intents"] += 1
            if intent.status is Status.REQUIRES_CAPTURE:
                row["held_count"] += 1
                row["held_minor"] += intent.amount_capturable
            if intent.amount_received:
                row["captured_count"] += 1
                row["captured_minor"] += intent.amount_received
    return {
        "by": name,
        "rows": [
            {"account": account, name: value, "currency": currency, **sums}
            for (account, value, currency), sums in sorted(rows.items())
        ],
    }


def _json(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
