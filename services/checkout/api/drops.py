"""HTTP in: drops, and the queue before each. Who waits asks now and then, or is told as it goes on."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Annotated, Literal
from urllib.parse import quote
from uuid import UUID

from fastapi import Response
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, Field

from libs.common.clock import now, rfc3339
from libs.common.database import PASSING
from libs.common.decision import present
from libs.common.errors import UnavailableError
from libs.common.http.gatherings import Gatherings
from libs.common.http.members import Moment
from libs.common.http.paging import Limit, Page
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply
from libs.common.http.seeing import Sight, listed, of_the_tenant
from services.checkout import handlers, repository
from services.checkout.api.models import Body, SkuPath
from services.checkout.domain import drop
from services.checkout.domain.drop import Drop, Place, Standing, Terms

ROUTES = Routes(Facing.CUSTOMERS)
HEARTBEAT_SECONDS = 15
LONGEST_SECONDS = 300
"""A stream outlives no access token; its reader comes back with a new one."""


class DropSight(Sight[Drop]):
    """A drop, which a path names by its product."""

    async def __call__(self, call: Call) -> Drop:
        """The drop of the product in the path. Raises NotFoundError."""
        return await self.of(call, drop.drop_id(call.request.path_params["sku"]))


DROP = DropSight(repository.DROPS, "sku")


class DropBody(Body):
    """How a product that more people want than there is of it lets them in."""

    per_minute: Annotated[int, Field(ge=1, le=1_000_000, description="So many buyers are let in each minute, at most")]
    patience_seconds: Annotated[
        int, Field(ge=30, le=3_600, description="How long who is let in may take to start a checkout; then the next is")
    ] = 300
    starts_at: Annotated[AwareDatetime | None, Field(description="Who arrives before waits. Absent: now")] = None
    ends_at: Annotated[AwareDatetime | None, Field(description="From here on it is sold like any other product")] = None


class DropModel(BaseModel):
    """A drop. Who waits is a number, not a name."""

    sku: str
    per_minute: int
    patience_seconds: int
    starts_at: Moment
    ends_at: Moment | None
    waiting: int
    sold_out: bool


class PlaceModel(BaseModel):
    """A place in a queue, or that there is `none`. `admitted` until then: start a checkout with the product, one."""

    sku: str
    state: Standing | Literal["none"]
    ahead: Annotated[int | None, Field(description="How many are let in before; while waiting")]
    expected_at: Annotated[Moment | None, Field(description="When it is their turn at the soonest; while waiting")]
    admitted_until: Moment | None
    checkout_id: UUID | None


def drop_model(found: Drop) -> DropModel:
    """A drop for an answer."""
    return DropModel(
        sku=found.sku,
        per_minute=found.per_minute,
        patience_seconds=found.patience_seconds,
        starts_at=rfc3339(found.starts_at),
        ends_at=rfc3339(found.ends_at) if found.ends_at else None,
        waiting=found.waiting,
        sold_out=found.sold_out,
    )


def place_model(found: Drop, place: Place | None, at: datetime) -> PlaceModel:
    """A place for an answer. One of an earlier drop is none."""
    state = None if place is None else drop.standing(found, place, at)
    if place is None or state is None:
        return PlaceModel(sku=found.sku, state="none", ahead=None, expected_at=None, admitted_until=None, checkout_id=None)
    until = drop.admitted_until(found, place, at) if state is Standing.ADMITTED else None
    waits = state is Standing.WAITING
    return PlaceModel(
        sku=found.sku,
        state=state,
        ahead=drop.ahead(found, place) if waits else None,
        expected_at=rfc3339(at + timedelta(seconds=drop.wait_seconds(found, place, at))) if waits else None,
        admitted_until=rfc3339(until) if until else None,
        checkout_id=place.checkout_id,
    )


@ROUTES.put("/v1/drops/{sku}", response_model=DropModel)
@guard("drops:manage", sees=of_the_tenant)
async def put_drop(call: Caller, sku: SkuPath, body: DropBody) -> Response:
    """Open a waiting room before a product, or change its terms: who waits keeps their place."""
    opened: Drop = await call.execute(handlers.drops.PutDrop(sku=sku, terms=Terms(**body.model_dump())))
    return reply(200, drop_model(opened), ETag=f'"{opened.version}"')


@ROUTES.get("/v1/drops", response_model=Page[DropModel])
@guard("drops:manage")
async def list_drops(call: Caller, limit: Limit = 50, cursor: str | None = None) -> Response:
    """The tenant's drops, by SKU."""
    return await listed(call, repository.DROPS, drop_model, limit, cursor, by=("sku",))


