"""`tenants`: makes a tenant and its shop's first client through identity's public API, or finds them again."""

import asyncio
import fcntl
import hashlib
import json as jsonlib
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID, uuid4

from deploy.cli.api import Api, RefusedError, Reply, TokenSource, connected
from deploy.cli.deployment import deployment
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import print_json, progress
from deploy.cli.shop import Shop
from deploy.cli.waiting import asked_again
from deploy.local.description import StackDescription
from libs.common.cells import MAIN

CLIENT_SCOPES: Final = (
    *("carts:read", "carts:write", "products:read", "stock:read"),
    *("checkouts:read", "checkouts:write", "orders:read", "orders:write", "orders:refund"),
    *("payments:read", "payments:capture", "payments:void", "refunds:write", "disputes:read", "ledger:read"),
    *("provider-accounts:write", "settings:read", "settings:write", "webhooks:write", "sessions:issue"),
    *("parked:read", "parked:repair", "drops:manage", "promotions:write"),
)
"""What a shop's backend needs. Managing members, roles and clients is for its people, resolving for operators."""

_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9-]{1,62}")
_ADMITTED: Final = frozenset({"provisioning", "active"})
_PATIENCE_SECONDS: Final = 60
_POLL_SECONDS: Final = 0.2
_UNAUTHENTICATED: Final = frozenset({400, 401})
_CONFLICT: Final = 409
_UNPROCESSABLE: Final = 422


@dataclass(frozen=True, slots=True)
class Wish:
    """The tenant that is wanted; what is not said has a default."""

    slug: str
    name: str
    admin_email: str
    currency: str
    country: str
    scopes: tuple[str, ...] = CLIENT_SCOPES

    @classmethod
    def of(
        cls,
        slug: str,
        *,
        name: str | None = None,
        admin: str | None = None,
        currency: str = "GBP",
        country: str = "GB",
        scopes: tuple[str, ...] = CLIENT_SCOPES,
    ) -> "Wish":
        """Fill in the defaults. Raises CommandError on a slug that could not name a file."""
        if not _SLUG.fullmatch(slug):
            raise CommandError(f"{slug!r} is no slug: use lower-case letters, digits and hyphens", ExitCode.USAGE)
        return cls(slug, name or slug, admin or f"admin@{slug}.test", currency, country, scopes)


@dataclass(frozen=True, slots=True)
class Client:
    """A tenant's client, and where its secret lies."""

    client_id: str
    secret_file: Path
    scopes: tuple[str, ...]

    def secret(self) -> str:
        """Read the secret."""
        return self.secret_file.read_text()


@dataclass(frozen=True, slots=True)
class Onboarded:
    """A tenant as identity has it, and its client."""

    tenant: dict[str, Any]
    client: Client
    ready: dict[str, bool]
    owner: dict[str, Any] | None = None
    """The invitation of its owner, until that is taken."""

    @property
    def tenant_id(self) -> UUID:
        """The tenant's id."""
        return UUID(self.tenant["tenant_id"])

    @property
    def is_active(self) -> bool:
        """Whether it can be sold to."""
        return bool(self.tenant["status"] == "active")

    def shop(self, api: Api) -> Shop:
        """Return the tenant's shop."""
        return Shop(api, self.tenant_id, self.client.client_id, self.client.secret())

    def as_json(self) -> dict[str, Any]:
        """Return the object that `tenants onboard --json` prints."""
        return {
            "tenant_id": str(self.tenant_id),
            **{member: self.tenant[member] for member in ("slug", "status", "currency", "country")},
            "client": {
                "client_id": self.client.client_id,
                "secret_file": str(self.client.secret_file),
                "scopes": list(self.client.scopes),
            },
            "ready": self.ready,
            "owner": self.owner,
        }


def onboard(*, slug: str, name: str | None, admin: str | None, currency: str, country: str, json: bool) -> int:
    """Make a tenant and its client, or find them again; 1 when the tenant does not become active."""
    wish = Wish.of(slug, name=name, admin=admin, currency=currency, country=country)

    async def run() -> Onboarded:
        async with deployment(progress(), may_start=True) as stack, connected(stack) as api:
            return await onboarded(api, wish)

    found = asyncio.run(run())
    if json:
        print_json(found.as_json())
    else:
        print(f"{slug} is {found.tenant['status']}: tenant {found.tenant_id}")
        print(f"client {found.client.client_id}, its secret is in {found.client.secret_file}")
        if found.owner is not None:
            print(
                f"{found.owner['email']} is invited to own it" + (f": {found.owner['token']}" if "token" in found.owner else "")
            )
    return ExitCode.DONE if found.is_active else ExitCode.NOT_SO


