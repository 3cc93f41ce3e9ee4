"""HTTP in: a checkout's steps as they happen, as server-sent events (the WHATWG's `text/event-stream`).

Each event is the whole checkout, with its version as the id: whoever comes back says the last one they saw, and a step that
was passed meanwhile is not missed. Steps are called out by hints; a look between, once a heartbeat, is for a hint that was lost.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import Header, Response
from fastapi.responses import StreamingResponse

from libs.common.database import PASSING
from libs.common.http.routes import MAX_DIGITS, Call, Caller, Facing, Routes, guard
from services.checkout.api.checkouts import CHECKOUT, checkout_model
from services.checkout.domain.saga import Checkout, watched

ROUTES = Routes(Facing.CUSTOMERS)
HEARTBEAT_SECONDS = 15
LONGEST_SECONDS = 300
"""A stream outlives no access token; its reader comes back with a new one."""
RETRY = b"retry: 1000\n\n"
STILL_HERE = b": still here\n\n"
MOVED = b": this process leaves; come back\n\n"


@ROUTES.get(
    "/v1/checkouts/{checkout_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        204: {"description": "Over, and seen to the end"},
    },
)
@guard("checkouts:read", sees=CHECKOUT, streams=True)
async def follow_checkout(call: Caller, checkout_id: UUID, last_event_id: Annotated[str, Header()] = "") -> Response:
    """A checkout's steps as they happen. Ends with the checkout; 204, which stops a browser, once its end was seen."""
    seen = int(last_event_id) if last_event_id.isdecimal() and len(last_event_id) <= MAX_DIGITS else 0
    checkout = await CHECKOUT.of(call, checkout_id)
    if checkout.is_final and checkout.version <= seen:
        return Response(status_code=204)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_steps(call, checkout_id, seen), media_type="text/event-stream", headers=headers)


async def _steps(call: Call, checkout_id: UUID, seen: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    end = loop.time() + LONGEST_SECONDS
    yield RETRY
    while loop.time() < end:
        try:
            hints = call.hints  # of where the tenant is by now
        except PASSING:
            return  # its reader comes back
        with hints.expect(watched(checkout_id)) as step:
            try:
                checkout = await CHECKOUT.of(call, checkout_id)
            except PASSING:
                return  # its reader comes back
            if checkout.version > seen:
                seen = checkout.version
                yield _event(checkout)
            if checkout.is_final:
                return
            came = await hints.comes(step, loop.time() + HEARTBEAT_SECONDS)
        if hints.leaves:
            yield MOVED
            return
        if not came:
            yield STILL_HERE


def _event(checkout: Checkout) -> bytes:
    content = checkout_model(checkout).model_dump_json(exclude_none=True)
    return f"id: {checkout.version}\nevent: {checkout.state}\ndata: {content}\n\n".encode()
