"""HTTP in: buyers without an account ask for a link to their order. The answer gives nothing away, nor does its time."""

import time
from typing import Annotated
from uuid import UUID

from fastapi import Response
from pydantic import Field

from libs.common.buckets import TokenBuckets
from libs.common.clock import new_id
from libs.common.errors import UnavailableError
from libs.common.http.routes import Caller, Facing, Routes, for_strangers
from services.checkout import handlers, repository
from services.checkout.api.models import Body, Email

ROUTES = Routes(Facing.CUSTOMERS)
PER_ADDRESS = 5
"""So many at once, and then one each time a share of the period has passed."""
PER_TENANT = 120
PERIOD_SECONDS = 60.0
MAX_KEPT = 10_000


class _SlowDownError(UnavailableError):
    status = 429


OF_ADDRESS = TokenBuckets(PER_ADDRESS / PERIOD_SECONDS, PER_ADDRESS, kept=MAX_KEPT)
OF_TENANT = TokenBuckets(PER_TENANT / PERIOD_SECONDS, PER_TENANT, kept=MAX_KEPT)


class NewLookup(Body):
    """An order as its buyer remembers it."""

    tenant_id: UUID
    number: Annotated[int, Field(ge=1, le=2**62)]
    email: Email


@ROUTES.post("/v1/order-lookups", status_code=202, response_class=Response)
@for_strangers
async def look_up_order(call: Caller, body: NewLookup) -> Response:
    """Have a link sent to an order's buyer. Always 202: whether there is such an order, only its buyer learns."""
    now = time.monotonic()
    wait = OF_ADDRESS.take((body.tenant_id, body.email.lower()), now) or OF_TENANT.take(body.tenant_id, now)
    if wait:
        raise _SlowDownError("too-many-lookups", "ask again later", retry_after=round(wait) + 1)
    async with call.transaction(body.tenant_id) as connection:
        order_id = await repository.orders.looked_up(connection, body.tenant_id, body.number, body.email)
    await call.execute(handlers.orders.AskForLink(order_id=order_id or new_id()), tenant_id=body.tenant_id)
    return Response(status_code=202)
