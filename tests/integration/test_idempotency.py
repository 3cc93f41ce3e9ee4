"""Same key, same answer: a command under an idempotency key happens once, however often and however many at once ask."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from libs.common.decision import Viewer
from libs.common.errors import CartwrightError, ConflictError, NotFoundError, RejectedError
from libs.common.messaging.idempotency import Answer, Claim, Replayed
from libs.common.messaging.shell import Shell
from services.cart.handlers import AddQuantity, CreateCart, Written
from tests.shared.callers import message, onboard, sell, shell_of
from tests.shared.places import Place, Places

SHOPPER = uuid4()
TWINS = 30


def _remember(written: Written) -> Answer:
    cart = written.cart
    return Answer(200, f"{cart.id} at {cart.version}: {cart.lines[0].quantity}".encode(), {"ETag": f'"{cart.version}"'})


def _claim(tenant_id: UUID, key: str = "key", **changes: Any) -> Claim[Written]:
    claim: Claim[Written] = Claim(tenant_id, str(SHOPPER), "POST /v1/carts/{cart_id}/lines", key, b"request", _remember)
    return replace(claim, **changes)


def _add(tenant_id: UUID, cart_id: UUID, sku: str = "tea") -> Any:
    caller = Viewer(subject_id=SHOPPER, sees_all=False)
    return message(AddQuantity(cart_id=cart_id, caller=caller, sku=sku, quantity=1), tenant_id)


@pytest.fixture
def place(shared: Places) -> Place:
    return shared("cart")


@pytest.fixture
async def shell(place: Place) -> AsyncIterator[Shell]:
    async with shell_of(place) as shell:
        yield shell


async def _shop(shell: Shell) -> tuple[UUID, UUID]:
    """A tenant that sells tea, and a cart."""
    tenant_id = await onboard(shell)
    await sell(shell, tenant_id, "tea", 250)
    cart, _ = await shell.execute(
        message(CreateCart(cart_id=uuid4(), caller=Viewer(subject_id=SHOPPER, sees_all=False), currency=None), tenant_id)
    )
    return tenant_id, cart.id


async def _quantity(shell: Shell, tenant_id: UUID) -> int:
    async with shell.database.transaction([tenant_id]) as connection:
        quantity: int | None = await connection.fetchval("SELECT (lines -> 0 ->> 'quantity')::int FROM cart")
    return quantity or 0


async def _keys(shell: Shell, tenant_id: UUID) -> int:
    async with shell.database.transaction([tenant_id]) as connection:
        count: int = await connection.fetchval("SELECT count(*) FROM idempotency_key")
    return count


async def test_of_many_twins_one_is_carried_out_and_all_get_its_answer(shell: Shell) -> None:
    tenant_id, cart_id = await _shop(shell)
    answers = await asyncio.gather(*(shell.execute(_add(tenant_id, cart_id), _claim(tenant_id)) for _ in range(TWINS)))
    [first] = [answer for answer in answers if isinstance(answer, Written)]
    replayed = [answer.answer for answer in answers if isinstance(answer, Replayed)]
    assert len(replayed) == TWINS - 1
    assert all(answer == _remember(first) for answer in replayed)
    assert await _quantity(shell, tenant_id) == 1
    again = await shell.execute(_add(tenant_id, cart_id), _claim(tenant_id))
    assert again == Replayed(_remember(first)), "a replay shows the answer of then, whatever has happened since"


async def test_a_used_key_with_another_request_is_refused_and_changes_nothing(shell: Shell) -> None:
    tenant_id, cart_id = await _shop(shell)
    await shell.execute(_add(tenant_id, cart_id), _claim(tenant_id))
    with pytest.raises(RejectedError) as refusal:
        await shell.execute(_add(tenant_id, cart_id), _claim(tenant_id, fingerprint=b"another"))
    assert (refusal.value.status, refusal.value.code) == (422, "idempotency-key-reused")
    assert await _quantity(shell, tenant_id) == 1


async def test_the_key_belongs_to_its_tenant_its_subject_and_its_operation(shell: Shell) -> None:
    tenant_id, cart_id = await _shop(shell)
    other_tenant, other_cart = await _shop(shell)
    await shell.execute(_add(tenant_id, cart_id), _claim(tenant_id))
    independent = [
        shell.execute(_add(other_tenant, other_cart), _claim(other_tenant, fingerprint=b"another")),
        shell.execute(_add(tenant_id, cart_id), _claim(tenant_id, subject=str(uuid4()), fingerprint=b"another")),
        shell.execute(_add(tenant_id, cart_id), _claim(tenant_id, operation="PUT /elsewhere", fingerprint=b"another")),
        shell.execute(_add(tenant_id, cart_id), _claim(tenant_id, "other key", fingerprint=b"another")),
    ]
    assert all(isinstance(answer, Written) for answer in await asyncio.gather(*independent))
    assert (await _quantity(shell, tenant_id), await _quantity(shell, other_tenant)) == (4, 1)


async def test_a_command_that_failed_leaves_its_key_free_for_another_try(shell: Shell) -> None:
    tenant_id, cart_id = await _shop(shell)
    failing: list[tuple[Any, type[CartwrightError]]] = [
        (_add(tenant_id, uuid4()), NotFoundError),
        (_add(tenant_id, cart_id, "unheard-of"), RejectedError),
    ]
    for command, error in failing:
        with pytest.raises(error):
            await shell.execute(command, _claim(tenant_id))
    assert await _keys(shell, tenant_id) == 0
    assert isinstance(await shell.execute(_add(tenant_id, cart_id), _claim(tenant_id)), Written)
    assert await _keys(shell, tenant_id) == 1


HOLD = """INSERT INTO idempotency_key (tenant_id, subject, operation, key, fingerprint, status, body)
VALUES ($1, $2, 'POST /v1/carts/{cart_id}/lines', 'key', 'request', 200, 'of the first')"""


async def _hold(place: Place, tenant_id: UUID) -> asyncpg.Connection:
    """A request under way elsewhere: it has the key and has not committed."""
    connection = await asyncpg.connect(place.url("app"))
    await connection.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{tenant_id}'")
    await connection.execute(HOLD, tenant_id, str(SHOPPER))
    return connection


async def test_a_twin_waits_for_the_first_and_replays_it_or_takes_its_place(place: Place, shell: Shell) -> None:
    for ending, expected in (("COMMIT", Replayed(Answer(200, b"of the first"))), ("ROLLBACK", None)):
        tenant_id, cart_id = await _shop(shell)
        first = await _hold(place, tenant_id)
        twin = asyncio.create_task(shell.execute(_add(tenant_id, cart_id), _claim(tenant_id)))
        await asyncio.sleep(0.3)
        assert not twin.done()
        await first.execute(ending)
        answer = await twin
        assert answer == expected if expected else isinstance(answer, Written)
        assert await _quantity(shell, tenant_id) == (0 if expected else 1)
        await first.close()


async def test_a_twin_whose_first_takes_too_long_is_told_so_and_did_nothing(place: Place, shell: Shell) -> None:
    tenant_id, cart_id = await _shop(shell)
    first = await _hold(place, tenant_id)
    with pytest.raises(ConflictError) as refusal:
        await shell.execute(_add(tenant_id, cart_id), _claim(tenant_id))
    assert (refusal.value.code, refusal.value.members) == ("request-in-flight", {"retry_after": 1})
    await first.close()
    assert await _quantity(shell, tenant_id) == 0
