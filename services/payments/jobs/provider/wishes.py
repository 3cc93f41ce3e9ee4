"""Whether a payment's money is still wanted, read just before its method is put to the issuer; many at once by one statement."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import structlog

from libs.common.database import Database
from services.payments.repository.payment import PAYMENTS

MOST = 500
"""Payments that are read at once."""

Asked = tuple[tuple[UUID, UUID], "asyncio.Future[bool | None]"]

log = structlog.get_logger(__name__)


class Wishes:
    """Reads for all who ask meanwhile; who asks while it reads is in the next reading."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: list[Asked] = []
        self._reading: asyncio.Task[None] | None = None

    async def wants(self, tenant_id: UUID, payment_id: UUID) -> bool | None:
        """Whether the payment is wanted. None: that cannot be read just now."""
        answer: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
        self._asked.append(((tenant_id, payment_id), answer))
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        return await answer

    async def close(self) -> None:
        """Read nothing more; whoever still asks is told nothing."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        for _, answer in self._asked:
            answer.cancel()

    async def _read(self) -> None:
        while self._asked:
            asked, self._asked = self._asked[:MOST], self._asked[MOST:]
            try:
                wanted = await self._wanted([key for key, _ in asked])
            except Exception as error:  # noqa: BLE001 - whatever the reason, nobody is asked for money upon a guess
                log.warning("wishes.not_read", error=f"{type(error).__name__}: {error}", action="no method is put to its issuer")
                wanted = {}
            for key, answer in asked:
                if not answer.done():
                    answer.set_result(wanted.get(key))

    async def _wanted(self, keys: Sequence[tuple[UUID, UUID]]) -> dict[tuple[UUID, UUID], bool]:
        async with self._database.transaction({tenant_id for tenant_id, _ in keys}) as connection:
            payments = await PAYMENTS.load(connection, sorted(set(keys)), lock=False, ends=True)
        return {(payment.tenant_id, payment.id): not payment.is_unwanted for payment in payments}