@ROUTES.get("/v1/drops/{sku}", response_model=DropModel)
@guard("checkouts:read", sees=DROP)
async def read_drop(call: Caller, sku: SkuPath) -> Response:
    """Whether there is a waiting room before a product, and how it stands there."""
    return reply(200, drop_model(await DROP.of(call, drop.drop_id(sku))))


@ROUTES.delete("/v1/drops/{sku}", status_code=204)
@guard("drops:manage", sees=of_the_tenant)
async def delete_drop(call: Caller, sku: SkuPath) -> Response:
    """Sell the product like any other. Who waits waits no more, and may buy."""
    await call.execute(handlers.drops.DeleteDrop(sku=sku))
    return reply(204, None)


@ROUTES.post("/v1/drops/{sku}/places", status_code=201, response_model=PlaceModel, responses={200: {"model": PlaceModel}})
@guard("checkouts:write", sees=DROP, costly=True)
async def take_place(call: Caller, sku: SkuPath) -> Response:
    """Queue, in the order of arrival. One place each: said again it is the same (200). 409 `sold-out` when none are left.

    `Retry-After` says when it is worth asking how the place stands.
    """
    command = handlers.drops.JoinQueue(sku=sku, subject_id=call.principal.subject)
    stands: handlers.drops.Stands = await call.service.shared(Gatherings).of(call.shell).execute(call.message(command))
    location = f"/v1/drops/{quote(sku, safe='')}/places/mine"
    return _told(201 if stands.is_new else 200, stands.drop, stands.place, stands.at, Location=location)


@ROUTES.get("/v1/drops/{sku}/places/mine", response_model=PlaceModel)
@guard("checkouts:read", sees=DROP)
async def read_place(call: Caller, sku: SkuPath) -> Response:
    """How the caller stands. `Retry-After` says when it is worth asking again, while it is."""
    found, place = await _mine(call, call.service.shared(repository.drops.Rooms), sku)
    return _told(200, found, place, now())


@ROUTES.get(
    "/v1/drops/{sku}/places/mine/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}, 204: {"description": "There is no place to follow"}},
)
@guard("checkouts:read", sees=DROP, streams=True)
async def follow_place(call: Caller, sku: SkuPath) -> Response:
    """The caller's place as the queue goes on, once a second at most. Ends when there is nothing left to wait for."""
    rooms = call.service.shared(repository.drops.Rooms)
    if rooms.streams >= rooms.most_streams:
        raise UnavailableError("too-many-streams", "too many are being told already; ask for your place instead", retry_after=5)
    found, place = await _mine(call, rooms, sku)
    if place is None or place_model(found, place, now()).state == "none":
        return Response(status_code=204)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_steps(call, rooms, place), media_type="text/event-stream", headers=headers)


def _told(status: int, found: Drop, place: Place | None, at: datetime, **headers: str) -> Response:
    """How somebody stands, and while they wait when it is worth asking again."""
    shown = place_model(found, place, at)
    if place is not None and shown.state is Standing.WAITING:
        headers |= {"Retry_After": str(drop.pause_seconds(found, place, at))}
    return reply(status, shown, **headers)


async def _mine(call: Call, rooms: repository.drops.Rooms, sku: str) -> tuple[Drop, Place | None]:
    """The drop, and the caller's place if they have one. Raises NotFoundError."""
    key, clock = drop.drop_id(sku), asyncio.get_running_loop().time
    place = drop.place_id(key, call.principal.subject)
    found, mine = await rooms.standing(call.shell.database, call.tenant_id, key, place, clock)
    return present(Drop, found), mine


async def _steps(call: Call, rooms: repository.drops.Rooms, place: Place) -> AsyncIterator[bytes]:
    """A place's steps. Only who is admitted can change it, by buying: until then all of them are the drop's."""
    loop, hints = asyncio.get_running_loop(), call.hints
    end, told, told_at = loop.time() + LONGEST_SECONDS, b"", 0.0
    rooms.streams += 1
    try:
        yield b"retry: 1000\n\n"
        while loop.time() < end and not hints.leaves:
            try:
                found = await rooms.look(call.shell.database, call.tenant_id, place.drop_id, loop.time)
            except PASSING:
                return  # its reader comes back
            if found is None or found.is_gone:
                return
            shown = place_model(found, place, now())
            step = shown.model_dump_json(exclude_none=True, exclude={"expected_at"}).encode()
            if step != told:
                told, told_at = step, loop.time()
                yield b"event: %b\ndata: %b\n\n" % (shown.state.encode(), shown.model_dump_json(exclude_none=True).encode())
            elif loop.time() - told_at >= HEARTBEAT_SECONDS:
                told_at = loop.time()
                yield b": still here\n\n"
            if shown.state is not Standing.WAITING:
                return
            await asyncio.sleep(repository.drops.LOOK_SECONDS)
    finally:
        rooms.streams -= 1
