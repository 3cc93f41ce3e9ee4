"""What a service more has to show in a running stack. `test_fifth_service.py` runs this, in a copy that has one."""

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from deploy.cli.api import RefusedError
from deploy.cli.publisher import client_arguments
from deploy.cli.tenants import operator
from tests.shared.market import Market

pytestmark = pytest.mark.asyncio(loop_scope="session")

SERVICE, TOPIC = "notifications", "notification.v1"


async def _tenant(market: Market, slug: str) -> dict[str, Any]:
    token = await operator(market.api).token()
    tenants = [each async for each in market.api.everything("identity", "/v1/tenants", token) if each["slug"] == slug]
    return tenants[0] if tenants else {}


async def _records(market: Market) -> Any:
    """Every event that it has published, and those to come."""
    stack = market.stack.description()
    consumer = AIOKafkaConsumer(
        stack.topic_prefix + TOPIC, auto_offset_reset="earliest", enable_auto_commit=False, **client_arguments(stack)
    )
    await consumer.start()
    try:
        async for record in consumer:
            yield {name: value.decode() for name, value in record.headers}
    finally:
        await consumer.stop()


async def _published(market: Market, type_: str, subject: str) -> bool:
    async for headers in _records(market):
        if (headers["ce_type"], headers["ce_subject"]) == (type_, subject):
            return True
    return False


async def test_a_tenant_is_active_only_when_it_can_be_served_here_too(market: Market) -> None:
    await market.stack.kill(f"{SERVICE}.worker")
    onboarding = asyncio.create_task(market.another_shop("late"))

    async def lacks_only_this() -> bool:
        ready = (await _tenant(market, "late")).get("ready", {})
        return bool(ready) and [service for service, is_so in ready.items() if not is_so] == [SERVICE]

    await market.until(lacks_only_this)
    assert (await _tenant(market, "late"))["status"] == "provisioning"
    await market.stack.start_process(f"{SERVICE}.worker")
    shop = await onboarding
    assert (await _tenant(market, "late"))["status"] == "active"
    async with asyncio.timeout(240):
        assert await _published(market, "tenant.provisioned", str(shop.tenant_id))


async def test_an_order_makes_a_notification_that_is_told_and_can_be_read(market: Market) -> None:
    shopper = market.shop.shopper("customer:notified")
    cart_id = await market.cart(shopper, {"SKU-1": 1})
    started = await shopper.check_out(cart_id, key=f"buy-{cart_id}", method="pm_card_visa", wait_seconds=20)
    order_id = (await shopper.outcome(started, patience_seconds=240))["order_id"]
    path, token = f"/v1/{SERVICE}/{order_id}", await market.shop.token()

    async def is_there() -> bool:
        try:
            return bool((await market.api.call(SERVICE, "GET", path, token=token)).body["state"] == "requested")
        except RefusedError as error:
            if error.code != "notification-not-found":
                raise
            return False

    await market.until(is_there)
    async with asyncio.timeout(240):
        assert await _published(market, "notification.requested", order_id)
