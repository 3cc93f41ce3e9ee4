"""Every port of a running stack at which a token is looked at, and what each says of one."""

from collections.abc import Iterator

import aiohttp

from deploy.local.gateway import program
from services import SERVICES
from tests.shared.market import Market

DOORS = (4 if program() else 3) * len(SERVICES)
"""So many there are: there is no gateway where there is no Envoy."""
LISTS = {"identity": "/v1/clients", "cart": "/v1/carts", "checkout": "/v1/orders", "payments": "/v1/payments"}
OPERATED = "/ops/parked-messages"


def doors(market: Market) -> Iterator[str]:
    """Of each API the public port, its place at the gateway, and the operators' port; of each worker its only one."""
    described = market.stack.description()
    for service in SERVICES:
        yield f"{described.services[service].url}{LISTS[service]}"
        if described.gateway_url:
            yield f"{described.gateway_url}{LISTS[service]}"
        for url in described.services[service].ops:
            yield f"{url}{OPERATED}"


async def told(market: Market, token: str) -> dict[str, int]:
    """By door, the status that whoever has this token is answered with. 401: nobody knows who it is."""
    answers: dict[str, int] = {}
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        for door in doors(market):
            async with session.get(door) as answer:
                answers[door] = answer.status
    return answers


async def is_believed(market: Market, token: str) -> bool:
    """Whether every door knows whose token this is; what they may there is another matter."""
    return set((await told(market, token)).values()) <= {200, 403}


async def is_refused(market: Market, token: str) -> bool:
    """Whether every door turns it away."""
    return set((await told(market, token)).values()) == {401}
