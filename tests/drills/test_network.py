"""A network that loses packets for half a minute, and tells nobody, while people buy: nothing is lost, nothing happens twice."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import get_args
from urllib.parse import urlsplit

import pytest

from deploy.gateway.files import write
from deploy.local import readiness
from deploy.local.copies import operator_port
from services import SERVICES
from tests.shared.custom import LOST_SECONDS, Custom
from tests.shared.island import Island, Way, island, let_in
from tests.shared.market import Market
from tests.shared.strait import Weather, strait
from tests.shared.toy import seeded

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long("what is cut off is given up and comes back in every build (tests/faults/test_silence.py)"),
    pytest.mark.timeout(3_600),
]

ROUGH_SECONDS = 90
LISTENS = {"CARTWRIGHT_HTTP_HOST", "CARTWRIGHT_OPS_HOST"}
FIRST = ("checkout.worker", "payments.worker")
SECOND = tuple(f"{each}.2" for each in FIRST)
UNPROVEN = "that a network which loses packets for half a minute loses no purchase"


async def _moved(market: Market, name: str, place: Island) -> str:
    """Start one of the stack's processes anew, on the island; answers where it is asked whether it is ready."""
    await market.stack.stop_process(name)
    process = market.stack._parts[name]
    child = process._child  # type: ignore[attr-defined]  # it is a HttpProcess
    child.command = [*place.command, *child.command]
    child.environment |= dict.fromkeys(LISTENS & child.environment.keys(), place.address)
    process._ready_url = process._ready_url.replace("127.0.0.1", place.address)  # type: ignore[attr-defined]
    await market.stack.start_process(name)
    return str(process._ready_url).replace("startupz", "readyz")  # type: ignore[attr-defined]


async def test_second_workers_are_cut_off_from_database_broker_and_provider_both_ways_and_one_way(market: Market) -> None:
    await let_in(market.stack.admin_url)
    with island(UNPROVEN) as place:
        await market.stack.scale(dict.fromkeys(FIRST, 2))
        ready = [await _moved(market, name, place) for name in SECOND]

        stack = market.stack.description()
        provider = urlsplit(str(stack.stripe_api_base)).port
        broker = urlsplit(f"//{stack.kafka_bootstrap_servers}").port
        database = stack.postgres_port
        assert database
        assert broker
        assert provider
        custom = Custom(market, market.shop, "silence")
        async with custom.comes():
            await market.until(lambda: _all_ready(ready))
            await custom.goes_on()
            for server, port in {"database": database, "broker": broker, "provider": provider}.items():
                for way in get_args(Way):
                    await custom.bears_with(server, place, port, way=way)
                    await market.until(lambda: _all_ready(ready))
        await market.stack.scale(dict.fromkeys(FIRST, 1))
        await custom.left_all_well()


async def test_all_that_workers_hear_and_say_takes_its_time_comes_in_any_order_twice_or_not_at_all(market: Market) -> None:
    await let_in(market.stack.admin_url)
    weather = Weather(longest_seconds=0.05, lost=0.02, doubled=0.02, chance=seeded(time.time_ns() % 2**32))
    with strait(UNPROVEN, weather) as place:
        await market.stack.scale(dict.fromkeys(FIRST, 2))
        ready = [await _moved(market, name, place) for name in SECOND]
        custom = Custom(market, market.shop, "rough")
        async with custom.comes():
            await market.until(lambda: _all_ready(ready))
            for name in FIRST:
                await market.stack.stop_process(name)
            before = len(custom.checkouts)
            for _ in range(ROUGH_SECONDS // LOST_SECONDS):
                await asyncio.sleep(LOST_SECONDS)
                await custom.goes_on()
            print(f"{len(custom.checkouts) - before} purchases; of packets {dict(weather.seen)}")
            for name in FIRST:
                await market.stack.start_process(name)
        await market.stack.scale(dict.fromkeys(FIRST, 1))
        await custom.left_all_well()
    assert min(weather.seen[each] for each in ("once", "doubled", "lost")) > ROUGH_SECONDS


async def test_the_second_of_two_apis_is_cut_off_from_the_gateway_both_ways_and_one_way(market: Market) -> None:
    with island(UNPROVEN) as place:
        await let_in(market.stack.admin_url)
        await market.stack.scale({"checkout.api": 2})
        ready = await _moved(market, "checkout.api.2", place)
        port, ops_port = (market.stack._ports[operator] for operator in ("checkout.api.2", operator_port("checkout.api.2")))
        _look_for_it_there(market, port, place)
        custom = Custom(market, market.shop, "unheard")
        async with custom.comes():
            await custom.goes_on()
            for way in get_args(Way):
                await custom.bears_with("gateway", place, port, ops_port, way=way)
                await market.until(lambda: _is_ready(ready))
        await market.stack.scale({"checkout.api": 1})
        await custom.left_all_well()


async def _all_ready(urls: Sequence[str]) -> bool:
    return all([await _is_ready(url) for url in urls])


async def _is_ready(url: str) -> bool:
    return await readiness.status(url) == readiness.OK


def _look_for_it_there(market: Market, port: int, place: Island) -> None:
    """Have the gateway look for one of the APIs on the island: it knows them all by their ports on this machine."""
    folder = market.stack.home.path / "gateway"
    known = json.loads((folder / "clusters.json").read_text())
    for endpoint in known["resources"][SERVICES.index("checkout")]["load_assignment"]["endpoints"][0]["lb_endpoints"]:
        address = endpoint["endpoint"]["address"]["socket_address"]
        if address["port_value"] == port:
            address["address"] = place.address
    write({"clusters.json": known}, folder)