def list_tenants(*, json: bool) -> int:
    """Print every tenant, as they are read."""

    async def run() -> None:
        async with deployment(progress(), may_start=True) as stack, connected(stack) as api:
            found = tenants(api, await operator(api).token())
            if json:
                print_json({"items": [tenant async for tenant in found]})
                return
            async for each in found:
                cell = each.get("cell", MAIN)  # one of the version before tells none
                where = "" if cell == MAIN else f"  (cell {cell})"
                print(f"{each['tenant_id']}  {each['status']:<12} {each['currency']} {each['country']}  {each['slug']}{where}")

    asyncio.run(run())
    return ExitCode.DONE


async def tenants(api: Api, token: str, slug: str | None = None) -> AsyncIterator[dict[str, Any]]:
    """Yield every tenant, or the one of a slug, as identity has it: of many, whoever needs one asks for one."""
    async for tenant in api.everything("identity", "/v1/tenants", token, {} if slug is None else {"slug": slug}):
        yield tenant


async def onboarded(api: Api, wish: Wish) -> Onboarded:
    """Return the tenant, active, with a client whose secret is known here."""
    token = operator(api)
    async with _alone(api.stack, wish.slug):
        tenant_id, owner = await _made(api, token, wish)
        tenant = await _provisioned(api, token, tenant_id)
        client = await _client(api, token, _Record(api.stack.home, wish.slug), tenant, wish.scopes)
    ready = tenant.get("ready") or dict.fromkeys(api.stack.services, tenant["status"] == "active")
    return Onboarded(tenant, client, ready, owner)


async def shops(
    api: Api, slug: str | None = None, known: Mapping[str, Shop] = MappingProxyType({})
) -> AsyncIterator[tuple[str, Shop]]:
    """Yield the slug and the shop of every active tenant, or of one, to be looked at. Raises CommandError when there is none.

    Of those known nothing more is asked.
    """
    found = [tenant async for tenant in tenants(api, await operator(api).token(), slug) if tenant["status"] == "active"]
    if slug is not None and not found:
        raise CommandError(f"there is no active tenant {slug!r}: see ./cartwright tenants list", ExitCode.USAGE)
    for tenant in found:
        shop = known.get(tenant["slug"])
        if shop is None or str(shop.tenant_id) != tenant["tenant_id"]:  # of one that was erased another may have the slug
            shop = Shop.looked_at(api, UUID(tenant["tenant_id"]))
        yield tenant["slug"], shop


async def _made(api: Api, operator: TokenSource, wish: Wish) -> tuple[str, dict[str, Any] | None]:
    """Make the tenant or find it; answers its id, and the invitation of its owner."""
    body = {
        "slug": wish.slug,
        "name": wish.name,
        "currency": wish.currency,
        "country": wish.country,
        "admin_email": wish.admin_email,
    }
    # The key follows from the whole wish: the same again is a replay, another for the slug meets the tenant it has.
    key, token = f"onboard:{wish.slug}:{_digest(body)}", await operator.token()

    async def asked(key: str) -> Reply:
        return await api.call("identity", "POST", "/v1/tenants", token=token, body=body, key=key, prefer="wait=30")

    try:
        reply = await asked(key)
        while reply.body["status"] == "erased":  # the same answer as ever; but who wants it now wants another
            reply = await asked(f"{key}:{reply.body['tenant_id']}")
    except RefusedError as error:
        if error.status == _UNPROCESSABLE:
            raise CommandError(str(error), ExitCode.USAGE) from error
        if error.status != _CONFLICT or "tenant_id" not in error.problem:
            raise
        return str(error.problem["tenant_id"]), None
    return str(reply.body["tenant_id"]), reply.body.get("owner")


