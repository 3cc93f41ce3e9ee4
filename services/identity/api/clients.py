"""Clients and their secrets, for the platform's operators and for tenants themselves."""

import secrets
from datetime import date
from typing import Annotated
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.auth import CLIENT, ROLES
from libs.common.clock import PLATFORM, new_id, rfc3339
from libs.common.contracts.external import WRITTEN
from libs.common.decision import absent, foreign, present
from libs.common.errors import ConflictError, RejectedError
from libs.common.http.members import Moment
from libs.common.http.paging import Limit, Page
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply
from libs.common.http.seeing import listed
from libs.common.messaging.idempotency import Answer, Replayed
from services.identity import handlers, repository
from services.identity.domain.client import Client, client_id_of, digest_of, tenant_of
from services.identity.domain.sign_in import REDIRECT

ROUTES = Routes(Facing.CUSTOMERS)
SECRET_BYTES = 32


class NewClient(BaseModel):
    """A client to be made. `tenant_id` is the platform's to say; a tenant's own clients are always its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,200}$"), WRITTEN]
    scopes: Annotated[list[str], Field(min_length=1, max_length=100)]
    tenant_id: UUID | None = None
    redirect_uris: Annotated[
        list[Annotated[str, Field(max_length=2_000, pattern=f"^{REDIRECT.pattern}$")]],
        Field(max_length=10, description="Of an application that people sign in with. It gets no secret: a browser keeps none"),
    ] = []


class SecretModel(BaseModel):
    """A secret, as far as anybody may see it again."""

    id: UUID
    created_at: Moment


class ClientModel(BaseModel):
    """A client without its secrets."""

    client_id: str
    name: str
    scopes: list[str]
    secrets: list[SecretModel]
    redirect_uris: list[str]
    last_used_on: date | None = None
    """The last day, in UTC, on which it was given a token."""


class ClientWithSecret(BaseModel):
    """A new client. The secret, if it has one, is shown here and never again."""

    client_id: str
    client_secret: str | None = None
    secret_id: UUID | None = None
    name: str
    scopes: list[str]
    redirect_uris: list[str]


def client_model(client: Client) -> ClientModel:
    """A client for an answer."""
    return ClientModel(
        client_id=client.id,
        name=client.name,
        scopes=_effective(client),
        secrets=[SecretModel(id=secret.id, created_at=rfc3339(secret.created_at)) for secret in client.secrets],
        redirect_uris=list(client.redirect_uris),
        last_used_on=client.last_used_on,
    )


def tenant_asked(call: Call, tenant_id: UUID | None) -> UUID:
    """Whose clients are meant: the platform must say, a tenant must not."""
    if call.tenant_id != PLATFORM:
        if tenant_id is not None:
            raise RejectedError("tenant-id-not-allowed", "leave tenant_id out: it is the token that says it")
        return call.tenant_id
    if tenant_id is None:
        raise RejectedError("tenant-id-required", "say whose client by its tenant_id")
    return tenant_id


def _tenant_of(call: Call, client_id: str) -> UUID:
    """The tenant of a client that is any of the caller's business."""
    tenant_id = tenant_of(client_id)
    if tenant_id is None or call.tenant_id not in {tenant_id, PLATFORM}:
        raise foreign(Client) if tenant_id else absent(Client)
    return tenant_id


async def load_client(call: Call, client_id: str) -> Client:
    """The client, if it is any of the caller's business."""
    tenant_id = _tenant_of(call, client_id)
    async with call.transaction(tenant_id) as connection:
        found = await repository.CLIENTS.load(connection, [(tenant_id, client_id)], lock=False)
    return present(Client, found[0] if found else None)


async def client_of_path(call: Call) -> Client:
    """The same, of the path."""
    return await load_client(call, call.request.path_params["client_id"])


def _effective(client: Client) -> list[str]:
    """What a client's scopes come to: what is the platform's is no tenant's, whatever the row says."""
    return [scope for scope in client.scopes if scope in ROLES[CLIENT]]


def granter_of(call: Call) -> handlers.Granter:
    """The caller, who grants what its token allows; the platform's operators, whatever a tenant's client may have."""
    held = ROLES[CLIENT] if call.principal.is_platform_operator else ROLES[CLIENT] & call.principal.permissions
    return handlers.Granter(
        tenant_id=call.tenant_id,
        client_id=call.principal.client_id,
        grantable=tuple(sorted(held)),
        subject_id=call.principal.subject,
    )


