"""The stack as `up` starts it, on a broker that asks everybody who he is: it works, and nobody speaks in its name."""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

import aiohttp
import orjson
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import TopicAuthorizationFailedError

from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.publisher import Fact, client_arguments, publishing
from deploy.cli.tenants import Wish, onboarded
from deploy.local.access import Acl, Operation, Pattern, Permission, Resource, declared_access
from deploy.local.kafka.admin import kafka_admin
from deploy.local.kafka.install import installed
from deploy.local.kafka.listeners import admin_options
from deploy.local.kafka.wall import raise_wall
from deploy.local.state import ROOT
from tests.shared.market import Market, market_in, standing
from tests.shared.places import Templates
from tests.shared.variables import without_ours

EXAMPLE = re.compile(r"^```(?P<language>python|java|sh)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long("a broker of its own; every cell of its wall is tried in tests/faults/test_broker_wall.py"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def walled(
    templates: Templates, fresh_prefix: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Market]:
    """A stack with a broker of its own, on which topics have their own names; the one tests share lets everybody do all."""
    async with standing(templates, None, fresh_prefix("walled"), tmp_path_factory.mktemp("walled")) as where:
        yield await market_in(where, "walled")


async def test_a_purchase_goes_through_and_its_events_are_read_by_the_operator(walled: Market) -> None:
    shopper = walled.shop.shopper("customer:walled")
    cart_id = await walled.cart(shopper, {"SKU-1": 2})
    started = await shopper.check_out(cart_id, key=f"buy-{cart_id}", method="pm_card_visa", wait_seconds=20)
    assert (await shopper.outcome(started, patience_seconds=240))["state"] == "confirmed"
    stack = walled.stack.description()
    topic = stack.topic_prefix + "order.v1"
    async with AIOKafkaConsumer(topic, auto_offset_reset="earliest", **client_arguments(stack)) as consumer:
        record = await consumer.getone()
    assert ("ce_type", b"order.confirmed") in record.headers


async def test_a_forged_authorization_is_refused_and_changes_nothing(walled: Market) -> None:
    stack = walled.stack.description()
    tenant, checkout = walled.shop.tenant_id, uuid4()
    headers = {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": str(uuid4()),
        "ce_source": "/cartwright/payments",
        "ce_type": "payment.authorized",
        "ce_tenantid": str(tenant),
        "ce_correlationid": str(checkout),
    }
    forger = AIOKafkaProducer(bootstrap_servers=stack.kafka_bootstrap_servers)
    await forger.start()
    try:
        with pytest.raises(TopicAuthorizationFailedError):
            await forger.send_and_wait(
                stack.topic_prefix + "payment.v1",
                orjson.dumps({"checkout_id": str(checkout), "amount_minor": 1}),
                key=f"{tenant}:{checkout}".encode(),
                headers=[(name, value.encode()) for name, value in headers.items()],
            )
    finally:
        await forger.stop()


async def test_what_no_system_outside_may_say_is_refused_in_one_line(walled: Market) -> None:
    fact = Fact("payment.v1", "payment.authorized", "/test/nobody", walled.shop.tenant_id, "SKU-1", 1, {})
    async with publishing(walled.api.stack) as publisher:
        with pytest.raises(CommandError, match=r"^payment\.v1 may not be written to from here") as refused:
            await publisher.publish([fact.record()])
    assert refused.value.exit_code == ExitCode.NOT_SO


