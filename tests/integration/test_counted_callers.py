"""Cheap calls in great number: refused before the database hears of them, and an answer for one caller is kept by nobody."""

import asyncio
import time
from types import SimpleNamespace
from typing import cast
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from libs.common.auth import CLIENT
from libs.common.choices import Choices
from libs.common.database import Database
from libs.common.errors import OverloadedError
from libs.common.http.problem import problem_of
from libs.common.http.rates import Rates
from libs.common.settings import Settings
from tests.shared.callers import Person, edge, onboard, problem
from tests.shared.places import Places


def _rates(choices: Choices | None = None, **given: str) -> Rates:
    every = dict.fromkeys([name for name in Settings.model_fields if name.startswith("rate_")], "1/10000") | given
    stands_still = time.monotonic()
    return Rates(cast("Settings", SimpleNamespace(**every)), lambda: stands_still, choices)


async def test_a_guest_who_opens_carts_without_end_is_held_up_and_nobody_else(shared: Places) -> None:
    async with edge(shared("cart"), _rates(rate_per_subject="1/5")) as (client, shell):
        tenant_id = await onboard(shell)
        guest, neighbour = Person(tenant_id), Person(tenant_id)
        made = [await client.post("/v1/carts", headers=guest.authorization) for _ in range(8)]
        assert [answer.status_code for answer in made] == [201] * 5 + [429] * 3
        assert problem(made[-1])["code"] == "rate-limited"
        assert int(made[-1].headers["retry-after"]) >= 1
        chosen = [await client.put(f"/v1/carts/{uuid4()}", headers=guest.authorization) for _ in range(7)]
        assert [answer.status_code for answer in chosen] == [201] * 5 + [429] * 2
        assert (await client.post("/v1/carts", headers=neighbour.authorization)).status_code == 201
        listed = await client.get("/v1/carts", headers=guest.authorization)
        assert len(listed.json()["items"]) == 10


async def test_one_tenants_crowd_is_held_up_and_no_other_tenant(shared: Places) -> None:
    async with edge(shared("cart"), _rates(rate_per_tenant="1/6")) as (client, shell):
        crowded, quiet = await onboard(shell), await onboard(shell)
        made = [await client.post("/v1/carts", headers=Person(crowded).authorization) for _ in range(8)]
        assert [answer.status_code for answer in made] == [201] * 6 + [429] * 2
        assert (await client.post("/v1/carts", headers=Person(quiet).authorization)).status_code == 201


async def test_strangers_are_counted_before_anything_of_them_is_read(shared: Places) -> None:
    async with edge(shared("checkout"), _rates(rate_per_address="1/3")) as (client, _):
        asked = [await client.post("/v1/order-lookups", content=b"{") for _ in range(5)]
        assert [problem(answer)["code"] for answer in asked] == ["unsupported-media-type"] * 3 + ["rate-limited"] * 2


async def test_an_answer_for_one_caller_is_kept_by_nobody_nor_taken_for_another_type(shared: Places) -> None:
    async with edge(shared("cart")) as (client, shell):
        shopper = Person(await onboard(shell))
        answers = [
            await client.get("/v1/carts", headers=shopper.authorization),
            await client.post("/v1/carts", headers=shopper.authorization),
            await client.get(f"/v1/carts/{uuid4()}", headers=shopper.authorization),
            await client.get("/v1/carts"),
        ]
        assert [answer.status_code for answer in answers] == [200, 201, 404, 401]
        for answer in answers:
            assert answer.headers.get_list("cache-control") == ["no-store"]
            assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
        nowhere = await client.get("/v1/nowhere")
        assert problem(nowhere)["detail"] == "there is nothing here for you"


async def test_every_answer_says_what_is_left_and_a_tenant_has_less_if_it_chose_so_and_no_other(shared: Places) -> None:
    choices = Choices()
    async with edge(shared("cart"), _rates(choices, rate_of_requests_per_subject="2/9")) as (client, shell):
        strict, usual = await onboard(shell), await onboard(shell)
        choices.learn(strict, 1, {"limits": {"subject_per_second": 1, "tenant_per_second": 900}}, is_open=True)
        for tenant_id, most in ((strict, 9), (usual, 9)):
            shopper = Person(tenant_id)
            answers = [await client.get("/v1/carts", headers=shopper.authorization) for _ in range(most + 2)]
            assert [answer.status_code for answer in answers] == [200] * most + [429] * 2
            window = {strict: 9, usual: 5}[tenant_id]
            assert {answer.headers["ratelimit-policy"] for answer in answers} == {f'"subject";q={most};w={window}'}
            assert answers[0].headers["ratelimit"] == f'"subject";r={most - 1};t=1'
            assert answers[-1].headers["ratelimit"] == '"subject";r=0;t=1'
            assert answers[-1].headers["retry-after"] == "1"
        machine = await client.get("/v1/carts", headers=Person(usual, role=CLIENT).authorization)
        assert machine.headers["ratelimit-policy"].startswith('"tenant";')


async def test_checkouts_are_begun_less_often_than_anything_else_and_less_still_where_a_tenant_chose_so(shared: Places) -> None:
    choices = Choices()
    async with edge(shared("checkout"), _rates(choices, rate_of_checkouts="1/4")) as (client, shell):
        strict, usual = await onboard(shell), await onboard(shell)
        choices.learn(strict, 1, {"limits": {"checkouts_per_minute": 2}}, is_open=True)
        for tenant_id, most in ((strict, 2), (usual, 4)):
            shopper, answers = Person(tenant_id), []
            for number in range(most + 1):
                headers = {**shopper.authorization, "Idempotency-Key": str(number)}
                cart = {"cart_id": str(uuid4()), "payment": {"method": "pm_card_visa"}}
                answers.append(await client.post("/v1/checkouts", json=cart, headers=headers))
            assert [answer.status_code for answer in answers] == [202] * most + [429]
            assert answers[-1].headers["ratelimit"].startswith('"checkouts";r=0;t=')
            assert answers[-1].headers["retry-after"] == ("30" if tenant_id == strict else "1")
            listed = await client.get("/v1/orders", headers=shopper.authorization)
            assert listed.status_code == 200, "only what begins a purchase is held up"


def _shed() -> float:
    return REGISTRY.get_sample_value("cartwright_shed_total", {"queue": "database"}) or 0


async def test_whoever_comes_when_too_many_wait_is_refused_at_once_and_those_before_are_served(shared: Places) -> None:
    database = await Database.connect(shared("cart").url("app"), application="test", size=1, most_waiting=2)

    async def asked() -> int:
        async with database.acquire() as connection:
            return int(await connection.fetchval("SELECT 1"))

    async with database.acquire():
        waiting = [asyncio.create_task(asked()) for _ in range(2)]
        await asyncio.sleep(0)  # both stand in line
        before = _shed()
        with pytest.raises(OverloadedError) as refused:
            await asked()
        assert _shed() == before + 1
    assert await asyncio.gather(*waiting) == [1, 1]
    assert await asked() == 1, "there is room again"
    await database.close()
    answer = problem_of(refused.value, request_id="r", instance="/v1/carts")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
