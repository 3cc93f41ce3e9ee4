"""API keys, for tenants themselves: what somebody else's program is given, to be exchanged at the token endpoint."""

import os
from datetime import date
from typing import Annotated
from uuid import UUID

from fastapi import Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from libs.common.auth import CLIENT, ROLES
from libs.common.clock import new_id, rfc3339
from libs.common.contracts.external import WRITTEN
from libs.common.decision import present
from libs.common.errors import ConflictError
from libs.common.http.members import Moment
from libs.common.http.paging import Limit, Page
from libs.common.http.routes import Caller, Facing, Routes, guard, reply
from libs.common.http.seeing import Sight, listed
from libs.common.messaging.idempotency import Answer, Replayed
from services.identity import handlers, repository
from services.identity.api.clients import granter_of
from services.identity.domain.api_key import SECRET_BYTES, ApiKey, digest_of, text_of

ROUTES = Routes(Facing.CUSTOMERS)
API_KEY = Sight(repository.API_KEYS, "key_id")

Name = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,200}$"), WRITTEN]


class NewApiKey(BaseModel):
    """A key to be made. Without `expires_at` it lives for a year."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    scopes: Annotated[list[str], Field(min_length=1, max_length=100)]
    expires_at: AwareDatetime | None = None


class ApiKeyName(BaseModel):
    """What a key is to be called."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name


class ApiKeyModel(BaseModel):
    """A key without its secret."""

    id: UUID
    name: str
    scopes: list[str]
    created_at: Moment
    expires_at: Moment
    last_used_on: date | None = None
    """The last day, in UTC, on which it was exchanged for a token."""


class NewApiKeyModel(ApiKeyModel):
    """A new key. `key` is shown here and never again."""

    key: str


def api_key_model(key: ApiKey) -> ApiKeyModel:
    """A key for an answer."""
    return ApiKeyModel(
        id=key.id,
        name=key.name,
        scopes=[scope for scope in key.scopes if scope in ROLES[CLIENT]],
        created_at=rfc3339(key.created_at),
        expires_at=rfc3339(key.expires_at),
        last_used_on=key.last_used_on,
    )


def _remember(key: ApiKey) -> Answer:
    """The answer held a secret, so only whose it was is remembered."""
    return Answer(201, headers={"Location": f"/v1/api-keys/{key.id}"})


@ROUTES.post("/v1/api-keys", status_code=201, response_model=NewApiKeyModel)
@guard("clients:manage", idempotent=True, tenant_only=True)
async def create_api_key(call: Caller, body: NewApiKey) -> Response:
    """Make a key. It is in this answer alone."""
    granter, key_id = granter_of(call), new_id()
    text = text_of(call.tenant_id, key_id, os.urandom(SECRET_BYTES))
    command = handlers.api_keys.CreateApiKey(
        key_id=key_id,
        name=body.name,
        scopes=tuple(sorted(set(body.scopes))),
        digest=digest_of(text),
        expires_at=body.expires_at,
        granter=granter,
    )
    made = await call.execute_once(command, _remember)
    if isinstance(made, Replayed):
        detail = "this was done, and the key was shown then; if it is lost, make another and remove this one"
        raise ConflictError("secret-not-replayable", detail, id=made.answer.headers["Location"].rpartition("/")[2])
    answer = NewApiKeyModel(key=text, **api_key_model(made).model_dump())
    return reply(201, answer, Location=f"/v1/api-keys/{key_id}", Cache_Control="no-store")


@ROUTES.get("/v1/api-keys", response_model=Page[ApiKeyModel])
@guard("clients:manage")
async def list_api_keys(call: Caller, limit: Limit = 50, cursor: str | None = None) -> Response:
    """The tenant's keys."""
    return await listed(call, repository.API_KEYS, api_key_model, limit, cursor)


@ROUTES.get("/v1/api-keys/{key_id}", response_model=ApiKeyModel)
@guard("clients:manage", sees=API_KEY)
async def read_api_key(call: Caller, key_id: UUID) -> Response:
    """One key."""
    return reply(200, api_key_model(present(ApiKey, await API_KEY.of(call, key_id))))


@ROUTES.patch("/v1/api-keys/{key_id}", response_model=ApiKeyModel)
@guard("clients:manage", sees=API_KEY)
async def rename_api_key(call: Caller, key_id: UUID, body: ApiKeyName) -> Response:
    """Call it something else. What it may do, and until when, does not change: make another for that."""
    return reply(200, api_key_model(await call.execute(handlers.api_keys.RenameApiKey(key_id=key_id, name=body.name))))


@ROUTES.delete("/v1/api-keys/{key_id}", status_code=204)
@guard("clients:manage", sees=API_KEY, goes_on=True)
async def remove_api_key(call: Caller, key_id: UUID) -> Response:
    """Take a key away, with every token that it was exchanged for."""
    await call.execute(handlers.api_keys.RemoveApiKey(key_id=key_id))
    return reply(204, None)
