"""A tenant's own parked messages, in its service's API: what waits for a decision of its own, seen and repaired by it alone.

Paths begin with the service's name, for the first segment after `/v1` belongs to one service.
"""

from typing import Annotated, Any, Literal

import orjson
from fastapi import Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.contracts.external import WRITTEN
from libs.common.http.asking import origin_of
from libs.common.http.members import Moment
from libs.common.http.paging import Limit, Page, Paging
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, replay, reply
from libs.common.messaging.idempotency import Answer, Replayed
from libs.common.messaging.repairs import FIRST, ParkedMessages, Wanted, place_of

READ, REPAIR = "parked:read", "parked:repair"

ParkedState = Literal["rejected", "waiting", "parked", "queued", "replayed", "discarded"]
Word = Annotated[str | None, Query(pattern=r"^[^\x00]{1,200}$")]
ParkedId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,249}:[0-9]{1,10}:[0-9]{1,19}$")]


class ParkedMessage(BaseModel):
    """A message of the tenant's that was not applied, and why."""

    id: str
    state: ParkedState
    topic: str
    partition: int
    offset: int
    key: str
    type: str | None
    source: str | None
    """Who sent it, by its `ce_source`."""
    reason: str
    detail: str
    attempts: int
    parked_at: Moment


class WholeMessage(ParkedMessage):
    """The same with what it says, as text."""

    headers: list[tuple[str, str | None]]
    payload: str
    decided_by: str | None
    decision: str | None


class Discard(BaseModel):
    """Why a message is given up."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Annotated[str, Field(pattern=r"^[^\x00]*[^\x00\s][^\x00]*$", max_length=1_000), WRITTEN]


class Decided(BaseModel):
    """What was done: the message, and those behind it that followed. `stopped_by`: why the next one did not."""

    id: str
    action: Literal["replay", "discard"]
    done: list[str]
    stopped_by: str | None = None


def parked_routes(service: str) -> Routes:
    """The routes of one service."""
    routes, root = Routes(Facing.CUSTOMERS), f"/v1/{service}-parked-messages"

    async def list_parked_messages(
        call: Caller,
        state: ParkedState | None = None,
        type: Word = None,  # noqa: A002 - what it is called in the query
        reason: Word = None,
        source: Word = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Response:
        """The tenant's messages that wait for a decision, in the order of topic, partition and offset."""
        asked = Paging(limit, cursor, str)
        after = place_of(asked.after[0]) if asked.after else FIRST
        found = await _parked(call).search(
            state=state, type_=type, reason=reason, source=source, after=after, limit=asked.most, of=call.tenant_id
        )
        return asked.reply(found, ParkedMessage.model_validate, lambda each: [each["id"]])

    async def read_parked_message(call: Caller, parked_id: ParkedId) -> Response:
        """One message whole, with its headers and payload."""
        return reply(200, WholeMessage.model_validate(await _parked(call).show(parked_id, of=call.tenant_id)))

    async def replay_parked_message(call: Caller, parked_id: ParkedId) -> Response:
        """Decide it again, and then whatever waits behind it. 409 while it still fails."""
        return await _decided(call, parked_id, "replay", "replayed by its tenant")

    async def discard_parked_message(call: Caller, parked_id: ParkedId, body: Discard) -> Response:
        """Give it up for good; whatever waits behind it goes on."""
        return await _decided(call, parked_id, "discard", body.reason)

    routes.get(root, response_model=Page[ParkedMessage])(guard(READ)(list_parked_messages))
    one = f"{root}/{{parked_id}}"
    routes.get(one, response_model=WholeMessage)(guard(READ, sees=_message_of_path)(read_parked_message))
    repair = guard(REPAIR, idempotent=True, sees=_message_of_path, goes_on=True)
    routes.post(f"{one}/replay", response_model=Decided)(repair(replay_parked_message))
    routes.post(f"{one}/discard", response_model=Decided)(repair(discard_parked_message))
    return routes


def _parked(call: Call) -> ParkedMessages:
    parked = call.service.parked_of(call.tenant_id)
    if parked is None:
        message = "this process has no parked messages to show"
        raise TypeError(message)
    return parked


async def _message_of_path(call: Call) -> object:
    """The message, if it is the caller's tenant's."""
    return await _parked(call).show(call.request.path_params["parked_id"], of=call.tenant_id)


async def _decided(call: Call, parked_id: str, action: Literal["replay", "discard"], reason: str) -> Response:
    origin = origin_of(call.principal, call.request.scope, call.request_id)
    wanted = Wanted(parked_id, action, origin, reason, call.tenant_id, call.claim(_remember))
    outcome = await _parked(call).decide_once(wanted)
    return replay(outcome) if isinstance(outcome, Replayed) else reply(200, Decided.model_validate(outcome))


def _remember(outcome: dict[str, Any]) -> Answer:
    return Answer(200, orjson.dumps(outcome))