def _with_secret(client: Client, secret_id: UUID, secret: str) -> Response:
    is_shown = not client.redirect_uris
    answer = ClientWithSecret(
        client_id=client.id,
        client_secret=secret if is_shown else None,
        secret_id=secret_id if is_shown else None,
        name=client.name,
        scopes=_effective(client),
        redirect_uris=list(client.redirect_uris),
    )
    return reply(201, answer, Location=f"/v1/clients/{client.id}", Cache_Control="no-store")


def _remember(client: Client) -> Answer:
    """The answer held a secret, so only whose it was is remembered."""
    return Answer(201, headers={"Location": f"/v1/clients/{client.id}"})


def _refuse_replay(replayed: Replayed) -> ConflictError:
    client_id = replayed.answer.headers["Location"].rpartition("/")[2]
    detail = "this was done, and its secret was shown then; if it is lost, make another and delete this one"
    return ConflictError("secret-not-replayable", detail, client_id=client_id)


@ROUTES.post("/v1/clients", status_code=201, response_model=ClientWithSecret)
@guard("clients:manage", idempotent=True)
async def create_client(call: Caller, body: NewClient) -> Response:
    """Make a client. Its secret is in this answer alone."""
    tenant_id, subject_id, secret_id = tenant_asked(call, body.tenant_id), new_id(), new_id()
    secret = secrets.token_urlsafe(SECRET_BYTES)
    command = handlers.CreateClient(
        client_id=client_id_of(tenant_id, subject_id),
        subject_id=subject_id,
        name=body.name,
        scopes=tuple(sorted(set(body.scopes))),
        granter=granter_of(call),
        secret_id=secret_id,
        secret_digest=digest_of(secret),
        redirect_uris=tuple(dict.fromkeys(body.redirect_uris)),
    )
    client = await call.execute_once(command, _remember, tenant_id=tenant_id)
    if isinstance(client, Replayed):
        raise _refuse_replay(client)
    return _with_secret(client, secret_id, secret)


@ROUTES.get("/v1/clients", response_model=Page[ClientModel])
@guard("clients:manage")
async def list_clients(call: Caller, tenant_id: UUID | None = None, limit: Limit = 50, cursor: str | None = None) -> Response:
    """A tenant's clients."""
    tenant_id = tenant_asked(call, tenant_id)
    return await listed(call, repository.CLIENTS, client_model, limit, cursor, tenant_id=tenant_id)


@ROUTES.get("/v1/clients/{client_id}", response_model=ClientModel)
@guard("clients:manage", sees=client_of_path)
async def read_client(call: Caller, client_id: str) -> Response:
    """One client."""
    return reply(200, client_model(await load_client(call, client_id)))


@ROUTES.delete("/v1/clients/{client_id}", status_code=204)
@guard("clients:manage", sees=client_of_path, goes_on=True)
async def delete_client(call: Caller, client_id: str) -> Response:
    """Take a client away. Tokens it holds are refused within seconds."""
    await call.execute(handlers.DeleteClient(client_id=client_id), tenant_id=_tenant_of(call, client_id))
    return reply(204, None)


@ROUTES.post("/v1/clients/{client_id}/secrets", status_code=201, response_model=ClientWithSecret)
@guard("clients:manage", idempotent=True, sees=client_of_path)
async def add_secret(call: Caller, client_id: str) -> Response:
    """Give a client a second secret, so that it can change over without a gap."""
    tenant_id, secret_id = _tenant_of(call, client_id), new_id()
    secret = secrets.token_urlsafe(SECRET_BYTES)
    command = handlers.AddSecret(
        client_id=client_id, secret_id=secret_id, secret_digest=digest_of(secret), granter=granter_of(call)
    )
    client = await call.execute_once(command, _remember, tenant_id=tenant_id)
    if isinstance(client, Replayed):
        raise _refuse_replay(client)
    return _with_secret(client, secret_id, secret)


@ROUTES.delete("/v1/clients/{client_id}/secrets/{secret_id}", status_code=204)
@guard("clients:manage", sees=client_of_path, goes_on=True)
async def remove_secret(call: Caller, client_id: str, secret_id: UUID) -> Response:
    """Take one secret away: it proves nothing from now on, and the client's tokens of before end."""
    command = handlers.RemoveSecret(client_id=client_id, secret_id=secret_id)
    await call.execute(command, tenant_id=_tenant_of(call, client_id))
    return reply(204, None)
