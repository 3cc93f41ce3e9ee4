"""A service's HTTP edge in this process, on a real database, and callers with tokens of a key made for the test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from deploy.composition import parts_of
from libs.common.auth import ROLES, SHOPPER, TOKEN_TYPE, Verifier, scope_of
from libs.common.clock import PLATFORM, new_id, now
from libs.common.contracts.catalog import PriceChanged, ProductPublished
from libs.common.database import Database, passes_by_itself
from libs.common.decision import Message
from libs.common.errors import ConflictError
from libs.common.http.gatherings import Gatherings
from libs.common.http.operator import repair_routes
from libs.common.http.rates import Rates
from libs.common.http.reading import path_of
from libs.common.http.routes import Service
from libs.common.http.server import OPERATORS, closed
from libs.common.jwk import ALGORITHM, thumbprint
from libs.common.messaging.envelope import Reader
from libs.common.messaging.hints import Hints
from libs.common.messaging.repairs import ParkedMessages
from libs.common.messaging.shell import Shell
from libs.common.processes.api import PublicApi, api_app
from libs.common.shared import Shared
from services.checkout.handlers.checkouts import Terms
from services.checkout.repository.drops import Rooms
from services.identity.api.desk import Desk
from tests.shared.events import stock_counted, tenant_updated
from tests.shared.judging import Judged
from tests.shared.places import Place
from tests.shared.roots import keys_of, none_revoked

ISSUER = "http://issuer.test"
KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC = jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
JWK = {**PUBLIC, "kid": thumbprint(PUBLIC)}


OPERATED = (OPERATORS, "/livez", "/startupz", "/readyz", "/metrics")
"""Where the paths begin that no public port answers on."""

SHARED: Mapping[str, Callable[[Shell], object]] = {
    "checkout": lambda _: (Terms(900, frozenset()), Rooms(), Gatherings()),
    "identity": lambda _: Desk(b"m" * 32, shows_tokens=True),
}
"""What the processes of a service share; payments is given its own by whoever tries it."""


def message(data: Any, tenant_id: UUID, *, sequence: int = 1) -> Message[Any]:
    """A command or an event, as from nobody in particular."""
    return Message(data=data, tenant_id=tenant_id, id=str(new_id()), time=now(), sequence=sequence)


@dataclass(frozen=True)
class Person:
    """Somebody with a token."""

    tenant_id: UUID
    subject: UUID = field(default_factory=uuid4)
    role: str = SHOPPER
    scope: Iterable[str] | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    """What the token says besides, or instead: it is signed by a key that is believed."""

    @property
    def authorization(self) -> dict[str, str]:
        issued_at = int(now().timestamp())
        claims = {
            "iss": ISSUER,
            "aud": ["cart", "checkout", "identity", "payments"],
            "sub": str(self.subject),
            "client_id": "test",
            "iat": issued_at,
            "exp": issued_at + 600,
            "jti": str(uuid4()),
            **({} if self.tenant_id == PLATFORM else {"tid": str(self.tenant_id)}),
            "scope": scope_of(ROLES[self.role] if self.scope is None else self.scope),
            "roles": [self.role],
            **self.claims,
        }
        token = jwt.encode(claims, KEY, algorithm=ALGORITHM, headers={"typ": TOKEN_TYPE, "kid": JWK["kid"]})
        return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def shell_of(place: Place, *, size: int = 20) -> AsyncIterator[Shell]:
    """The service's own shell: its handlers on this database."""
    database = await Database.connect(place.url("app"), application="test", size=size)
    try:
        parts = parts_of(place.service)
        yield Shell(database, parts.rows, parts.handlers, service=place.service, hints=Hints(place.url("app")))
    finally:
        await database.close()


class BothDoors:
    """The public's and the operators' application behind one address, for tests that ask both; `doors.public` has its own."""

    def __init__(self, public: PublicApi) -> None:
        self.public, self.state, self.openapi = public, public.state, public.openapi
        self._customers, self._operators = Judged(public, public), Judged(public.operators, public)

    @property
    def routes(self) -> list[BaseRoute]:
        return [*self.public.routes, *self.public.operators.routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_operators = path_of(scope).startswith(OPERATED)
        await (self._operators if is_operators else self._customers)(scope, receive, send)


@asynccontextmanager
async def edge(place: Place, rates: Rates | None = None) -> AsyncIterator[tuple[httpx.AsyncClient, Shell]]:
    """The service as clients meet it, and its shell."""
    keys = keys_of(ISSUER, JWK)
    async with shell_of(place) as shell:
        app = api_app(place.service, parts_of(place.service).routes)
        app.state.keys = keys
        app.state.service = Service(
            place.service, shell, Hints(place.url("app")), Verifier(keys, none_revoked(), issuer=ISSUER, audience=place.service)
        )
        parked = ParkedMessages(shell, Reader(shell.handlers.events()), place.service)
        app.state.service.parked = parked
        app.state.service.rates = rates or Rates()
        app.operators.router.routes.extend(closed(repair_routes(parked, app.state.service.verifier)))
        app.state.service.shared = Shared(SHARED[place.service](shell) if place.service in SHARED else None)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(BothDoors(app)), base_url="http://service.test") as client:
            yield client, shell


async def until_taken(ask: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """Ask the same until one is not told to come again: on a busy machine many at once may be."""
    while (answer := await ask()).status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        await asyncio.sleep(float(answer.headers["Retry-After"]))
    return answer


async def decided(carry_out: Callable[[], Awaitable[Any]]) -> Any:
    """Carry out the same until it is not told to come again: on a busy machine many at once may be."""
    while True:
        try:
            return await carry_out()
        except Exception as error:
            if not (passes_by_itself(error) or (isinstance(error, ConflictError) and error.code == "contention")):
                raise
            await asyncio.sleep(1)


def problem(response: httpx.Response) -> dict[str, Any]:
    """The problem that a refusal carries, its members checked."""
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = orjson.loads(response.content)
    assert body["type"] == f"urn:cartwright:problem:{body['code']}"
    assert body["status"] == response.status_code
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["instance"] == response.request.url.path
    assert body["title"]
    assert body["detail"]
    return body


async def onboard(shell: Shell, currency: str = "GBP") -> UUID:
    """A tenant that the service knows."""
    tenant_id = uuid4()
    await shell.execute(message(tenant_updated(tenant_id, currency=currency), tenant_id))
    return tenant_id


async def sell(shell: Shell, tenant_id: UUID, sku: str, unit_minor: int, currency: str = "GBP") -> None:
    """Put a product in the catalogue."""
    await shell.execute(message(ProductPublished(sku=sku, name=f"The {sku}", category="things"), tenant_id))
    await shell.execute(message(PriceChanged(sku=sku, currency=currency, unit_minor=unit_minor), tenant_id, sequence=2))


async def count(shell: Shell, tenant_id: UUID, sku: str, quantity: int, sequence: int = 1) -> None:
    """Say how many there are."""
    await shell.execute(message(stock_counted(sku, quantity), tenant_id, sequence=sequence))