async def _provisioned(api: Api, operator: TokenSource, tenant_id: str) -> dict[str, Any]:
    """Wait until every service can serve the tenant. A suspended or closed one is returned as it is."""

    async def read() -> dict[str, Any]:
        tenant: dict[str, Any] = (
            await api.call("identity", "GET", f"/v1/tenants/{tenant_id}", token=await operator.token())
        ).body
        return tenant

    return await asked_again(
        read,
        lambda tenant: tenant["status"] == "provisioning",
        patience_seconds=_PATIENCE_SECONDS,
        pause_seconds=_POLL_SECONDS,
    )


class _Record:
    """What this machine remembers of a tenant's client: its id and scopes in one file, its secret in another."""

    def __init__(self, home: Path, slug: str) -> None:
        self._file = home / "tenants" / f"{slug}.json"
        self.secret_file = home / "tenants" / f"{slug}.secret"

    def read(self, tenant_id: str) -> Client | None:
        """Return the client if both files are there and speak of this tenant."""
        try:
            kept = jsonlib.loads(self._file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        if kept["tenant_id"] != tenant_id or not self.secret_file.exists():
            return None
        return Client(kept["client_id"], self.secret_file, tuple(kept["scopes"]))

    def write(self, tenant_id: str, client_id: str, secret: str, scopes: tuple[str, ...]) -> Client:
        """Keep the secret first: a record without one is worth nothing."""
        client = Client(client_id, self.secret_file, scopes)
        kept = {"tenant_id": tenant_id, "client_id": client_id, "scopes": client.scopes}
        write_private(self.secret_file, secret)
        write_private(self._file, jsonlib.dumps(kept) + "\n")
        return client


async def _client(api: Api, operator: TokenSource, record: _Record, tenant: dict[str, Any], scopes: tuple[str, ...]) -> Client:
    tenant_id = tenant["tenant_id"]
    known = record.read(tenant_id)
    # Of a tenant that is not admitted no client is: that its secret is refused then says nothing of the secret.
    if known and {*scopes} <= {*known.scopes} and (tenant["status"] not in _ADMITTED or await _is_accepted(api, known)):
        return known
    body = {"name": "shop backend", "scopes": list(scopes), "tenant_id": tenant_id}
    key = f"onboard-client:{tenant_id}:{_digest(list(scopes))}"
    try:
        made = await _new_client(api, operator, body, key)
    except RefusedError as error:
        if error.status != _CONFLICT or "client_id" not in error.problem:
            raise
        made = await _new_secret(api, operator, str(error.problem["client_id"]), body)
    return record.write(tenant_id, made["client_id"], made["client_secret"], scopes)


async def _new_client(api: Api, operator: TokenSource, body: object, key: str) -> dict[str, Any]:
    reply = await api.call("identity", "POST", "/v1/clients", token=await operator.token(), body=body, key=key)
    made: dict[str, Any] = reply.body
    return made


async def _new_secret(api: Api, operator: TokenSource, client_id: str, body: object) -> dict[str, Any]:
    """Have a second secret for a client whose first is lost; a new client when it may have no more."""
    path, key = f"/v1/clients/{client_id}/secrets", f"lost-secret:{uuid4()}"
    try:
        reply = await api.call("identity", "POST", path, token=await operator.token(), key=key)
    except RefusedError:
        return await _new_client(api, operator, body, f"lost-secret:{uuid4()}")
    return {**reply.body, "client_id": client_id}


async def _is_accepted(api: Api, client: Client) -> bool:
    """Whether identity still knows the client and its secret: its database may be another one by now."""
    try:
        await api.grant(client.client_id, client.secret())
    except RefusedError as error:
        if error.status not in _UNAUTHENTICATED:
            raise
        return False
    return True


def operator(api: Api) -> TokenSource:
    """The platform operator's token."""
    stack = api.stack
    return TokenSource(lambda: api.grant(stack.platform_client_id, stack.platform_client_secret()))


@asynccontextmanager
async def _alone(stack: StackDescription, slug: str) -> AsyncIterator[None]:
    """Let nobody else on this machine onboard the slug meanwhile: a client's secret is told only once."""
    folder = stack.home / "tenants"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(folder / f"{slug}.lock", os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        yield


def write_private(file: Path, text: str) -> None:
    """Write beside the file and rename: a reader sees all of it or none, and only its owner can."""
    draft = file.with_name(f"{file.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    draft.replace(file)


def _digest(content: object) -> str:
    return hashlib.sha256(jsonlib.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