async def test_the_examples_for_other_teams_put_a_product_on_sale(walled: Market, tmp_path: Path) -> None:
    """The blocks of docs/integrating.md, each as the program that it is, with nothing but what the page says they take."""
    page = (ROOT / "docs" / "integrating.md").read_text(encoding="utf-8")
    programs = page.partition("## Promotions")[0]
    examples = {each["language"]: each["body"] for each in EXAMPLE.finditer(programs)}
    sasl = walled.stack.description().kafka_sasl
    assert sasl

    async def run(language: str, principal: str, *command: str) -> str:
        file = tmp_path / {"python": "publish.py", "java": "Publish.java", "sh": "publish.sh"}[language]
        file.write_text(examples[language], encoding="utf-8")
        given = {
            "BOOTSTRAP_SERVERS": sasl.bootstrap_servers,
            "USERNAME": principal,
            "SECRET_FILE": str(sasl.principals[principal].secret_file),
            "TENANT_ID": str(walled.shop.tenant_id),
            "CARTWRIGHT_HOME": str(walled.stack.home.path),
        }
        process = await asyncio.create_subprocess_exec(
            *command,
            str(file),
            cwd=tmp_path,
            env=os.environ | given,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = (await process.communicate())[0].decode()
        assert process.returncode == 0, said
        return said

    async def offer() -> tuple[str, int | None] | None:
        found = [each async for each in walled.shop.products()]
        return next(((each["name"], each.get("unit_minor")) for each in found if each["sku"] == "TEA-POT"), None)

    async def costs(unit_minor: int) -> bool:
        return await offer() == ("A teapot", unit_minor)

    await run("python", "publisher-catalog", sys.executable)
    await walled.until(lambda: costs(1250))
    java = shutil.which("java")
    if java is not None and "jdk.compiler" in await _said(java, "--list-modules"):
        await run("java", "publisher-inventory", java, "-cp", f"{installed().folder / 'libs'}/*")
        await walled.until(lambda: _counted(walled, "TEA-POT", 40))
    (tmp_path / "cartwright").write_text(f'#!/bin/sh\nexec "{ROOT}/cartwright" "$@"\n', encoding="utf-8")
    (tmp_path / "cartwright").chmod(0o700)
    await run("sh", "publisher-catalog", "sh", "-eu")
    await walled.until(lambda: costs(990))
    [promotion] = [each["body"] for each in EXAMPLE.finditer(page) if "/v1/promotions/" in each["body"]]
    await _gives_a_fifth_off(walled, promotion)


async def _gives_a_fifth_off(market: Market, example: str) -> None:
    """Run what the page says of promotions, twice over, and have somebody enter the coupon."""
    gateway = market.stack.description().gateway_url
    assert gateway, "the gateway's address is the only one that the example takes"
    client = (await onboarded(market.api, Wish.of("walled"))).client
    given = os.environ | {"CARTWRIGHT": gateway, "CLIENT_ID": client.client_id, "CLIENT_SECRET": client.secret()}
    for _ in range(2):
        process = await asyncio.create_subprocess_exec("sh", "-euc", example, env=given, stdout=asyncio.subprocess.PIPE)
        said = orjson.loads((await process.communicate())[0])
        assert (process.returncode, said["code"], said["percent"], said["skus"]) == (0, "TEA-TIME", "20", ["TEA-POT"])
    shopper = market.shop.shopper("customer:promoted")
    cart_id = await market.cart(shopper, {"TEA-POT": 2})
    path = f"/v1/carts/{cart_id}/coupons/tea-time"
    entered = (await market.api.call("cart", "PUT", path, token=await shopper.token())).body
    assert [(each["coupon"], each["amount_minor"]) for each in entered["discounts"]] == [("TEA-TIME", 396)]


async def _said(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0].decode()


async def _counted(market: Market, sku: str, on_hand: int) -> bool:
    levels = [each async for each in market.shop.stock()]
    return any(each["sku"] == sku and each["on_hand"] == on_hand for each in levels)


async def test_a_worker_that_may_no_longer_read_says_so_and_is_not_ready_until_it_may_again(walled: Market) -> None:
    stack, sasl = walled.stack.description(), walled.stack.description().kafka_sasl
    assert sasl
    topic, admin = stack.topic_prefix + "checkout.v1", admin_options(sasl)
    right = Acl("User:payments", Permission.ALLOW, Operation.READ, Resource.TOPIC, Pattern.LITERAL, topic)
    worker = stack.services["payments"].ops[1]
    async with aiohttp.ClientSession() as session:

        async def missing() -> list[str]:
            async with session.get(f"{worker}/readyz") as answer:
                body: dict[str, list[str]] = await answer.json()
                return body["missing"]

        assert await missing() == []
        async with kafka_admin(**admin) as rights:
            await rights.revoke([right])

        async def refused() -> bool:
            return any("the broker refuses" in each and "TopicAuthorizationFailed" in each for each in await missing())

        await walled.until(refused)
        change = await raise_wall(admin, declared_access(), users={}, prefix=stack.topic_prefix, anonymous=True)
        assert change.missing == {right}

        async def ready() -> bool:
            return await missing() == []

        await walled.until(ready, seconds=240)  # each partition has its refusal, and a poll tells one of them, every five seconds


async def test_the_checker_of_invariants_looks_from_elsewhere_under_its_own_name_until_it_is_told_to_leave(
    walled: Market, tmp_path: Path
) -> None:
    """As the chart and Compose run it: by a description, with each secret in a file."""
    stack = walled.stack.description()
    sasl = stack.kafka_sasl
    assert sasl
    assert stack.stripe_api_key
    (tmp_path / "provider").write_text(f"{stack.stripe_api_key}\n")
    services = {name: {"url": each["url"], "ops": each["ops"]} for name, each in stack.as_json()["services"].items()}
    description = {
        "services": services,
        "platform_client": {"secret_file": str(stack.platform_secret_file)},
        "kafka": {"bootstrap_servers": sasl.bootstrap_servers},
        "stripe": {"api_base": stack.stripe_api_base, "api_key_file": "provider"},
    }
    (tmp_path / "deployment.json").write_text(orjson.dumps(description).decode())
    own = sasl.environment("invariants") | {"TOPIC_PREFIX": stack.topic_prefix, "DEPLOYMENT": str(tmp_path / "deployment.json")}
    del own["KAFKA_SASL_PASSWORD"]
    own |= {"KAFKA_SASL_PASSWORD_FILE": str(sasl.principals["invariants"].secret_file), "HOME": str(tmp_path / "empty")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli", "invariants", "--watch", "--every", "0.1", "--metrics-port", "0"),
        cwd=ROOT,
        env=without_ours() | {f"CARTWRIGHT_{name}": value for name, value in own.items()},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr
    place = (await process.stderr.readline()).decode().split()[-1]

    async def has_looked() -> bool:
        async with aiohttp.ClientSession() as session, session.get(place) as answer:
            told = await answer.text()
        return re.search(r'^cartwright_invariants_looks_total{outcome="(clean|violations)"} ', told, re.MULTILINE) is not None

    try:
        await walled.until(has_looked, seconds=240)
    finally:
        process.terminate()
        _, said = await process.communicate()
    assert process.returncode == 0, said.decode()
