"""Where a worker's consumers stand, over HTTP, and what an operator decides when a log is not the one they knew."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from starlette.requests import Request

from libs.common.auth import Verifier
from libs.common.http.operator import READ, REPAIR, OperatorRoute, body_of
from libs.common.origin import Origin


class Positions(Protocol):
    """The positions of one consumer group."""

    async def listing(self) -> list[dict[str, Any]]:
        """Every position, with how it compares to what Kafka has."""

    async def adopt(self, *, actor: Origin, reason: str) -> list[dict[str, Any]]:
        """Begin anew on all logs that are not those we knew."""


def position_routes(groups: Sequence[Positions], verifier: Verifier) -> list[OperatorRoute]:
    """The routes under `/ops/positions`."""

    async def show(_: Request, __: Origin) -> dict[str, Any]:
        return {"items": [each for found in await asyncio.gather(*(group.listing() for group in groups)) for each in found]}

    async def adopt(request: Request, operator: Origin) -> dict[str, Any]:
        reason = str((await body_of(request)).get("reason", ""))
        adopted = [each for group in groups for each in await group.adopt(actor=operator, reason=reason)]
        return {"adopted": adopted}

    return [
        OperatorRoute("/ops/positions", "GET", READ, verifier, show),
        OperatorRoute("/ops/positions/adopt", "POST", REPAIR, verifier, adopt),
    ]
